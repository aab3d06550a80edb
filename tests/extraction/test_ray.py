"""The Ray engine makes the same cache as the local one, even if workers are lost."""

import pickle
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.phantom.folder import generate_phantom, load_phantom
from featurecache.encoders.encoder import Encoder
from featurecache.encoders.loading import load_encoder
from featurecache.errors import FeaturecacheError, UsageError
from featurecache.extraction.decode import ImageTask
from featurecache.extraction.encode import SEGMENT_BATCHES
from featurecache.extraction.pipeline import Engine
from featurecache.extraction.ray_engine import Actor, ActorSettings, encode_on_ray
from featurecache.extraction.update import ExtractionSummary, update_caches
from featurecache.progress import Progress
from featurecache.store.reader import read_cache
from tests.extraction.stub_encoder import content

# Ray warns about settings that it sets itself.
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\.")

Load = Callable[[], Encoder]
IMAGES, BATCH = 90, 3
SEGMENT = SEGMENT_BATCHES * BATCH
"""Images in a segment. There are eight, the last one is shorter."""
TINY = partial(load_encoder, "tiny", precision="fp32")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two machines of one core each, as far as Ray knows."""
    import ray
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    machines.add_node(num_cpus=1)
    ray.init(machines.address, log_to_driver=False)
    yield
    ray.shutdown()
    machines.shutdown()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Synthetic images, three of which cannot be used."""
    root = tmp_path_factory.mktemp("images") / "phantom"
    generate_phantom(root, n_images=IMAGES, size=64)
    dataset = load_phantom(root)
    missing, cut, damaged = (root / dataset.images["path"].iloc[row] for row in (1, 30, 80))
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:500])
    damaged.write_bytes(b"no image")
    return dataset


def on_ray(*loads: Load) -> Engine:
    return partial(encode_on_ray, loads=loads)


def run(dataset: Dataset, cache: Path, *loads: Load, **options: object) -> list[ExtractionSummary]:
    return update_caches(
        dataset, [load() for load in loads], cache_dir=cache, batch_size=BATCH, **options
    )


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ExtractionSummary:
    """The result of the local engine."""
    (summary,) = run(dataset, tmp_path_factory.mktemp("local"), TINY)
    return summary


def same(one: ExtractionSummary, other: ExtractionSummary) -> bool:
    return content(read_cache(one.path)) == content(read_cache(other.path))


def interrupt_at(position: int) -> Progress:
    def progress(finished: int, _: int) -> None:
        if finished == position:
            raise KeyboardInterrupt

    return progress


def actors() -> list[psutil.Process]:
    """The processes of Ray's actors that this process has started."""
    processes = psutil.Process().children(recursive=True)
    return [process for process in processes if "MapWorker" in process.cmdline()[0]]


def test_caches_equal_those_of_local_engine(
    dataset: Dataset,
    undisturbed: ExtractionSummary,
    tiny_clip: Path,
    tmp_path: Path,
    cluster: None,
) -> None:
    half = partial(load_encoder, str(tiny_clip), precision="bf16")
    calls: list[tuple[int, int]] = []
    first, second = run(
        dataset,
        tmp_path / "ray",
        *(TINY, half),
        engine=on_ray(TINY, half),
        progress=lambda *numbers: calls.append(numbers),
    )
    assert same(first, undisturbed)
    assert (first.done, first.failed) == (IMAGES - 3, undisturbed.failed)
    assert len(first.failed) == 3
    assert calls == [(number, IMAGES) for number in range(IMAGES + 1)]
    assert first.read_share + first.encode_share + first.write_share == pytest.approx(1)
    assert same_in_bf16(second, *run(dataset, tmp_path / "local", half))


def same_in_bf16(one: ExtractionSummary, other: ExtractionSummary) -> bool:
    a, b = (read_cache(summary.path) for summary in (one, other))
    left, right = (cache.embedding.astype(np.float64) for cache in (a, b))
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosine = (left * right).sum(axis=1) / lengths
    return a.ids.tolist() == b.ids.tolist() and cosine.min() >= 0.9999


def test_interrupted_extraction_continues_although_worker_is_killed(
    dataset: Dataset, undisturbed: ExtractionSummary, tmp_path: Path, cluster: None
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(
            dataset,
            tmp_path,
            TINY,
            engine=on_ray(TINY),
            progress=interrupt_at(2 * SEGMENT + 1),
        )
    killed: list[int] = []

    def kill(finished: int, _: int) -> None:
        """Kill one of two actors when the first segment has arrived and others are in progress."""
        if finished and not killed:
            worker = actors()[-1]
            worker.kill()
            worker.wait(10)
            killed.append(worker.pid)

    (summary,) = run(dataset, tmp_path, TINY, engine=on_ray(TINY), progress=kill)
    assert len(killed) == 1
    # Whichever segments came first, all of them but the last are stored. Three images have failed.
    assert SEGMENT + 1 - 3 <= summary.reused <= 2 * SEGMENT + 1
    assert summary.done + summary.reused == IMAGES - 3
    assert same(summary, undisturbed)


def test_actor_with_other_encoder_returns_picklable_error(
    dataset: Dataset,
) -> None:
    actor = Actor(
        ActorSettings([partial(TINY, precision="bf16")], [TINY().image_spec], BATCH, 1, 60.0)
    )
    tasks = [ImageTask(0, "a", dataset.root / dataset.images["path"].iloc[0], (0,))]
    (event,) = actor({"segment": np.array([tasks], dtype=object)})["event"]
    sent = pickle.loads(pickle.dumps(event))  # noqa: S301
    assert isinstance(sent, FeaturecacheError)
    assert re.search(r"tiny .*\(precision: 'fp32' against 'bf16'\)", str(sent))


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_missing_ray_error_has_install_command(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(
        "featurecache.extraction.ray_cluster.find_spec",
        lambda name: None if name == missing else True,
    )
    with pytest.raises(UsageError, match=r"pip install 'featurecache\[ray\]'"):
        run(dataset, tmp_path, TINY, engine=on_ray(TINY))
