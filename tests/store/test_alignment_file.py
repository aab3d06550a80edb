"""The alignment file: read back as written, and refused when anything is wrong with it."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from featurecache.alignment.alignment import Alignment, read_alignment, write_alignment
from featurecache.errors import AlignmentError, UsageError

ALIGNMENT = Alignment(
    # As a solver may leave it: the transpose of what lies in memory.
    weight=np.arange(12, dtype=np.float32).reshape(4, 3).T,
    offset=np.array([0.5, -1, 2, 0], dtype=np.float32),
    scale=12.5,
    bias=-3.0,
    spec={"method": "ridge", "image_encoder": {"weights": ["ab"]}, "name": "Lungenödem"},
    trained_on={"nih": frozenset({"b.png", "a.png"}), "other": frozenset()},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.signs-ridge.alignment.safetensors"
    write_alignment(path, ALIGNMENT)
    return path


def rewritten(path: Path, *, metadata=None, **tensors) -> Path:
    """The same file with something replaced; None takes it out."""
    with safe_open(path, framework="numpy") as file:
        old = file.metadata()
    every = {**load_file(path), **tensors}
    save_file(
        {name: tensor for name, tensor in every.items() if tensor is not None},
        path,
        metadata={**old, **(metadata or {})},
    )
    return path


def test_it_is_read_as_it_was_written(path):
    found = read_alignment(path)
    np.testing.assert_array_equal(found.weight, ALIGNMENT.weight)
    np.testing.assert_array_equal(found.offset, ALIGNMENT.offset)
    assert (found.scale, found.bias) == (12.5, -3.0)
    assert found.spec == ALIGNMENT.spec
    assert found.trained_on == ALIGNMENT.trained_on
    assert found.fingerprint == ALIGNMENT.fingerprint
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "change",
    [
        {"weight": ALIGNMENT.weight + 1},
        {"offset": ALIGNMENT.offset + 1},
        {"scale": 12.6},
        {"bias": 0.0},
        {"spec": {**ALIGNMENT.spec, "method": "contrastive"}},
        {"trained_on": {"nih": frozenset({"a.png"})}},
    ],
)
def test_the_fingerprint_is_of_all_that_it_holds(change):
    assert replace(ALIGNMENT, **change).fingerprint != ALIGNMENT.fingerprint


def test_another_file_is_not_written_over(path):
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is there already: give another --out"):
        write_alignment(path, ALIGNMENT)
    assert path.read_bytes() == before


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AlignmentError, match=r"no alignment at .*featurecache align"):
        read_alignment(tmp_path / "none")


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_truncated_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(AlignmentError, match="cannot be read as safetensors"):
        read_alignment(path)


def test_a_pickle_is_not_loaded(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(AlignmentError, match="cannot be read as safetensors"):
        read_alignment(path)
    assert not (tmp_path / "sprung").exists()


def test_safetensors_of_another_kind_are_refused(path):
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(AlignmentError, match="no alignment"):
        read_alignment(path)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"version": "2"}, "reads up to 1: upgrade"),
        ({"version": "-1"}, "no valid format version"),
        ({"version": "²"}, "no valid format version"),
        ({"spec": "{"}, "is damaged"),
        ({"spec": "3"}, "is damaged"),
        ({"spec": json.dumps({"method": "ridge"})}, "the file was altered"),
        ({"trained_on": "{}"}, "the file was altered"),
        ({"trained_on": "[]"}, "is damaged"),
        ({"fingerprint": "00"}, "the file was altered"),
    ],
)
def test_wrong_metadata_is_refused(path, metadata, said):
    with pytest.raises(AlignmentError, match=said):
        read_alignment(rewritten(path, metadata=metadata))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"weight": None}, "weight"),
        ({"weight": np.zeros((4, 3), dtype=np.float32)}, "do not fit each other"),
        ({"offset": np.zeros(4)}, "expected float32"),
        ({"offset": np.full(4, np.nan, dtype=np.float32)}, "not finite"),
        ({"scale": np.ones(2, dtype=np.float32)}, "do not fit each other"),
        ({"bias": np.ones(1, dtype=np.float32)}, "the file was altered"),
    ],
)
def test_wrong_tensors_are_refused(path, tensors, said):
    with pytest.raises(AlignmentError, match=said):
        read_alignment(rewritten(path, **tensors))


def test_a_flipped_bit_is_noticed(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(AlignmentError, match="the file was altered"):
        read_alignment(path)
