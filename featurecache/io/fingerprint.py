"""Fingerprints: hashes of JSON documents and files."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:
    """Return the canonical JSON text of a value: sorted keys, no spaces, no NaN.

    Raises:
        TypeError: The value cannot be represented as JSON.
        ValueError: A number is NaN or infinite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def fingerprint(document: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of a document's canonical JSON."""
    return hashlib.sha256(canonical_json(dict(document)).encode()).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256, in hex, of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_difference(old: Any, new: Any, path: str = "") -> str | None:
    """Return the first difference of two documents as ``field: old against new``, or None.

    Documents are equal if their canonical JSON is, so exactly if their fingerprints are: a tuple
    equals a list, and a missing field differs from one that is None.

    Args:
        old: A JSON value.
        new: Another.
        path: Field in which both are, for the result.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            field = f"{path}.{key}" if path else str(key)
            if key not in new:
                return f"{field}: {old[key]!r} against no value"
            if key not in old:
                return f"{field}: no value against {new[key]!r}"
            if difference := first_difference(old[key], new[key], field):
                return difference
        return None
    either_is_mapping = isinstance(old, Mapping) or isinstance(new, Mapping)
    if not either_is_mapping and canonical_json(old) == canonical_json(new):
        return None
    return f"{path}: {old!r} against {new!r}"
