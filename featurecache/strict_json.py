"""JSON from a file that a stranger may have written."""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

MAX_BYTES = 2**28
"""Of a document: the ids of some million images."""
_DIGITS = 20
"""Of a whole number at most: those of 64 bits, with a sign."""
MAX_DEPTH = 64
"""Lists and objects in one another; ours are at most seven."""


def parse(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, holds NaN or infinity, names a key twice, or is nested too deep.
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
    return value


def read(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: as for ``parse``; or the file is too large, or no UTF-8.
        OSError: it is not there, no regular file, or cannot be read.
    """
    # A pipe or a device would give bytes without end, or never any.
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no regular file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{size} bytes are more than any document of featurecache has")
    return parse(path.read_text(encoding="utf-8"))


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
        raise ValueError("an object names a key twice")
    return found


def _depth(value: Any) -> int:
    """Levels of lists and objects, counted no further than one too many."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        inner = [one for one in level if isinstance(one, (list, dict))]
        depth += bool(inner)
        level = [item for one in inner for item in (one.values() if isinstance(one, dict) else one)]
    return depth
