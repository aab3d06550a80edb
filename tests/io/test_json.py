"""JSON of strangers: what is no value of ours is refused, and the message says where."""

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


WHOLE = {"n": 1, "inner": {"a": {"share": 0.5}, "b": {"share": None}}, "bounds": [0, 1.5]}


def test_a_value_of_the_shape_comes_back_with_all_that_is_in_it() -> None:
    value = {**WHOLE, "newer": [1, 2]}
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
def test_another_shape_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        strict_json.validate({**WHOLE, **changed}, Document)
    assert "\n" not in str(caught.value)


def test_half_a_character_is_refused() -> None:
    for text in (r'["\ud800"]', r'{"\udfff": 1}', r'{"a": [{"b": "x\uD812y"}]}'):
        for given in (text, text.encode()):
            with pytest.raises(ValueError, match="half a character"):
                strict_json.parse(given)
    assert strict_json.parse(r'["\ud83d\ude00", "\\ud800"]') == ["😀", "\\ud800"]


def test_a_key_that_is_there_twice_is_named() -> None:
    with pytest.raises(ValueError, match="the key 'b' is there more than once"):
        strict_json.parse('{"a": 1, "b": 2, "b": 3}')
