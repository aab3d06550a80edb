"""Test images of unusual shapes; no access to the hub."""

import numpy as np
import pytest
from PIL import Image

from tests import published


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


def write_tiny_siglip(folder):
    from transformers import SiglipConfig

    tower = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
    }
    ids = {"vocab_size": 100, "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1}
    config = SiglipConfig(
        text_config={**tower, **ids, "max_position_embeddings": 64},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
    )
    published.write_siglip(folder, config, seed=4)


def write_tiny_vit(folder):
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "image_size": 32, "patch_size": 8}
    config = ViTConfig(**sizes, num_hidden_layers=2, num_attention_heads=4)
    model = ViTModel(config, add_pooling_layer=False)
    published.randomize(model, seed=5)
    model.save_pretrained(folder)
    published.write_json(
        folder / "preprocessor_config.json",
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}},
    )


@pytest.fixture(scope="session")
def folders(tiny_clip, tiny_pair, tmp_path_factory):
    """A checkpoint folder of few, random weights for each shape."""
    root = tmp_path_factory.mktemp("shapes")
    write_tiny_siglip(root / "siglip")
    write_tiny_vit(root / "vit")
    published.write_joined(root / "joined", seed=6)
    return {
        "joined": root / "joined",
        "clip": tiny_clip,
        "siglip": root / "siglip",
        "dinov2": tiny_pair / "dinov2-small",
        "vit": root / "vit",
    }
