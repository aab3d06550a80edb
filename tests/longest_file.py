"""Simulate a full disk by limiting the size of files."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """Limit the size in bytes of files that this process writes; skip where that is impossible."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
