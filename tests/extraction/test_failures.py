"""Unusable images are recorded with a reason; they never become zeros or end the extraction."""

import itertools
import os
import shutil
import socket
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurecache.datasets.dataset import Dataset
from featurecache.errors import FeaturecacheError, UsageError
from featurecache.extraction.update import ExtractionSummary, update_caches
from featurecache.store.reader import read_cache
from featurecache.store.verify import verify_cache
from tests.extraction.stub_encoder import (
    ALL_ZERO,
    NOT_FINITE,
    TOO_LARGE,
    StubEncoder,
    content,
    expected_embedding,
    make_dataset,
    write_image,
    write_images,
)


def run(dataset: Dataset, cache: Path) -> tuple[ExtractionSummary, StubEncoder]:
    encoder = StubEncoder()
    (summary,) = update_caches(dataset, [encoder], cache_dir=cache, batch_size=4)
    return summary, encoder


def claims_to_be_huge(path: Path) -> None:
    """A PNG of a few bytes whose header claims 100,000 x 100,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def cut(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])


SPOILERS = {
    "not-an-image": (lambda path: path.write_bytes(b"no image"), "not an image of a known format"),
    "cut-short": (cut, "damaged: "),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "missing": (lambda path: path.unlink(), "missing: no such file"),
    "fifo": (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
    "loop": (lambda path: (path.unlink(), path.symlink_to(path.name)), "cannot be read: "),
    "huge": (claims_to_be_huge, "more than 80,000,000 pixels"),
    "nan": (lambda path: write_image(path, NOT_FINITE), "not finite in float16"),
    "overflow": (lambda path: write_image(path, TOO_LARGE), "not finite in float16"),
    "zero": (lambda path: write_image(path, ALL_ZERO), "all zero"),
}


def spoil(root: Path, dataset: Dataset, ids: list[str]) -> None:
    paths = dict(zip(dataset.images["id"], dataset.images["path"], strict=True))
    for image_id, (damage, _) in zip(ids, SPOILERS.values(), strict=True):
        damage(root / paths[image_id])


@pytest.mark.timeout(30)
def test_every_kind_of_failure_is_recorded(root: Path, cache: Path, stub_path: Path) -> None:
    dataset = make_dataset(root, write_images(root, 3 * len(SPOILERS)))
    bad = dataset.images["id"].tolist()[1::3]
    spoil(root, dataset, bad)
    summary, _ = run(dataset, cache)
    assert sorted(summary.failed) == bad
    for image_id, (name, (_, reason)) in zip(bad, SPOILERS.items(), strict=True):
        assert reason in summary.failed[image_id], name
        # The id stands beside the reason; paths of the machine stay private.
        assert str(root) not in summary.failed[image_id]
    good = [number for number in range(3 * len(SPOILERS)) if number % 3 != 1]
    assert summary.images == summary.done == len(good)
    made = read_cache(stub_path)
    assert made.failures == summary.failed
    assert made.ids.tolist() == [f"i{number:03d}" for number in good]
    np.testing.assert_array_equal(
        made.embedding,
        np.stack([expected_embedding(number) for number in good]).astype(np.float16),
    )
    assert made.labels.values.tolist() == [[n % 2, [1, 0, -1][n % 3]] for n in good]
    assert verify_cache(stub_path) == []


def test_failures_are_retried_without_rewriting_the_cache(
    dataset: Dataset, root: Path, cache: Path, stub_path: Path
) -> None:
    (root / "i003.png").write_bytes(b"no image")
    write_image(root / "i004.png", NOT_FINITE)
    first, _ = run(dataset, cache)
    before = stub_path.stat()
    second, encoder = run(dataset, cache)
    assert encoder.batches == [[NOT_FINITE]]
    assert second.failed == first.failed
    assert (second.done, second.reused, second.written) == (0, 8, False)
    after = stub_path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_repaired_image_is_no_longer_a_failure(
    dataset: Dataset, root: Path, cache: Path, stub_path: Path
) -> None:
    (root / "i003.png").write_bytes(b"no image")
    (root / "i007.png").unlink()
    assert set(run(dataset, cache)[0].failed) == {"i003", "i007"}
    write_image(root / "i003.png", 3)
    summary, encoder = run(dataset, cache)
    assert (encoder.encoded, set(summary.failed)) == ([3], {"i007"})
    write_image(root / "i007.png", 7)
    summary, encoder = run(dataset, cache)
    assert (encoder.encoded, summary.failed) == ([7], {})
    assert len(read_cache(stub_path).images) == 10


def test_changed_image_that_became_unusable_loses_its_row(
    root: Path, cache: Path, stub_path: Path
) -> None:
    dataset = make_dataset(root, write_images(root, 2 * len(SPOILERS)))
    run(dataset, cache)
    before = read_cache(stub_path)
    before_rows = dict(zip(before.ids.tolist(), before.embedding.tolist(), strict=True))
    spoiled = dataset.images["id"].tolist()[::2]
    spoil(root, dataset, spoiled)
    # A missing file or broken link does not invalidate its old embedding.
    unseen = {spoiled[[*SPOILERS].index(name)] for name in ("missing", "loop")}
    summary, _ = run(dataset, cache)
    assert set(summary.failed) == set(spoiled) - unseen
    after = read_cache(stub_path)
    assert after.failures == summary.failed
    assert dict(zip(after.ids.tolist(), after.embedding.tolist(), strict=True)) == {
        image_id: row for image_id, row in before_rows.items() if image_id not in summary.failed
    }
    assert verify_cache(stub_path) == []


def test_failures_outside_limit_are_kept_and_of_removed_images_dropped(
    dataset: Dataset, root: Path, cache: Path, stub_path: Path
) -> None:
    for number in (2, 8):
        (root / f"i{number:03d}.png").write_bytes(b"no image")
    run(dataset, cache)
    assert set(run_limited(dataset, cache, 5).failed) == {"i002", "i008"}
    smaller = make_dataset(root, [i for i in dataset.images["id"] if i != "i002"])
    assert set(run(smaller, cache)[0].failed) == {"i008"}
    assert set(read_cache(stub_path).failures) == {"i008"}


def run_limited(dataset: Dataset, cache: Path, limit: int) -> ExtractionSummary:
    (summary,) = update_caches(dataset, [StubEncoder()], cache_dir=cache, limit=limit)
    return summary


@pytest.mark.parametrize("what", ["missing", "not-an-image", "nan"])
def test_data_set_without_usable_image_is_an_error(
    dataset: Dataset, root: Path, cache: Path, stub_path: Path, what: str
) -> None:
    for path in dataset.images["path"]:
        SPOILERS[what][0](root / path)
    with pytest.raises(FeaturecacheError, match="no image of set could be used by stub; i000: "):
        run(dataset, cache)
    assert list(stub_path.parent.iterdir()) == []
    for number, path in enumerate(dataset.images["path"]):
        write_image(root / path, number)
    assert run(dataset, cache)[0].images == 10


def test_no_usable_image_is_not_a_usage_error(dataset: Dataset, cache: Path) -> None:
    for path in dataset.images["path"]:
        (dataset.root / path).unlink()
    with pytest.raises(FeaturecacheError) as caught:
        run(dataset, cache)
    assert not isinstance(caught.value, UsageError)


def test_cache_survives_when_all_images_become_unusable(
    dataset: Dataset, root: Path, cache: Path, stub_path: Path
) -> None:
    run(dataset, cache)
    before = content(read_cache(stub_path))
    for path in dataset.images["path"]:
        (root / path).write_bytes(b"no image")
    with pytest.raises(UsageError, match="would lose 10 of its 10 images"):
        run(dataset, cache)
    with pytest.raises(FeaturecacheError, match="no image of set could be used"):
        update_caches(dataset, [StubEncoder()], cache_dir=cache, prune=True)
    assert content(read_cache(stub_path)) == before


def test_file_deleted_during_extraction_is_recorded(
    dataset: Dataset, root: Path, cache: Path
) -> None:
    encoder = StubEncoder()

    def progress(finished: int, total: int) -> None:
        if finished == 0:
            (root / "i009.png").unlink()

    (summary,) = update_caches(
        dataset, [encoder], cache_dir=cache, batch_size=1, workers=1, progress=progress
    )
    assert summary.failed == {"i009": "missing: no such file"}
    assert encoder.encoded == list(range(9))


def listen(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as one:
        # The path of a socket is limited to about a hundred characters.
        folder = os.open(path.parent, os.O_RDONLY)
        one.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


MIDWAY = {
    **{
        name: SPOILERS[name] for name in ("missing", "fifo", "folder", "loop", "empty", "cut-short")
    },
    "socket": (listen, "not a regular file"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("what", MIDWAY)
def test_file_damaged_during_extraction_is_encoded_once_restored(
    dataset: Dataset, root: Path, cache: Path, tmp_path: Path, what: str
) -> None:
    (undisturbed,) = update_caches(dataset, [StubEncoder()], cache_dir=tmp_path / "undisturbed")
    path = root / "i007.png"
    aside = path.rename(root / "aside")
    shutil.copy2(aside, path)
    spoiler, reason = MIDWAY[what]

    def progress(finished: int, total: int) -> None:
        if finished == 1:
            spoiler(path)

    encoder = StubEncoder()
    (summary,) = update_caches(
        dataset, [encoder], cache_dir=cache, batch_size=1, workers=1, progress=progress
    )
    assert reason in summary.failed["i007"]
    assert encoder.encoded == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    aside.rename(path)
    summary, encoder = run(dataset, cache)
    assert (encoder.encoded, summary.failed) == ([7], {})
    assert content(read_cache(summary.path)) == content(read_cache(undisturbed.path))


def test_jumping_clocks_and_odd_file_times_lose_nothing(
    dataset: Dataset, root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, seconds in enumerate((0, -(10**9), 4 * 10**9, 10**10)):  # 1938, 2096, 2286
        os.utime(root / f"i{number:03d}.png", (seconds, seconds))
    real, steps = time.time, itertools.count()
    # At every call the clock is a day earlier.
    monkeypatch.setattr(time, "time", lambda: real() - 86_400 * next(steps))
    first, encoder = run(dataset, cache)
    assert (encoder.encoded, first.failed) == (list(range(10)), {})
    second, encoder = run(dataset, cache)
    assert (encoder.encoded, second.reused, second.written) == ([], 10, False)
    # An older file, restored with its old time, is noticed as well.
    write_image(root / "i004.png", 40)
    os.utime(root / "i004.png", (1, 1))
    third, encoder = run(dataset, cache)
    assert (encoder.encoded, third.failed) == ([40], {})
    assert third.images == 10


def test_impossible_file_name_is_recorded(root: Path, cache: Path) -> None:
    dataset = make_dataset(root, write_images(root, 3))
    dataset.images.loc[1, "path"] = "a\0b.png"
    summary, encoder = run(dataset, cache)
    assert encoder.encoded == [0, 2]
    assert summary.failed == {"i001": "cannot be read: this is not a valid file name"}
