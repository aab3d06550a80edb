from pathlib import Path

import pytest

from featurecache.datasets.phantom.folder import generate_phantom


def generate(folder: Path, seed: int) -> Path:
    root = folder / "phantom"
    generate_phantom(root, n_images=60, seed=seed)
    return root


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty generated images of patients with up to five each."""
    return generate(tmp_path_factory.mktemp("phantom"), 0)


@pytest.fixture(scope="session", params=[1, 2], ids=lambda seed: f"seed {seed}")
def any_phantom(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other such images."""
    return generate(tmp_path_factory.mktemp("phantom"), request.param)
