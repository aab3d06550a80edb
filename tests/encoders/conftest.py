"""Images of odd shapes, tiny checkpoints, and no hub."""

from pathlib import Path

import numpy as np
import published
import pytest
import torch
from PIL import Image


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    # Two threads on a busy machine spend their time waiting for each other.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path, request):
    """No test depends on what the machine's hub cache or local models hold."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "no-home"))
    if "shared_models" not in request.fixturenames:
        monkeypatch.delenv("FEATURECACHE_MODELS", raising=False)


@pytest.fixture(scope="session")
def images() -> dict[str, Image.Image]:
    """Smooth and noisy pictures of odd shapes, in the modes that decoding leaves: L and RGB."""
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
        "grey": Image.fromarray(noise(300, 300)),
        "small": Image.fromarray(noise(97, 130)),
        "rgba": Image.fromarray(noise(333, 275, 4), mode=None).convert("RGB"),
        "palette": palette.convert("RGB"),
    }


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "tiny-clip"
    published.write_clip(folder, published.tiny_clip_config(), seed=1)
    return folder


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory) -> Path:
    """A folder of local models with a vision and a text encoder under their hub names."""
    root = tmp_path_factory.mktemp("models")
    published.write_dinov2(root / "dinov2-small", seed=2)
    published.write_bert(root / "all-MiniLM-L6-v2", seed=3)
    return root
