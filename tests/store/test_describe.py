"""Lists and descriptions of caches: finished, unfinished and broken."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import h5py
import pytest

import featurecache as fc
from featurecache.errors import CacheError
from featurecache.store.describe import describe_cache, list_caches
from featurecache.store.layout import chunks_path
from featurecache.store.records import count_by_reason, format_counts
from tests.store import handwritten


def test_every_cache_below_a_folder_is_listed(cache_file: Path, tmp_path: Path) -> None:
    broken = cache_file.with_name("broken.h5")
    broken.write_bytes(b"nothing")
    started = tmp_path / "other" / "x.h5"
    chunks_path(started).mkdir(parents=True)
    (chunks_path(started) / "part-00000000.h5").write_bytes(b"12345")
    extended = cache_file.with_name("z.h5")
    handwritten.write_cache(extended)
    chunks_path(extended).mkdir()
    # None of these is a cache.
    cache_file.with_name("m.h5.lock").touch()
    cache_file.with_name(".m.h5.abc.tmp").touch()
    (tmp_path / "notes.txt").touch()

    entries = list_caches(tmp_path)
    assert [entry.path for entry in entries] == [broken, cache_file, extended, started]
    by_path = {entry.path: entry for entry in entries}
    found = by_path[cache_file]
    assert (found.images, found.dim, found.labels, found.failed) == (3, 4, 2, 1)
    assert (found.prompts, found.state) == (["signs"], "finished")
    assert found.bytes == cache_file.stat().st_size
    assert by_path[broken].images is None
    assert "cannot be read as HDF5" in by_path[broken].state
    assert by_path[broken].bytes == 7
    assert by_path[started].images is None
    assert by_path[started].state == "unfinished: extract again"
    assert by_path[started].bytes == 5
    assert by_path[extended].images == 3
    assert by_path[extended].state == "unfinished: extract again"


def test_empty_folder_has_no_caches(tmp_path: Path) -> None:
    assert list_caches(tmp_path) == []


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="there is no folder"):
        list_caches(tmp_path / "none")


def test_description_is_one_json_document(cache_file: Path) -> None:
    found = json.loads(json.dumps(describe_cache(cache_file)))
    assert found == {
        "path": str(cache_file),
        "dataset": "nih",
        "model": "hf:org/m",
        "fingerprint": hashlib.sha256(handwritten.SPEC.encode()).hexdigest(),
        "revision": None,
        "created": "2025-01-02T03:04:05+00:00",
        "features": None,
        "tokens": None,
        "collection": "nih",
        "ids": "not pseudonymized",
        "images": 3,
        "dim": 4,
        "memory": "24 B for the embeddings when read",
        "splits": {"test": 2, "train": 1},
        "patients": 2,
        "studies": None,
        "image_level_split": False,
        "exposed": False,
        "backend": None,
        "precision": "fp32",
        "bit_depth": None,
        "probe": None,
        "labels": {
            "Mass": {"positive": 1, "negative": 1, "uncertain": 1, "blank": 0},
            "Edema": {"positive": 1, "negative": 1, "uncertain": 1, "blank": 0},
        },
        "label_policy": asdict(fc.LabelPolicy()),
        "label_decisions": {"uncertain": "2 uncertain cells count as unknown (`uncertain` ignore)"},
        "prompts": {
            "signs": {
                "fingerprint": "f" * 64,
                "templates": ["signs of {pathology}", "{pathology}", "no {pathology}"],
                "aligned": True,
                "scale": 10.0,
                "bias": -2.0,
            }
        },
        "excluded": {"listed, but not on disk": 7, "the file is empty": 1},
        "listed": {"images": 4, "patients": 3},
        "failures": {"b/2": "the file is empty"},
        "notes": ["one", "zwölf"],
        "extraction": {},
        "imported": {},
        "spec": {"model": "m", "precision": "fp32", "size": [224, 224]},
    }


def test_description_reads_no_embeddings(cache_file: Path) -> None:
    with h5py.File(cache_file) as file:
        offset = file["images/embedding"].id.get_offset()
    data = bytearray(cache_file.read_bytes())
    data[offset : offset + 24] = b"\xff" * 24  # NaN in every value
    cache_file.write_bytes(data)
    assert describe_cache(cache_file)["images"] == 3


@pytest.mark.parametrize("state", ["broken", "unfinished"])
def test_unreadable_cache_is_not_described(cache_file: Path, state: str) -> None:
    if state == "broken":
        cache_file.write_bytes(b"nothing")
    else:
        cache_file.unlink()
        chunks_path(cache_file).mkdir()
    with pytest.raises(CacheError, match=r"extract again|extract one"):
        describe_cache(cache_file)


def test_failures_are_counted_without_their_details() -> None:
    failures = {
        "a": "damaged: broken PNG file",
        "b": "damaged: image file is truncated (3 bytes)",
        "c": "1,024 x 9 is too small: a side is under 16 pixels",
        "d": "12 x 2048 is too small: a side is under 16 pixels",
        "e": "damaged: no data",
    }
    counts = count_by_reason(failures)
    assert counts == {"damaged": 3, "N x N is too small": 2}
    assert format_counts(counts) == "5 (3 damaged; 2 N x N is too small)"
    assert format_counts({}) == "0"
