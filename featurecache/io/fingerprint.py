"""Fingerprints: one hash for everything that decides an embedding."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN.

    Raises:
        TypeError: a part of the value has no JSON form.
        ValueError: a number is NaN or infinite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def fingerprint(description: Mapping[str, Any]) -> str:
    """The sha256, in hex, of a description's canonical JSON."""
    return hashlib.sha256(canonical_json(dict(description)).encode()).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The sha256, in hex, of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_difference(old: Any, new: Any, path: str = "") -> str | None:
    """Where two descriptions part, as ``field: old against new``; None when they are equal.

    Equal means the same canonical JSON, so that two descriptions differ exactly when their
    fingerprints do: a tuple equals a list, and a field that is missing is not one that is None.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            inner = f"{path}.{key}" if path else str(key)
            if key not in new:
                return f"{inner}: {old[key]!r} against nothing"
            if key not in old:
                return f"{inner}: nothing against {new[key]!r}"
            if found := first_difference(old[key], new[key], inner):
                return found
        return None
    mappings = isinstance(old, Mapping) or isinstance(new, Mapping)
    if not mappings and canonical_json(old) == canonical_json(new):
        return None
    return f"{path}: {old!r} against {new!r}"
