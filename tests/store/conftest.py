"""The handwritten cache file that most tests of the store start from."""

from pathlib import Path

import pytest

from tests.store import handwritten


@pytest.fixture
def cache_file(tmp_path: Path) -> Path:
    """A sound cache file that featurecache did not write."""
    path = tmp_path / "nih" / "m.h5"
    path.parent.mkdir()
    handwritten.write_cache(path)
    return path
