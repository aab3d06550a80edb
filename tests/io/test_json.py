"""Untrusted JSON: values of another shape are refused, and the message names the place."""

from typing import Annotated, NotRequired

import pytest
from annotated_types import Le, Len
from typing_extensions import TypedDict

from featurecache.io import json as strict_json


class Inner(TypedDict):
    share: Annotated[float, Le(1)] | None


class Document(TypedDict):
    n: int
    inner: dict[str, Inner]
    bounds: Annotated[list[float], Len(2, 2)]
    more: NotRequired[str]


VALID = {"n": 1, "inner": {"a": {"share": 0.5}, "b": {"share": None}}, "bounds": [0, 1.5]}


def test_value_of_the_shape_is_returned_unchanged() -> None:
    value = {**VALID, "newer": [1, 2]}
    assert strict_json.validate(value, Document) is value


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": "1"}, "^n: "),
        ({"n": True}, "^n: "),
        ({"n": 1.0}, "^n: "),
        ({"n": None}, "^n: "),
        ({"inner": {"a": {}}}, r"^inner\.a\.share: "),
        ({"inner": {"a": {"share": 1.5}}}, r"^inner\.a\.share: "),
        ({"inner": []}, "^inner: "),
        ({"bounds": [1]}, "^bounds: "),
        ({"bounds": [1, "2"]}, r"^bounds\.1: "),
        ({"more": 1}, "^more: "),
    ],
)
def test_other_shapes_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        strict_json.validate({**VALID, **changed}, Document)
    assert "\n" not in str(caught.value)


def test_unpaired_surrogates_are_refused() -> None:
    for text in (r'["\ud800"]', r'{"\udfff": 1}', r'{"a": [{"b": "x\uD812y"}]}'):
        for given in (text, text.encode()):
            with pytest.raises(ValueError, match="unpaired surrogate"):
                strict_json.parse(given)
    assert strict_json.parse(r'["\ud83d\ude00", "\\ud800"]') == ["😀", "\\ud800"]


def test_duplicate_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="the key 'b' occurs more than once"):
        strict_json.parse('{"a": 1, "b": 2, "b": 3}')


def test_nesting_is_limited() -> None:
    depth = strict_json.MAX_DEPTH
    assert strict_json.parse("[" * depth + "]" * depth)
    assert strict_json.parse('{"a":' * depth + "1" + "}" * depth)
    for levels in (depth + 1, 100_000):
        with pytest.raises(ValueError, match="nested too deep"):
            strict_json.parse("[" * levels + "]" * levels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NaN", "NaN is not allowed"),
        ("-Infinity", "-Infinity is not allowed"),
        ("1e999", "exceeds the range"),
        ("9" * 21, "more than 20 digits"),
        ("{", "Expecting"),
    ],
)
def test_invalid_numbers_and_syntax_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strict_json.parse(text)
