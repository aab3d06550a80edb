"""The hand-written cache file that most tests of the store begin with."""

from pathlib import Path

import pytest

from tests.store import handwritten


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A sound file of format version 1 that the package did not write."""
    path = tmp_path / "nih" / "m.h5"
    path.parent.mkdir()
    handwritten.write_version_1(path)
    return path
