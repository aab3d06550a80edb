"""What every room's tests share: the real data and weights, where they are at hand."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real chest X-rays: $FEATURECACHE_DATA, else ../shared/data."""
    root = Path(os.environ.get("FEATURECACHE_DATA") or SHARED / "data")
    if not (root / "nih").is_dir():
        pytest.skip(f"no real chest X-rays at {root}: set FEATURECACHE_DATA to run this test")
    return root


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of real pretrained weights: $FEATURECACHE_MODELS."""
    root = os.environ.get("FEATURECACHE_MODELS")
    if not root or not (Path(root) / "dinov2-small").is_dir():
        pytest.skip("no real weights: set FEATURECACHE_MODELS to a folder with dinov2-small")
    return Path(root)
