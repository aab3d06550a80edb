"""Test images of unusual shapes; no access to the hub."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path, request):
    """Make tests independent of the hub cache and the local models of the machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "no-home"))
    if "shared_models" not in request.fixturenames:
        monkeypatch.delenv("FEATURECACHE_MODELS", raising=False)


@pytest.fixture(scope="session")
def images() -> dict[str, Image.Image]:
    """Smooth and noisy images of unusual shapes, in the modes of decoded images, L and RGB."""
    rng = np.random.default_rng(5)

    def noise(*shape: int) -> np.ndarray:
        coarse = Image.fromarray(rng.integers(0, 256, (9, 7), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(shape[1::-1], Image.Resampling.BICUBIC), dtype=float)
        if len(shape) == 3:
            smooth = smooth[..., None]
        return np.clip(smooth + rng.normal(0, 25, shape), 0, 255).astype(np.uint8)

    palette = Image.fromarray(noise(260, 300, 3)).convert("P", palette=Image.Palette.ADAPTIVE)
    return {
        "tall": Image.fromarray(noise(613, 251)),
        "wide": Image.fromarray(noise(240, 701, 3)),
        "gray": Image.fromarray(noise(300, 300)),
        "small": Image.fromarray(noise(97, 130)),
        "rgba": Image.fromarray(noise(333, 275, 4), mode=None).convert("RGB"),
        "palette": palette.convert("RGB"),
    }
