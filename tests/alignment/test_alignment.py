"""The alignment file: round trip, and errors for damaged, modified and foreign files."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from featurecache.alignment.alignment import Alignment, as_alignment
from featurecache.errors import AlignmentError, UsageError
from featurecache.provenance.records import ImageRecords

ALIGNMENT = Alignment(
    # A transposed view, as a solver may return it.
    weight=np.arange(12, dtype=np.float32).reshape(4, 3).T,
    offset=np.array([0.5, -1, 2, 0], dtype=np.float32),
    scale=12.5,
    bias=-3.0,
    spec={"method": "ridge", "image_encoder": {"weights": ["ab"]}, "name": "Lungenödem"},
    trained_on={
        "nih": ImageRecords.of("nih", ["a.png", "b.png"]),
        "other": ImageRecords.of("other", []),
    },
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.signs-ridge.alignment.safetensors"
    assert ALIGNMENT.save(path) == path
    return path


def rewritten(path: Path, *, metadata=None, **tensors) -> Path:
    """The same file with metadata or tensors replaced; None removes a tensor."""
    with safe_open(path, framework="numpy") as file:
        old = file.metadata()
    every = {**load_file(path), **tensors}
    save_file(
        {name: tensor for name, tensor in every.items() if tensor is not None},
        path,
        metadata={**old, **(metadata or {})},
    )
    return path


def test_same_alignment_makes_the_same_bytes_and_may_be_saved_again(path):
    content = path.read_bytes()
    for _ in range(4):  # safetensors writes its metadata in a random order
        other = path.with_name("again")
        ALIGNMENT.save(other)
        assert other.read_bytes() == content
        other.unlink()
    assert ALIGNMENT.save(path) == path


def test_alignment_is_read_as_it_was_saved(path):
    loaded = Alignment.load(str(path))
    np.testing.assert_array_equal(loaded.weight, ALIGNMENT.weight)
    np.testing.assert_array_equal(loaded.offset, ALIGNMENT.offset)
    assert (loaded.scale, loaded.bias) == (12.5, -3.0)
    assert loaded.spec == ALIGNMENT.spec
    assert loaded.trained_on == ALIGNMENT.trained_on
    assert loaded.fingerprint == ALIGNMENT.fingerprint
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "change",
    [
        {"weight": ALIGNMENT.weight + 1},
        {"offset": ALIGNMENT.offset + 1},
        {"scale": 12.6},
        {"bias": 0.0},
        {"spec": {**ALIGNMENT.spec, "method": "contrastive"}},
        {"trained_on": {"nih": ImageRecords.of("nih", ["a.png"])}},
    ],
)
def test_fingerprint_covers_the_whole_content(change):
    assert replace(ALIGNMENT, **change).fingerprint != ALIGNMENT.fingerprint


def test_existing_file_is_not_overwritten(path):
    before = path.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        replace(ALIGNMENT, scale=1.0).save(path)
    assert path.read_bytes() == before


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(AlignmentError, match=r"there is no alignment file at .*none"):
        Alignment.load(tmp_path / "none")


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(AlignmentError, match="cannot be read as safetensors"):
        Alignment.load(path)


def test_pickle_is_not_executed(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(AlignmentError, match="cannot be read as safetensors"):
        Alignment.load(path)
    assert not (tmp_path / "sprung").exists()


def test_other_safetensors_file_is_refused(path):
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(AlignmentError, match="not an alignment"):
        Alignment.load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"version": "2"}, "reads only 1: upgrade"),
        ({"version": "-1"}, "reads only 1"),
        ({"version": "²"}, "reads only 1"),
        ({"spec": "{"}, "is damaged"),
        ({"spec": "3"}, "is damaged"),
        ({"spec": json.dumps({"method": "ridge"})}, "was modified"),
        ({"trained_on": "{}"}, "was modified"),
        ({"trained_on": "[]"}, "is damaged"),
        ({"fingerprint": "00"}, "was modified"),
    ],
)
def test_wrong_metadata_is_refused(path, metadata, message):
    with pytest.raises(AlignmentError, match=message):
        Alignment.load(rewritten(path, metadata=metadata))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": None}, "weight"),
        ({"weight": np.zeros((4, 3), dtype=np.float32)}, "do not match"),
        ({"offset": np.zeros(4)}, "should be float32"),
        ({"offset": np.full(4, np.nan, dtype=np.float32)}, "values that are not finite"),
        ({"scale": np.ones(2, dtype=np.float32)}, "do not match"),
        ({"bias": np.ones(1, dtype=np.float32)}, "was modified"),
    ],
)
def test_wrong_tensors_are_refused(path, tensors, message):
    with pytest.raises(AlignmentError, match=message):
        Alignment.load(rewritten(path, **tensors))


def test_flipped_bit_is_detected(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(AlignmentError, match="was modified"):
        Alignment.load(path)


def test_alignment_is_saved_next_to_its_cache_by_default(tmp_path):
    default = tmp_path / "model.signs-ridge.alignment.safetensors"
    assert replace(ALIGNMENT, path=default).save() == default
    with pytest.raises(UsageError, match="give `path`"):
        ALIGNMENT.save()


def test_paths_are_accepted_where_alignments_are(path):
    assert as_alignment(None) is None
    assert as_alignment(ALIGNMENT) is ALIGNMENT
    loaded = as_alignment(str(path))
    assert loaded is not None
    assert loaded.fingerprint == ALIGNMENT.fingerprint


def test_repr_names_method_and_dimensions():
    assert repr(ALIGNMENT) == "Alignment(ridge, None on None, 3 to 4 values)"
