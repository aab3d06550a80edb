"""Parse and validate JSON from untrusted sources."""

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

MAX_DEPTH: Final = 64
"""Nested lists and objects; ours are nested at most seven deep."""
_MAX_DIGITS: Final = 20
"""Characters of an integer: 64 bits and a sign."""
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def parse(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: The text is not JSON, contains NaN, infinity, a number out of range or an
            unpaired surrogate, has duplicate keys, or is nested too deep.
    """
    try:
        value = json.loads(
            text,
            parse_constant=_reject_constant,
            parse_float=_finite_float,
            parse_int=_bounded_int,
            object_pairs_hook=_unique_keys,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    characters = text if isinstance(text, str) else text.decode("utf-8", "replace")
    # Long lists have many items to look at, but few brackets.
    if characters.count("[") + characters.count("{") > MAX_DEPTH:
        _check_depth([value], MAX_DEPTH + 1)
    if _SURROGATE.search(characters):
        _reject_lone_surrogates(value)
    return value


def validate(value: Any, shape: Any) -> Any:
    """Return a parsed JSON value after checking that it has a shape.

    Args:
        value: The value.
        shape: A type, such as a ``TypedDict``.

    Raises:
        ValueError: It has another shape; the message names the place.
    """
    from pydantic import ValidationError

    try:
        _type_adapter(shape).validate_python(value, strict=True)
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
def _type_adapter(shape: Any) -> "TypeAdapter[Any]":
    """Return the validator of a shape, which takes longer to build than to use."""
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


def read(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        ValueError: See ``parse`` and ``read_text``.
        OSError: See ``read_text``.
    """
    return parse(read_text(path))


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed in JSON")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} exceeds the range of a float")
    return number


def _bounded_int(text: str) -> int:
    # Python's integers are unbounded, and converting a huge one to float fails.
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"{text[:40]} has more than {_MAX_DIGITS} digits")
    return int(text)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {max(keys, key=keys.count)!r} occurs more than once")
    return unique


def _check_depth(value: Any, levels: int) -> None:
    if levels == 0:
        raise ValueError("it is nested too deep")
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (list, dict)):
            _check_depth(item, levels - 1)


def _reject_lone_surrogates(value: Any) -> None:
    """Reject text that is not valid Unicode, and that no file or page could hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("it contains an unpaired surrogate") from error
