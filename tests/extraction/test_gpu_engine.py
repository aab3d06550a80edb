"""A process for each GPU. Here the processes encode on the CPU."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest

import featurecache as fc
from featurecache.datasets.dataset import Dataset
from featurecache.encoders.encoder import Encoder
from featurecache.errors import FeaturecacheError, UsageError
from featurecache.extraction.gpu_engine import encode_on_gpus, visible_gpus
from featurecache.extraction.update import ExtractionSummary, update_caches
from featurecache.store.reader import read_cache
from tests.extraction.stub_encoder import StubEncoder, content, make_dataset, write_images

BATCH, IMAGES = 2, 40
NAMES = ["one", "other"]


def load_on_gpu(folder: Path, name: str) -> Encoder:
    """Load an encoder, and note on which GPU."""
    (folder / f"gpu-{os.environ['CUDA_VISIBLE_DEVICES']}").touch()
    return StubEncoder(name, seconds=0.02)


def workers() -> list[psutil.Process]:
    """The processes that encode; the library that starts them has one of its own."""
    children = psutil.Process().children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def load_nothing() -> Encoder:
    os._exit(7)


def encode(
    dataset: Dataset, cache: Path, loads: Sequence[Callable[[], Encoder]], **options: object
) -> list[ExtractionSummary]:
    engine = partial(encode_on_gpus, loads=loads, gpus=["3", "5"])
    return update_caches(
        dataset,
        [StubEncoder(name) for name in NAMES[: len(loads)]],
        cache_dir=cache,
        batch_size=BATCH,
        engine=engine,
        **options,
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("images")
    dataset = make_dataset(root, write_images(root, IMAGES))
    (root / dataset.images["path"].iloc[4]).write_bytes(b"no image")
    return dataset


def test_cache_equals_that_of_one_process_although_one_is_killed(
    dataset: Dataset, tmp_path: Path
) -> None:
    killed: list[psutil.Process] = []

    def progress(finished: int, total: int) -> None:
        if finished and not killed:
            killed.append(workers()[0])
            killed[0].kill()

    loads = [partial(load_on_gpu, tmp_path, name) for name in NAMES]
    summaries = encode(dataset, tmp_path / "gpus", loads, progress=progress)
    assert len(killed) == 1
    assert sorted(path.name for path in tmp_path.glob("gpu-*")) == ["gpu-3", "gpu-5"]
    encoders = [StubEncoder(name) for name in NAMES]
    local = update_caches(dataset, encoders, cache_dir=tmp_path / "local", batch_size=BATCH)
    for summary, expected in zip(summaries, local, strict=True):
        assert content(read_cache(summary.path)) == content(read_cache(expected.path))
        assert (summary.done, summary.failed) == (IMAGES - 1, expected.failed)
    _, alive = psutil.wait_procs(workers(), timeout=10)
    assert not alive


def test_processes_that_are_always_lost_end_the_extraction(
    dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(FeaturecacheError, match=r"on GPU [35] ended with exit code 7: finished"):
        encode(dataset, tmp_path, [load_nothing])


def test_all_gpus_without_any(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no cuda device: set `device` to auto or cpu"):
        fc.extract(dataset, "tiny", cache_dir=tmp_path, device="all")
    with pytest.raises(UsageError, match="ray uses all devices anyway"):
        fc.extract(dataset, "tiny", cache_dir=tmp_path, device="all", engine="ray")


@pytest.mark.parametrize(
    ("variable", "names"),
    [(None, ["0", "1"]), ("2,GPU-4c1", ["2", "GPU-4c1"]), ("0,1,9", ["0", "1"])],
)
def test_gpus_that_the_user_chose(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, names: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == names
