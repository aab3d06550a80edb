"""JSON from a file that a stranger may have written."""

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from featurecache.io.text import read_text

if TYPE_CHECKING:
    from pydantic import BaseModel, TypeAdapter, ValidationError

Model = TypeVar("Model", bound="BaseModel")

_DIGITS = 20
"""Of a whole number at most: those of 64 bits, with a sign."""
MAX_DEPTH = 64
"""Lists and objects in one another; ours are at most seven."""
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_HALF: Final = re.compile("[\ud800-\udfff]")


def parse(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, holds NaN, infinity or half a character, names a key twice, or is
            nested too deep.
    """
    try:
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_each_key_once,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if _depth(value) > MAX_DEPTH:
        raise ValueError("it is nested too deep")
    if _SURROGATE.search(text if isinstance(text, str) else text.decode("utf-8", "replace")):
        _reject_lone_surrogates(value)
    return value


def validate(value: Any, shape: Any) -> Any:
    """The same value, which has this shape.

    Args:
        value: of a JSON text.
        shape: a type: a ``TypedDict``, for example.

    Raises:
        ValueError: it has another; the message says where.
    """
    from pydantic import ValidationError

    try:
        _validator(shape).validate_python(value, strict=True)
    except ValidationError as error:
        raise ValueError(_first_error(error)) from error
    return value


def validate_model(value: Any, model: "type[Model]") -> "Model":
    """Build a pydantic model from a JSON value.

    Args:
        value: The parsed JSON.
        model: The model class; it decides how strict the types are.

    Returns:
        The model.

    Raises:
        ValueError: The value does not fit the model; the message says where.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ValueError(_first_error(error)) from error


def _first_error(error: "ValidationError") -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where[:200]}: {first['msg']}"


@cache
def _validator(shape: Any) -> "TypeAdapter[Any]":
    """Made once for each shape, which takes longer than to hold a value against it."""
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


def read(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: as for ``parse``; or as for ``read_text``.
        OSError: as for ``read_text``.
    """
    return parse(read_text(path))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is beyond every float")
    return number


def _whole(text: str) -> int:
    # Python's integers have no end, and turning a long one into a float fails.
    if len(text) > _DIGITS:
        raise ValueError(f"{text[:40]} is beyond every count")
    return int(text)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {max(keys, key=keys.count)!r} is there more than once")
    return found


def _reject_lone_surrogates(value: Any) -> None:
    """A surrogate without its other half is no character, and no file and no page could hold it."""
    level = [value]
    while level:
        texts = [one for one in level if isinstance(one, str)]
        texts += [key for one in level if isinstance(one, dict) for key in one]
        if any(_HALF.search(text) for text in texts):
            raise ValueError("a text has half a character")
        level = _inside(level)


def _inside(level: list[Any]) -> list[Any]:
    """What the lists and objects among these values hold."""
    inner = [one for one in level if isinstance(one, (list, dict))]
    return [item for one in inner for item in (one.values() if isinstance(one, dict) else one)]


def _depth(value: Any) -> int:
    """Levels of lists and objects, counted no further than one too many."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        depth += any(isinstance(one, (list, dict)) for one in level)
        level = _inside(level)
    return depth
