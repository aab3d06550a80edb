"""Interrupted extractions keep what was encoded and end like undisturbed ones."""

import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL.Image import Image

from featurecache.datasets.dataset import Dataset
from featurecache.errors import CacheError
from featurecache.extraction.update import update_caches
from featurecache.progress import Progress
from featurecache.prompts import PROMPT_SETS
from featurecache.store.layout import chunks_path
from featurecache.store.reader import read_cache
from tests.extraction.stub_encoder import (
    NOT_FINITE,
    StubEncoder,
    content,
    make_dataset,
    write_image,
    write_images,
)

IMAGES, BATCH = 22, 4


def interrupt_at(position: int, error: BaseException) -> Progress:
    def progress(finished: int, total: int) -> None:
        if finished == position:
            raise error

    return progress


def run(dataset: Dataset, cache: Path, progress: Progress | None = None) -> StubEncoder:
    encoder = StubEncoder()
    update_caches(
        dataset,
        [encoder],
        cache_dir=cache,
        prompts=PROMPT_SETS["signs"],
        batch_size=BATCH,
        progress=progress,
    )
    return encoder


def ids_in_chunks(path: Path) -> list[str]:
    ids: list[str] = []
    for part in sorted(chunks_path(path).glob("part-*.h5")):
        with h5py.File(part) as file:
            ids += file["id"].asstr()[()].tolist()
    return ids


@pytest.fixture
def dataset(root: Path) -> Dataset:
    return make_dataset(root, write_images(root, IMAGES))


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
@pytest.mark.parametrize("position", [0, 1, 4, 7, 8, 13, 20, 21, 22])
def test_interrupted_extraction_continues(
    dataset: Dataset, tmp_path: Path, error: BaseException, position: int
) -> None:
    undisturbed = run(dataset, tmp_path / "undisturbed")
    expected = content(read_cache(tmp_path / "undisturbed/set/stub.h5"))
    assert len(expected["images"]) == IMAGES

    path = tmp_path / "cache/set/stub.h5"
    first = StubEncoder()
    with pytest.raises(type(error)):
        update_caches(
            dataset,
            [first],
            cache_dir=tmp_path / "cache",
            batch_size=BATCH,
            progress=interrupt_at(position, error),
        )
    assert not path.exists()
    whole = position // BATCH * BATCH
    assert first.encoded == list(range(whole))
    assert ids_in_chunks(path) == [f"i{number:03d}" for number in range(whole)]

    second = run(dataset, tmp_path / "cache")
    assert first.batches + second.batches == undisturbed.batches
    assert content(read_cache(path)) == expected
    assert not chunks_path(path).exists()


def test_many_interrupts_encode_nothing_twice(dataset: Dataset, tmp_path: Path) -> None:
    undisturbed = run(dataset, tmp_path / "undisturbed")
    batches: list[list[int]] = []
    interrupts = 0
    while not (tmp_path / "cache/set/stub.h5").exists():
        encoder = StubEncoder()
        try:
            update_caches(
                dataset,
                [encoder],
                cache_dir=tmp_path / "cache",
                prompts=PROMPT_SETS["signs"],
                batch_size=BATCH,
                progress=interrupt_at(5, KeyboardInterrupt()),
            )
        except KeyboardInterrupt:
            interrupts += 1
        batches += encoder.batches
    assert interrupts == 5
    assert batches == undisturbed.batches
    assert content(read_cache(tmp_path / "cache/set/stub.h5")) == content(
        read_cache(tmp_path / "undisturbed/set/stub.h5")
    )


def test_batches_are_the_same_around_unreadable_images(
    dataset: Dataset, root: Path, tmp_path: Path
) -> None:
    for number in (0, 5, 6, 13):
        (root / f"i{number:03d}.png").write_bytes(b"no image")
    undisturbed = run(dataset, tmp_path / "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path / "cache", interrupt_at(14, KeyboardInterrupt()))
    resumed = run(dataset, tmp_path / "cache")
    assert undisturbed.batches == [
        *([1, 2, 3, 4], [7, 8, 9, 10], [11, 12, 14, 15], [16, 17, 18, 19], [20, 21]),
    ]
    assert resumed.batches == undisturbed.batches[2:]
    assert content(read_cache(tmp_path / "cache/set/stub.h5")) == content(
        read_cache(tmp_path / "undisturbed/set/stub.h5")
    )


def test_failing_encoder_loses_only_its_batch(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = StubEncoder()
    encode = encoder.embed_pixels

    def fail_later(pixels: np.ndarray) -> np.ndarray:
        if len(encoder.batches) == 3:
            raise RuntimeError("out of memory")
        return encode(pixels)

    monkeypatch.setattr(encoder, "embed_pixels", fail_later)
    with pytest.raises(RuntimeError, match="out of memory"):
        update_caches(dataset, [encoder], cache_dir=tmp_path, batch_size=BATCH)
    assert len(ids_in_chunks(tmp_path / "set/stub.h5")) == 3 * BATCH
    resumed = run(dataset, tmp_path)
    assert resumed.encoded == list(range(3 * BATCH, IMAGES))


def test_interrupt_stops_reading(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = StubEncoder()
    preprocess, read = encoder.preprocess, []

    def slowly(image: Image) -> np.ndarray:
        read.append(image)
        time.sleep(0.02)
        return preprocess(image)

    monkeypatch.setattr(encoder, "preprocess", slowly)
    # The error keeps the frames of the extraction alive, as a debugger would.
    with pytest.raises(KeyboardInterrupt) as caught:
        update_caches(
            dataset,
            [encoder],
            cache_dir=tmp_path,
            batch_size=16,
            progress=interrupt_at(1, KeyboardInterrupt()),
        )
    assert caught.tb is not None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert len(read) < 12


def test_interrupt_while_finishing_keeps_chunks(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("featurecache.store.writer._write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(dataset, tmp_path / "cache")
    path = tmp_path / "cache/set/stub.h5"
    assert {file.name for file in path.parent.iterdir()} == {"stub.h5.parts", "stub.h5.lock"}
    assert len(ids_in_chunks(path)) == IMAGES
    assert run(dataset, tmp_path / "cache").batches == []
    run(dataset, tmp_path / "undisturbed")
    assert content(read_cache(path)) == content(read_cache(tmp_path / "undisturbed/set/stub.h5"))


def test_interrupted_update_keeps_old_cache(root: Path, dataset: Dataset, tmp_path: Path) -> None:
    run(make_dataset(root, dataset.images["id"].tolist()[::2]), tmp_path / "cache")
    path = tmp_path / "cache/set/stub.h5"
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path / "cache", interrupt_at(9, KeyboardInterrupt()))
    assert path.read_bytes() == before
    assert ids_in_chunks(path) == [f"i{number:03d}" for number in range(1, 16, 2)]
    assert run(dataset, tmp_path / "cache").encoded == [17, 19, 21]
    run(dataset, tmp_path / "undisturbed")
    assert content(read_cache(path)) == content(read_cache(tmp_path / "undisturbed/set/stub.h5"))


def test_file_changed_after_interrupt_is_encoded_again(
    root: Path, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path / "cache", interrupt_at(8, KeyboardInterrupt()))
    write_image(root / "i002.png", 99)
    write_image(root / "i003.png", NOT_FINITE)
    (root / "i004.png").write_bytes(b"no image")
    (root / "i005.png").unlink()  # keeps the embedding it has
    resumed = run(dataset, tmp_path / "cache")
    assert resumed.encoded == [99, NOT_FINITE, *range(8, IMAGES)]
    cache = read_cache(tmp_path / "cache/set/stub.h5")
    assert set(cache.failures) == {"i003", "i004"}
    assert cache.ids.tolist() == [
        f"i{number:03d}" for number in range(IMAGES) if number not in (3, 4)
    ]


def test_chunks_of_removed_images_are_dropped_only_with_prune(
    root: Path, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path / "cache", interrupt_at(8, KeyboardInterrupt()))
    smaller = make_dataset(root, dataset.images["id"].tolist()[3:])
    with pytest.raises(CacheError, match=r"holds 3 images .*give `prune`"):
        run(smaller, tmp_path / "cache")
    assert len(ids_in_chunks(tmp_path / "cache/set/stub.h5")) == 8
    encoder = StubEncoder()
    (summary,) = update_caches(smaller, [encoder], cache_dir=tmp_path / "cache", prune=True)
    assert (summary.images, summary.done, summary.reused) == (IMAGES - 3, IMAGES - 8, 5)
    assert encoder.encoded == list(range(8, IMAGES))


def test_chunks_are_flushed_regularly(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurecache.extraction.pipeline.FLUSH_SECONDS", 0.0)
    path = tmp_path / "set/stub.h5"
    seen: list[int] = []
    run(dataset, tmp_path, lambda finished, total: seen.append(len(ids_in_chunks(path))))
    # One batch is still being encoded in the only encoder thread.
    behind = [max(0, finished // BATCH - 1) * BATCH for finished in range(IMAGES + 1)]
    assert seen == behind


def test_temporary_files_of_killed_extraction_are_removed(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / ".stub.h5.x7k2.tmp").write_bytes(b"half a cache")
    (folder / ".other.h5.x7k2.tmp").write_bytes(b"another model's")
    run(dataset, tmp_path)
    names = {file.name for file in folder.iterdir()}
    assert names == {"stub.h5", "stub.h5.lock", ".other.h5.x7k2.tmp"}
