"""The Ray engine makes the same cache as the local one, even if workers are lost."""

import json
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from featurecache.cli import main
from featurecache.datasets.dataset import Dataset
from featurecache.datasets.phantom.folder import generate_phantom, load_phantom
from featurecache.encoders.encoder import Encoder
from featurecache.encoders.loading import load_encoder
from featurecache.errors import FeaturecacheError, UsageError
from featurecache.extraction.decode import ImageTask
from featurecache.extraction.encode import (
    MAX_ENCODER_THREADS,
    SEGMENT_BATCHES,
    EncodedBatch,
    Event,
    EventHandler,
    ImageResult,
)
from featurecache.extraction.pipeline import Engine
from featurecache.extraction.ray_engine import encode_on_ray
from featurecache.extraction.update import ExtractionSummary, update_caches
from featurecache.extraction.worker import (
    Segment,
    Worker,
    WorkerSettings,
    load_same,
    split_into_segments,
)
from featurecache.store.reader import read_cache
from tests.extraction import ray_driver
from tests.extraction.stub_encoder import StubEncoder, content, make_dataset, write_images

# Ray warns about settings that it sets itself.
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\.")

Load = Callable[[], Encoder]
IMAGES, BATCH = 90, 3
SEGMENT = SEGMENT_BATCHES * BATCH
"""Images in a segment. There are eight, the last one is shorter."""
TINY = partial(load_encoder, "tiny", precision="fp32")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A machine with room for two workers, as far as Ray knows."""
    import ray

    ray.init(
        "local", num_cpus=2 * MAX_ENCODER_THREADS, include_dashboard=False, log_to_driver=False
    )
    yield
    ray.shutdown()


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


def same(one: ExtractionSummary, other: ExtractionSummary) -> bool:
    return content(read_cache(one.path)) == content(read_cache(other.path))


def actors() -> list[psutil.Process]:
    """The processes of Ray's actors that this process has started."""
    processes = psutil.Process().children(recursive=True)
    # None of a process that has ended.
    named = [(p, p.as_dict(["cmdline"])["cmdline"] or [""]) for p in processes if p.is_running()]
    return [process for process, (name, *_) in named if "ray::Worker" in name]


def test_caches_equal_those_of_local_engine_although_worker_is_killed(
    dataset: Dataset, tmp_path: Path, cluster: None
) -> None:
    """Stubs, because three workers would import transformers."""
    loads = partial(StubEncoder, seconds=0.05), partial(StubEncoder, "other", checkpoint="two")
    calls: list[tuple[int, int]] = []
    killed: list[psutil.Process] = []

    def progress(finished: int, total: int) -> None:
        """Kill one of the workers when the first batch has arrived and others are in progress."""
        calls.append((finished, total))
        if finished and not killed:
            killed.append(actors()[-1])
            killed[0].kill()

    first, second = run(dataset, tmp_path / "ray", *loads, engine=on_ray(*loads), progress=progress)
    assert len(killed) == 1
    undisturbed, other = run(dataset, tmp_path / "local", *loads)
    assert same(first, undisturbed)
    assert same(second, other)
    assert (first.done, first.failed) == (IMAGES - 3, undisturbed.failed)
    assert len(first.failed) == 3
    assert calls == [(number, IMAGES) for number in range(IMAGES + 1)]
    assert first.read_share + first.encode_share + first.write_share == pytest.approx(1)
    _, alive = psutil.wait_procs(actors(), timeout=30)
    assert not alive


class Gated(StubEncoder):
    """Encodes its first batch at once, and others when the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        assert not self.batches or self.gate.wait(30)
        return super().embed_pixels(pixels)


def test_batches_arrive_one_by_one_and_only_the_rest_of_a_segment_is_sent_again(
    root: Path,
) -> None:
    """Two encoders; the second has the first batch of six images already."""
    dataset = make_dataset(root, write_images(root, SEGMENT))
    tasks = [
        ImageTask(row, image_id, root / f"{image_id}.png", (0,) if row < 6 else (0, 1))
        for row, image_id in enumerate(dataset.images["id"])
    ]
    (root / "i004.png").write_bytes(b"no image")
    events: list[Event] = []
    segment = Segment(tasks)

    def encode(encoders: list[Gated], calls: int | None) -> None:
        settings = WorkerSettings(
            [lambda index=index: encoders[index] for index in range(2)],
            *(BATCH, 2, 60.0),
        )
        worker = Worker(settings, f"test-{os.getpid()}.journal")
        results = worker.encode(segment.remaining())
        for number, returned in enumerate(results, 1):
            for event, seconds in returned:
                segment.receive(event, seconds, lambda event, _: events.append(event))
            if number == calls:
                break
        for encoder in encoders:
            encoder.gate.set()
        worker.close()

    lost = [Gated(), Gated()]
    encode(lost, calls=1)
    # The only batch that can have been encoded; the next one waits.
    (batch,) = [event for event in events if isinstance(event, EncodedBatch)]
    assert ([*batch.embeddings], batch.row.tolist()) == ([0], [0, 1, 2])
    # A failure does not wait for a batch.
    assert [event.row for event in events if isinstance(event, ImageResult)] == [4, 0, 1, 2]
    replacement = [Gated(), Gated()]
    for encoder in replacement:
        encoder.gate.set()
    encode(replacement, calls=None)
    assert not segment.remaining()
    batches = [event for event in events if isinstance(event, EncodedBatch)]
    assert [b.row.tolist() for b in batches if 0 in b.embeddings] == [
        *([0, 1, 2], [3, 5, 6], [7, 8, 9], [10, 11]),
    ]
    assert [b.row.tolist() for b in batches if 1 in b.embeddings] == [[6, 7, 8], [9, 10, 11]]
    results = [event for event in events if isinstance(event, ImageResult)]
    assert sorted(result.row for result in results) == list(range(SEGMENT))
    assert [result.row for result in results if result.reason] == [4]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_sigterm_keeps_the_batches_of_unfinished_segments_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    """A cluster of its own, which listens on the loopback interface only."""
    write_images(tmp_path / "data", SEGMENT)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        [sys.executable, ray_driver.__file__, tmp_path, str(BATCH)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as driver:
        assert driver.stderr is not None
        assert ray_driver.STORED in iter(driver.stderr.readline, "")
        processes = psutil.Process(driver.pid).children(recursive=True)
        listening = {
            ip_address(connection.laddr.ip)
            for process in [psutil.Process(driver.pid), *processes]
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        driver.terminate()
        out, err = driver.communicate(timeout=60)
    assert (driver.returncode, out) == (143, "")
    assert err.splitlines()[-1].startswith("error: terminated: ")
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive
    assert listening
    for address in listening:
        assert getattr(address, "ipv4_mapped", address).is_loopback, address
    dataset = make_dataset(tmp_path / "data", [f"i{number:03d}" for number in range(SEGMENT)])
    (summary,) = update_caches(
        dataset, [StubEncoder()], cache_dir=tmp_path / "cache", batch_size=BATCH
    )
    assert summary.reused == BATCH


def test_command_writes_the_same_cache_and_prints_one_json_document(
    tiny_clip: Path,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cluster: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    # A relative path, as a user would type it.
    Path(tiny_clip.name).symlink_to(tiny_clip)
    options = [
        *("extract", "--model", tiny_clip.name, "--model", "tiny", "--data-root", dataset.root),
        *("--precision", "fp32", "--shard", "1/2", "--limit", "28", "--json"),
    ]
    on_cluster, alone = (
        json.loads(CliRunner().invoke(main, [*map(str, options), *engine]).stdout)
        for engine in (("--engine", "ray", "--cache", "ray"), ("--cache", "local"))
    )
    assert len(on_cluster) == 2
    for by_ray, locally in zip(on_cluster, alone, strict=True):
        assert by_ray["done"] + len(by_ray["failed"]) == 28
        assert (by_ray["done"], by_ray["failed"]) == (locally["done"], locally["failed"])
        first, second = (read_cache(Path(summary["path"])) for summary in (by_ray, locally))
        assert first.ids.tolist() == second.ids.tolist()
        assert first.embedding.tobytes() == second.embedding.tobytes()


def test_worker_embeds_in_bf16_as_the_local_engine(
    dataset: Dataset, tiny_clip: Path, tmp_path: Path
) -> None:
    half = partial(load_encoder, str(tiny_clip), precision="bf16")

    def encode_in_worker(
        tasks: Iterable[ImageTask], encoders: Sequence[Encoder], handle: EventHandler, **given: Any
    ) -> None:
        settings = WorkerSettings([half], BATCH, given["workers"], given["image_timeout"])
        worker = Worker(settings, tmp_path / "journal")
        for segment in split_into_segments(tasks, batch_size=BATCH):
            for events in worker.encode(segment.remaining()):
                for event, seconds in events:
                    assert not isinstance(event, FeaturecacheError)
                    segment.receive(event, seconds, handle)
        worker.close()

    summaries = [
        *run(dataset, tmp_path / "worker", half, engine=encode_in_worker),
        *run(dataset, tmp_path / "local", half),
    ]
    a, b = (read_cache(summary.path) for summary in summaries)
    left, right = (cache.embedding.astype(np.float64) for cache in (a, b))
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    assert a.ids.tolist() == b.ids.tolist()
    assert len(a) == IMAGES - 3
    assert ((left * right).sum(axis=1) / lengths).min() >= 0.9999


def test_worker_with_other_encoder_returns_picklable_error(
    dataset: Dataset,
) -> None:
    worker = Worker(
        WorkerSettings(
            [partial(load_same, partial(TINY, precision="bf16"), TINY().image_spec)],
            *(BATCH, 1, 60.0),
        ),
        "unused.journal",
    )
    tasks = [ImageTask(0, "a", dataset.root / dataset.images["path"].iloc[0], (0,))]
    (((event, _),),) = worker.encode(tasks)
    sent = pickle.loads(pickle.dumps(event))  # noqa: S301
    assert isinstance(sent, FeaturecacheError)
    assert re.search(r"tiny .*\(precision: 'fp32' against 'bf16'\)", str(sent))


def test_missing_ray_error_has_install_command(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurecache.extraction.ray_cluster.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'featurecache\[ray\]'"):
        run(dataset, tmp_path, TINY, engine=on_ray(TINY))
