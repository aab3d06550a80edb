"""A change of anything that was written is named, and never copied on."""

import json
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurecache.errors import CacheError
from featurecache.store.checksums import RunningSums
from featurecache.store.merge import merge_caches
from featurecache.store.reader import read_cache
from featurecache.store.verify import has_checksums, verify_cache
from tests.faults.bytes import FAULTS, ROWS, write_example


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "m.h5"
    write_example(path)
    return path


def change(path: Path, dataset: str, row: int) -> None:
    with h5py.File(path) as file:
        found = file[dataset]
        offset = found.id.get_offset() + row * (found.nbytes // len(found))
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_the_sums_are_those_that_the_format_describes(made: Path) -> None:
    assert has_checksums(made)
    with h5py.File(made) as file:
        group = file["checksums"]
        paths, counts = group["object"].asstr()[()].tolist(), group["blocks"][()].tolist()
        sums, headers = group["crc32"][()].tolist(), group["header"][()].tolist()
        names: list[str] = ["/"]
        file.visit(lambda name: names.append(f"/{name}"))
        assert sorted(paths) == sorted(n for n in names if not n.startswith("/checksums"))
        for path, count, header in zip(paths, counts, headers, strict=True):
            found = file[path]
            said = {
                name: value.decode() if isinstance(value, bytes) else np.asarray(value).item()
                for name, value in found.attrs.items()
            }
            expected: dict[str, object] = {"attributes": said}
            if isinstance(found, h5py.Dataset):
                blocks = [found[start : start + 512] for start in range(0, len(found), 512)]
                assert sums[:count] == [zlib.crc32(block.tobytes()) for block in blocks]
                sums = sums[count:]
                expected |= {"shape": list(found.shape), "type": found.dtype.str}
            else:
                assert count == 0
            text = json.dumps(expected, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            assert header == zlib.crc32(text.encode()), path
        assert sums == []


def test_a_flipped_bit_in_the_embedding_is_named_by_verify_and_by_who_reads_it(made: Path) -> None:
    assert verify_cache(made) == []
    change(made, "images/embedding", 600)
    change(made, "images/embedding", ROWS - 1)
    assert verify_cache(made) == [
        f"rows 512 to {ROWS - 1} of /images/embedding are not what was written"
    ]
    cache = read_cache(made)
    assert len(cache.read_rows(0, 512)) == 512
    with pytest.raises(CacheError, match=r"rows 512 to 1023 of /images/embedding"):
        cache.read_rows(1000, 1001)


@pytest.mark.parametrize("dataset", ["images/patient", "labels/values", "text/signs/ensemble"])
def test_what_is_read_into_memory_is_refused_where_it_was_changed(made: Path, dataset: str) -> None:
    change(made, dataset, 0)
    assert verify_cache(made)[0].startswith("rows 0 to ")
    with pytest.raises(CacheError, match=f"rows 0 to .*/{dataset} are not what was written"):
        read_cache(made)


def test_a_changed_attribute_is_found(made: Path) -> None:
    with h5py.File(made, "r+") as file:
        file["text/signs"].attrs["scale"] = 11.0
    assert verify_cache(made) == [
        "an attribute, the type or the shape of /text/signs is not what was written"
    ]


def test_what_is_not_there_or_was_not_there_is_found(made: Path) -> None:
    with h5py.File(made, "r+") as file:
        del file["images/age"]
        file["images/weight"] = np.zeros(ROWS)
    assert verify_cache(made) == ["/images/age is missing", "/images/weight has no checksum"]


def test_damaged_rows_are_not_merged(tmp_path: Path, made: Path) -> None:
    other, out = tmp_path / "other.h5", tmp_path / "out.h5"
    write_example(other, prefix="scan")
    assert merge_caches([made, other], out) == (out, 2 * ROWS)
    assert verify_cache(out) == []
    out.unlink()
    change(other, "images/embedding", 5)
    with pytest.raises(CacheError, match=r"other.h5: rows 0 to .* of /images/embedding"):
        merge_caches([made, other], out)
    assert not out.exists()


def test_rows_that_come_one_by_one_have_the_same_sums() -> None:
    rows = np.arange(1300, dtype=np.int64)
    running = RunningSums()
    for start in range(0, 1300, 7):
        running.add(rows[start : start + 7])
    expected = [zlib.crc32(rows[start : start + 512].tobytes()) for start in (0, 512, 1024)]
    assert running.sums().tolist() == expected
    assert RunningSums().sums().tolist() == []


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", range(4))
def test_damage_anywhere_is_found_or_of_no_account(tmp_path: Path, fault: str, seed: int) -> None:
    assert FAULTS[fault](seed, tmp_path) in ("found", "refused", "of no account")
