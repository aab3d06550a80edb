"""Stands for a full disk: files may grow so long and no longer."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """Files that this process writes may have so many bytes; skips where no system says so."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
