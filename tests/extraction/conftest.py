"""A data set of tiny images."""

from pathlib import Path

import pytest

from featurecache.datasets.dataset import Dataset
from tests.extraction import stub_encoder
from tests.extraction.stub_encoder import make_dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def dataset(root: Path) -> Dataset:
    """Ten images, ``i000`` to ``i009``, whose numbers are 0 to 9."""
    return make_dataset(root, stub_encoder.write_images(root, 10))


@pytest.fixture
def stub_path(cache: Path) -> Path:
    """Where the cache of the data set and the encoder "stub" lies."""
    return cache / "set" / "stub.h5"
