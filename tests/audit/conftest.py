from pathlib import Path

import pytest

from featurecache.datasets.phantom.folder import generate_phantom


@pytest.fixture(scope="session", params=[0, 1, 2], ids=lambda seed: f"seed {seed}")
def phantom(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty generated images of patients with up to five each."""
    root = tmp_path_factory.mktemp("phantom") / "phantom"
    generate_phantom(root, n_images=60, seed=request.param)
    return root
