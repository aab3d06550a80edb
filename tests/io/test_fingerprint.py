"""Canonical JSON, fingerprints and differences of documents."""

import hashlib
import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from featurecache.io.fingerprint import (
    canonical_json,
    fingerprint,
    first_difference,
    sha256_of_file,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, -0.0, 1.0, 0.5, 1e300])
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcü"), inner, max_size=3)
    ),
    max_leaves=8,
)
DESCRIPTIONS = st.dictionaries(st.sampled_from(["model", "mean", "size"]), JSON, max_size=3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [1, 2.5, None, True]}, '{"a":[1,2.5,null,true],"b":1}'),
        ({"mean": (0.5, 0.25)}, '{"mean":[0.5,0.25]}'),
        ({"z": {"y": 1, "x": 2}}, '{"z":{"x":2,"y":1}}'),
        ("Röntgen", '"Röntgen"'),
        ({}, "{}"),
    ],
)
def test_canonical_json_is_sorted_and_without_spaces(value: object, text: str) -> None:
    assert canonical_json(value) == text


@given(JSON)
def test_canonical_json_is_parsed_to_the_value(value: object) -> None:
    # repr tells 1 from 1.0 and from True, and -0.0 from 0.0; sorting undoes the order of keys.
    back = json.loads(canonical_json(value))
    assert repr(back) == repr(json.loads(json.dumps(value, sort_keys=True)))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_without_a_json_form_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"scale": [1.0, number]})


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", Path("weights.bin"), object()])
def test_values_without_a_json_form_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json({"weights": value})


def test_fingerprint_is_the_sha256_of_the_canonical_json() -> None:
    text = '{"model":"clip","size":[224,224],"title":"Röntgen"}'
    expected = hashlib.sha256(text.encode("utf-8")).hexdigest()
    description = {"title": "Röntgen", "size": (224, 224), "model": "clip"}
    assert fingerprint(description) == expected
    assert fingerprint(MappingProxyType(description)) == expected


@pytest.mark.parametrize(
    "other", [{"a": 2}, {"a": "1"}, {"a": 1.0}, {"a": True}, {"a": [1]}, {"b": 1}, {}]
)
def test_different_documents_have_different_fingerprints(other: dict[str, Any]) -> None:
    assert fingerprint(other) != fingerprint({"a": 1})


@pytest.mark.parametrize("size", [0, 1, 3_000_001])
def test_sha256_of_a_file(tmp_path: Path, size: int) -> None:
    content = (b"radiograph" * (size // 10 + 1))[:size]
    (tmp_path / "image.png").write_bytes(content)
    assert sha256_of_file(tmp_path / "image.png") == hashlib.sha256(content).hexdigest()


def test_sha256_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sha256_of_file(tmp_path / "image.png")


OLD = {"model": "clip", "preprocessing": {"size": 224, "mean": [0.5]}, "precision": "float16"}


@pytest.mark.parametrize(
    ("new", "difference"),
    [
        (OLD, None),
        ({**OLD, "model": "siglip"}, "model: 'clip' against 'siglip'"),
        (
            {**OLD, "preprocessing": {"size": 384, "mean": [0.5]}},
            "preprocessing.size: 224 against 384",
        ),
        (
            {**OLD, "preprocessing": {"size": 224, "mean": [0.4]}},
            "preprocessing.mean: [0.5] against [0.4]",
        ),
        (
            {**OLD, "preprocessing": None},
            "preprocessing: {'size': 224, 'mean': [0.5]} against None",
        ),
        ({**OLD, "pooling": "cls"}, "pooling: no value against 'cls'"),
        ({**OLD, "pooling": None}, "pooling: no value against None"),
        (
            {"model": "clip", "preprocessing": {"size": 224, "mean": [0.5]}},
            "precision: 'float16' against no value",
        ),
        ({**OLD, "precision": "x", "model": "y"}, "model: 'clip' against 'y'"),
    ],
)
def test_first_difference_names_the_field(new: dict[str, Any], difference: str | None) -> None:
    assert first_difference(OLD, new) == difference


def test_tuple_equals_list() -> None:
    assert first_difference({"mean": (0.5, 0.5)}, {"mean": [0.5, 0.5]}) is None


@pytest.mark.parametrize(("old", "new"), [(1, True), (1, 1.0), (0, None), (0.0, -0.0)])
def test_similar_values_of_other_types_differ(old: object, new: object) -> None:
    assert first_difference({"x": old}, {"x": new}) == f"x: {old!r} against {new!r}"


@given(DESCRIPTIONS, DESCRIPTIONS)
@example({"a": None}, {})
@example({"a": {}}, {"a": []})
def test_documents_differ_exactly_if_their_fingerprints_do(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    assert (first_difference(old, new) is None) == (fingerprint(old) == fingerprint(new))


@given(DESCRIPTIONS)
def test_document_equals_its_copy_in_a_file(description: dict[str, Any]) -> None:
    read_back = json.loads(canonical_json(description))
    assert first_difference(read_back, description) is None


@given(DESCRIPTIONS, DESCRIPTIONS)
def test_difference_is_symmetric(old: dict[str, Any], new: dict[str, Any]) -> None:
    there, back = first_difference(old, new), first_difference(new, old)
    # The field's name, or None and None.
    assert (there and there.partition(": ")[0]) == (back and back.partition(": ")[0])
