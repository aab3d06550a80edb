"""A full disk is detected before HDF5, which would abort the process, writes to it."""

import errno
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurecache.provenance.records import ImageRecords
from featurecache.store.hdf5 import sealed_file
from featurecache.store.preallocate import upper_bound
from featurecache.store.reader import read_cache
from featurecache.store.records import ImageTable, Labels, TextEmbeddings, to_utf8
from featurecache.store.verify import verify_cache
from featurecache.store.writer import write_cache
from tests.longest_file import longest_file
from tests.store.test_builder import HEADER, TEXT, build, rows


def write(path: Path, images: int, *, width: int = 8, dim: int = 32) -> None:
    """Write a cache with every kind of content and strings of this width."""
    ids = to_utf8([f"{number:0{width}d}" for number in range(images)])
    numbers = np.arange(images)
    strings = dict.fromkeys(
        ("id", "sha256", "patient", "study", "split", "view", "sex", "age", "path"), ids
    )
    prompts = (("ä" * width, *["no"] * 9),) * 20
    unit = np.full((20, 10, dim), dim**-0.5, "f4")
    texts = TextEmbeddings(prompts, unit, unit[:, 0])
    labels = tuple(f"label {number}" for number in range(20))
    embedding = np.ones((images, dim), np.float16)
    write_cache(
        path,
        header=replace(
            HEADER, trained_on={"nih": ImageRecords.of("nih", list(map(str, range(images))))}
        ),
        images=ImageTable(
            **strings,
            perceptual_hash=np.zeros((images, 32), np.uint8),
            size=numbers,
            mtime_ns=numbers,
        ),
        dim=dim,
        embedding=lambda start, stop: embedding[start:stop],
        labels=Labels(labels, np.zeros((images, 20), np.int8)),
        texts={
            name: replace(TEXT, name=name, labels=labels, positive=texts, negative=texts)
            for name in ("signs", "lungs")
        },
        failures={"x": "y" * width, **{f"x{number}": "short" for number in range(images)}},
    )


@pytest.mark.parametrize(("images", "width"), [(1, 1), (3000, 8), (3000, 600), (1, 60_000)])
def test_reserved_space_suffices_and_surplus_is_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, width: int
) -> None:
    reserved: list[int] = []

    def record(content: object) -> int:
        reserved.append(upper_bound(content))
        return reserved[-1]

    monkeypatch.setattr("featurecache.store.hdf5.upper_bound", record)
    write(tmp_path / "cache.h5", images, width=width)
    size = (tmp_path / "cache.h5").stat().st_size
    assert size <= reserved[0] <= 1.5 * size + 400_000
    assert verify_cache(tmp_path / "cache.h5") == []
    assert len(read_cache(tmp_path / "cache.h5").ids) == images
    # Nothing of what was not needed lies behind the end.
    with h5py.File(tmp_path / "cache.h5") as file:
        assert file.id.get_filesize() == size


@pytest.mark.parametrize("size", [0, 1, 2000, 70_000, 300_000, 500_000])
def test_full_disk_is_an_error_that_names_the_file(tmp_path: Path, size: int) -> None:
    write(tmp_path / "cache.h5", 3)
    before = (tmp_path / "cache.h5").read_bytes()
    builder = build(tmp_path / "begun.h5")
    builder.add(rows(["i1", "i2", "i3"], dim=100_000))
    for what, name in (
        (lambda: write(tmp_path / "cache.h5", 3000), "cache.h5"),
        (builder.flush, "part-00000000.h5"),
    ):
        with longest_file(size), pytest.raises(OSError, match=name) as caught:
            what()
        assert caught.value.errno == errno.EFBIG
    assert (tmp_path / "cache.h5").read_bytes() == before
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")] == []
    builder.flush()
    assert len(build(tmp_path / "begun.h5").stored.present().nonzero()[0]) == 3


def test_file_systems_without_preallocation_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    with sealed_file(tmp_path / "one.h5") as file:
        file["x"] = np.arange(9)
    monkeypatch.delattr("os.posix_fallocate")
    with sealed_file(tmp_path / "two.h5") as file:
        file["x"] = np.arange(9)
    for name in ("one.h5", "two.h5"):
        with h5py.File(tmp_path / name) as file:
            assert file["x"][:].tolist() == list(range(9))
