"""Every change of a written file is reported, and never copied into another cache."""

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
from featurecache.store.verify import verify_cache
from tests.faults.bytes import FAULTS, ROWS, write_example


@pytest.fixture
def cache_path(tmp_path: Path) -> Path:
    path = tmp_path / "m.h5"
    write_example(path)
    return path


def change(path: Path, dataset: str, row: int) -> None:
    with h5py.File(path) as file:
        node = file[dataset]
        offset = node.id.get_offset() + row * (node.nbytes // len(node))
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_checksums_follow_the_published_format(cache_path: Path) -> None:
    with h5py.File(cache_path) as file:
        group = file["checksums"]
        paths, counts = group["object"].asstr()[()].tolist(), group["blocks"][()].tolist()
        sums, headers = group["crc32"][()].tolist(), group["header"][()].tolist()
        names: list[str] = ["/"]
        file.visit(lambda name: names.append(f"/{name}"))
        assert sorted(paths) == sorted(n for n in names if not n.startswith("/checksums"))
        for path, count, header in zip(paths, counts, headers, strict=True):
            found = file[path]
            attributes = {
                name: value.decode() if isinstance(value, bytes) else np.asarray(value).item()
                for name, value in found.attrs.items()
            }
            expected: dict[str, object] = {"attributes": attributes}
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


def test_flipped_bit_in_the_embeddings_is_reported(cache_path: Path) -> None:
    assert verify_cache(cache_path) == []
    change(cache_path, "images/embedding", 600)
    change(cache_path, "images/embedding", ROWS - 1)
    assert verify_cache(cache_path) == [
        f"rows 512 to {ROWS - 1} of /images/embedding do not match their checksum"
    ]
    cache = read_cache(cache_path)
    assert len(cache.read_rows(0, 512)) == 512
    with pytest.raises(CacheError, match=r"rows 512 to 1023 of /images/embedding"):
        cache.read_rows(1000, 1001)


@pytest.mark.parametrize("dataset", ["images/patient", "labels/values", "text/signs/ensemble"])
def test_flipped_bit_elsewhere_is_refused_on_opening(cache_path: Path, dataset: str) -> None:
    change(cache_path, dataset, 0)
    assert verify_cache(cache_path)[0].startswith("rows 0 to ")
    with pytest.raises(CacheError, match=f"rows 0 to .*/{dataset} do not match their checksum"):
        read_cache(cache_path)


def test_changed_attribute_is_reported(cache_path: Path) -> None:
    with h5py.File(cache_path, "r+") as file:
        file["text/signs"].attrs["scale"] = 11.0
    assert verify_cache(cache_path) == [
        "an attribute, the type or the shape of /text/signs does not match its checksum"
    ]


def test_removed_and_added_datasets_are_reported(cache_path: Path) -> None:
    with h5py.File(cache_path, "r+") as file:
        del file["images/age"]
        file["images/weight"] = np.zeros(ROWS)
    assert verify_cache(cache_path) == ["/images/age is missing", "/images/weight has no checksum"]


def test_corrupt_rows_are_not_merged(tmp_path: Path, cache_path: Path) -> None:
    other, out = tmp_path / "other.h5", tmp_path / "out.h5"
    write_example(other, prefix="scan")
    assert merge_caches([cache_path, other], out) == (out, 2 * ROWS)
    assert verify_cache(out) == []
    out.unlink()
    change(other, "images/embedding", 5)
    with pytest.raises(CacheError, match=r"other.h5 is damaged: rows 0 to .* of /images/embedding"):
        merge_caches([cache_path, other], out)
    assert not out.exists()


def test_running_checksums_do_not_depend_on_the_batches() -> None:
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
    assert FAULTS[fault](seed, tmp_path) in ("found", "refused", "no effect")
