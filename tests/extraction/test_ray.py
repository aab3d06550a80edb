"""On Ray: the same cache as the local engine's, whoever is lost on the way."""

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from stub_encoder import content

from featurecache.datasets.manifest import Manifest
from featurecache.datasets.phantom.folder import generate_phantom, load_phantom
from featurecache.encoders.loading import load_encoder
from featurecache.errors import FeaturecacheError, UsageError
from featurecache.extraction.extract import Summary, extract
from featurecache.extraction.on_ray import encode_on_ray
from featurecache.extraction.pipeline import Engine, Progress
from featurecache.store.reader import read_cache
from featurecache.store.schema import parts_path

# Ray warns of settings of its own, when it sets them.
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\.")

IMAGES, BATCH = 90, 3
"""Four runs of 24 images, the last one shorter."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two machines of one core each, as far as Ray can tell."""
    import ray
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    machines.add_node(num_cpus=1)
    ray.init(machines.address, log_to_driver=False)
    yield
    ray.shutdown()
    machines.shutdown()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Synthetic films, three of which cannot be used."""
    root = tmp_path_factory.mktemp("films") / "phantom"
    generate_phantom(root, images=IMAGES, size=64)
    films = load_phantom(root)
    missing, cut, damaged = (root / films.images["path"].iloc[row] for row in (1, 30, 80))
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:500])
    damaged.write_bytes(b"no image")
    return films


def on_ray(*models: str, precision: str = "fp32") -> Engine:
    return partial(
        encode_on_ray, loads=[partial(load_encoder, model, precision=precision) for model in models]
    )


def run(
    manifest: Manifest, cache: Path, *models: str, precision: str = "fp32", **options: object
) -> list[Summary]:
    encoders = [load_encoder(model, precision=precision) for model in models]
    return extract(manifest, encoders, cache=cache, batch_size=BATCH, **options)


@pytest.fixture(scope="module")
def undisturbed(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """What the local engine does."""
    (summary,) = run(manifest, tmp_path_factory.mktemp("local"), "tiny")
    return summary


def same(one: Summary, other: Summary) -> bool:
    return content(read_cache(one.path)) == content(read_cache(other.path))


def test_the_cache_is_that_of_the_local_engine(
    manifest: Manifest, undisturbed: Summary, tiny_clip: Path, tmp_path: Path, cluster: None
) -> None:
    models = ("tiny", str(tiny_clip))
    told: list[tuple[int, int]] = []
    first, second = run(
        manifest,
        tmp_path / "ray",
        *models,
        engine=on_ray(*models),
        progress=lambda *numbers: told.append(numbers),
    )
    assert same(first, undisturbed)
    assert (first.done, first.failed) == (IMAGES - 3, undisturbed.failed)
    assert len(first.failed) == 3
    (alone,) = run(manifest, tmp_path / "local", str(tiny_clip))
    assert same(second, alone)
    assert told == [(number, IMAGES) for number in range(IMAGES + 1)]
    assert first.read_share + first.encode_share + first.write_share == pytest.approx(1)
    (again,) = run(manifest, tmp_path / "ray", "tiny", engine=on_ray("tiny"))
    assert (again.done, again.reused, again.written) == (0, IMAGES - 3, False)


def test_a_worker_that_is_killed_at_work_costs_nothing(
    manifest: Manifest, undisturbed: Summary, tmp_path: Path, cluster: None
) -> None:
    killed: list[int] = []

    def kill(finished: int, _: int) -> None:
        """One of the two actors, when the first run has come and others are on their way."""
        if finished and not killed:
            worker = actors()[-1]
            killed.append(worker.pid)
            worker.kill()
            worker.wait(10)

    (summary,) = run(manifest, tmp_path, "tiny", engine=on_ray("tiny"), progress=kill)
    assert len(killed) == 1
    assert same(summary, undisturbed)
    assert summary.done == IMAGES - 3


def actors() -> list[psutil.Process]:
    """The processes of this test's actors."""
    found = []
    for process in psutil.Process().children(recursive=True):
        if "MapWorker" in " ".join(process.cmdline()):
            found.append(process)
    return found


def test_what_came_before_an_interrupt_stays(
    manifest: Manifest, undisturbed: Summary, tmp_path: Path, cluster: None
) -> None:
    def interrupt(finished: int, _: int) -> None:
        if finished == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(manifest, tmp_path, "tiny", engine=on_ray("tiny"), progress=interrupt)
    assert list(parts_path(tmp_path / "phantom" / "tiny.h5").glob("part-*.h5"))
    (summary,) = run(manifest, tmp_path, "tiny", engine=on_ray("tiny"))
    assert 20 <= summary.reused < 30
    assert same(summary, undisturbed)


def test_bf16_is_that_of_the_local_engine(
    manifest: Manifest, tmp_path: Path, cluster: None
) -> None:
    films = manifest.take(np.arange(0, IMAGES, 2))
    (there,) = run(
        films, tmp_path / "ray", "tiny", precision="bf16", engine=on_ray("tiny", precision="bf16")
    )
    (here,) = run(films, tmp_path / "local", "tiny", precision="bf16")
    one, other = (read_cache(made.path) for made in (there, here))
    assert one.images.id.tolist() == other.images.id.tolist()
    a, b = (cache.embedding.astype(np.float64) for cache in (one, other))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    assert ((a * b).sum(axis=1) / lengths).min() >= 0.9999


def test_an_actor_with_another_encoder_is_refused(
    manifest: Manifest, tmp_path: Path, cluster: None
) -> None:
    with pytest.raises(FeaturecacheError, match=r"tiny .*\(precision: 'fp32' against 'bf16'\)"):
        run(manifest, tmp_path, "tiny", engine=on_ray("tiny", precision="bf16"))
    assert not (tmp_path / "phantom" / "tiny.h5").exists()


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_without_the_extra_the_command_to_type_is_told(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(
        "featurecache.extraction.on_ray.find_spec", lambda name: None if name == missing else True
    )
    with pytest.raises(UsageError, match=r"pip install 'featurecache\[ray\]'"):
        run(manifest, tmp_path, "tiny", engine=on_ray("tiny"))
