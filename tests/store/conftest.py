"""The handwritten cache file that most tests of the store start from."""

from pathlib import Path

import pytest

from tests.store import handwritten


@pytest.fixture(scope="session")
def cache_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("handwritten") / "m.h5"
    handwritten.write_cache(path)
    return path.read_bytes()


@pytest.fixture
def cache_file(tmp_path: Path, cache_bytes: bytes) -> Path:
    """A sound cache file that featurecache did not write."""
    path = tmp_path / "nih" / "m.h5"
    path.parent.mkdir()
    path.write_bytes(cache_bytes)
    return path
