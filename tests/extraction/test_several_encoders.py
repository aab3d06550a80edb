"""Several encoders: every image is decoded once, and every encoder has its cache."""

from collections import Counter
from pathlib import Path

import pytest

from featurecache.datasets.dataset import Dataset
from featurecache.errors import CacheError
from featurecache.extraction.update import update_caches
from featurecache.images.decode import decode_image
from featurecache.store.reader import read_cache
from tests.extraction.stub_encoder import (
    StubEncoder,
    content,
    make_dataset,
    touch,
    write_image,
    write_images,
)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each file's bytes were decoded."""
    count: Counter[bytes] = Counter()

    def counting(data: bytes, *, bit_depth: int | None) -> object:
        count[data] += 1
        return decode_image(data, bit_depth=bit_depth)

    monkeypatch.setattr("featurecache.extraction.decode.decode_image", counting)
    return count


def alone(dataset: Dataset, name: str, cache: Path) -> dict[str, object]:
    update_caches(dataset, [StubEncoder(name)], cache_dir=cache / "alone")
    return content(read_cache(cache / "alone" / "set" / f"{name}.h5"))


def test_each_image_is_decoded_once(
    dataset: Dataset, cache: Path, tmp_path: Path, decoded: Counter[bytes]
) -> None:
    encoders = [StubEncoder("a"), StubEncoder("b"), StubEncoder("c")]
    summaries = update_caches(dataset, encoders, cache_dir=cache, batch_size=4)
    assert len(decoded) == 10
    assert set(decoded.values()) == {1}
    assert [summary.model for summary in summaries] == ["a", "b", "c"]
    for encoder, summary in zip(encoders, summaries, strict=True):
        assert encoder.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert (summary.done, summary.reused) == (10, 0)
        assert content(read_cache(summary.path)) == alone(dataset, encoder.name, tmp_path)


def test_finished_cache_is_not_touched(
    dataset: Dataset, cache: Path, tmp_path: Path, decoded: Counter[bytes]
) -> None:
    update_caches(dataset, [StubEncoder("a")], cache_dir=cache)
    before = (cache / "set" / "a.h5").stat()
    decoded.clear()
    a, b = StubEncoder("a"), StubEncoder("b")
    first, second = update_caches(dataset, [a, b], cache_dir=cache, batch_size=4)
    assert (a.batches, first.done, first.reused, first.written) == ([], 0, 10, False)
    assert (b.encoded, second.done, second.reused) == (list(range(10)), 10, 0)
    assert set(decoded.values()) == {1}
    after = (cache / "set" / "a.h5").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert content(read_cache(second.path)) == alone(dataset, "b", tmp_path)


def test_each_encoder_gets_only_missing_images(
    root: Path, cache: Path, tmp_path: Path, decoded: Counter[bytes]
) -> None:
    ids = write_images(root, 12)
    update_caches(make_dataset(root, ids[0:6]), [StubEncoder("a")], cache_dir=cache)
    update_caches(make_dataset(root, ids[3:9]), [StubEncoder("b")], cache_dir=cache)
    write_image(root / "i004.png", 44)
    touch(root / "i005.png")
    touch(root / "i007.png")
    decoded.clear()
    dataset = make_dataset(root, ids)
    a, b = StubEncoder("a"), StubEncoder("b")
    first, second = update_caches(dataset, [a, b], cache_dir=cache, batch_size=4)
    assert a.batches == [[44, 6, 7, 8], [9, 10, 11]]
    assert b.batches == [[0, 1, 2, 44], [9, 10, 11]]
    # i003 is in both caches; i005 was touched but not changed, so no encoder needs its pixels.
    assert sum(decoded.values()) == len(decoded) == 10
    assert (first.done, first.reused) == (7, 5)
    assert (second.done, second.reused) == (7, 5)
    assert content(read_cache(first.path)) == alone(dataset, "a", tmp_path)
    assert content(read_cache(second.path)) == alone(dataset, "b", tmp_path)


def test_interrupt_keeps_work_of_every_encoder(dataset: Dataset, cache: Path) -> None:
    def progress(finished: int, total: int) -> None:
        if finished == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_caches(
            dataset,
            [StubEncoder("a"), StubEncoder("b")],
            cache_dir=cache,
            batch_size=4,
            progress=progress,
        )
    a, b = StubEncoder("a"), StubEncoder("b")
    update_caches(dataset, [a, b], cache_dir=cache, batch_size=4)
    assert a.encoded == b.encoded == [8, 9]


def test_failure_is_recorded_for_every_encoder(dataset: Dataset, root: Path, cache: Path) -> None:
    (root / "i003.png").write_bytes(b"no image")
    first, second = update_caches(dataset, [StubEncoder("a"), StubEncoder("b")], cache_dir=cache)
    assert set(first.failed) == set(second.failed) == {"i003"}


def test_refused_encoder_prevents_others_from_starting(dataset: Dataset, cache: Path) -> None:
    update_caches(dataset, [StubEncoder("b", checkpoint="two")], cache_dir=cache)
    a = StubEncoder("a")
    with pytest.raises(CacheError, match="checkpoint: 'two' against 'one'"):
        update_caches(dataset, [a, StubEncoder("b")], cache_dir=cache)
    assert a.batches == []
    assert sorted(path.name for path in (cache / "set").glob("*.h5*")) == ["b.h5", "b.h5.lock"]
