"""Compare the specs of encoders, which say what embeddings were made with."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from featurecache.io.fingerprint import first_difference

DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {"resize": "published", "features": "default", "views": 1}
)
"""Choices of a user that a spec holds only where they are not these."""


def spec_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Return the first difference of two specs as ``field: old against new``, or None.

    Choices of a user come first, because other fields differ with them.
    """
    for name, default in DEFAULTS.items():
        values = old.get(name, default), new.get(name, default)
        if values[0] != values[1]:
            return f"{name}: {values[0]!r} against {values[1]!r}"
    return first_difference(old, new)
