"""Compare features with transformers' hidden states at the width of published networks.

The tests do this on small networks; this takes minutes and gigabytes: ``python -m
tests.encoders.full_width``. Weights are random.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import featurecache as fc
from featurecache.features import parse_features
from tests import published
from tests.encoders import test_families as families
from tests.encoders.test_features import FEATURES, expected, reference

VIT_BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
}
MAE_DECODER = {
    "decoder_hidden_size": 512,
    "decoder_intermediate_size": 2048,
    "decoder_num_hidden_layers": 8,
    "decoder_num_attention_heads": 16,
}
TINY_CONVNEXT = {"hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3], "image_size": 224}


def main() -> None:
    """Print the largest difference for each family, relative to the largest value."""
    for family, build in BUILDERS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / family
            build(path)
            print(f"{family}: {largest_difference(path, FEATURES[family]):.1e}", flush=True)
    families.SIDE = 224
    families.PIXELS = np.random.default_rng(3).normal(size=(2, 3, 224, 224)).astype(np.float32)
    for family, (name, small, embeds, processor) in list(families.FAMILIES.items()):
        wide = TINY_CONVNEXT if family == "dinov3_convnext" else VIT_BASE
        extra = {key: value for key, value in small.items() if key == "num_register_tokens"}
        extra |= MAE_DECODER if family == "vit_mae" else {}
        families.FAMILIES = {family: (name, wide | extra, embeds, processor)}
        root = Path(tempfile.mkdtemp())
        families.write_folders(root)
        families.test_every_kind_of_features_equals_transformers(root, family)
        print(f"{family}: below 1e-5", flush=True)
        shutil.rmtree(root)


def largest_difference(folder: Path, kinds: list[str]) -> float:
    """Return the largest difference of all kinds of features, in one pass and on their own."""
    default = fc.load_encoder(folder, device="cpu")
    size = default.preprocess(Image.new("L", (300, 240), 90)).shape
    pixels = np.random.default_rng(0).normal(size=(2, *size)).astype(np.float32)
    of_network = reference(folder, pixels)
    together = default.embed_features(pixels, [parse_features(kind) for kind in kinds])
    differences = []
    for kind, got in zip(kinds, together, strict=True):
        want = expected(of_network, kind)
        alone = fc.load_encoder(folder, device="cpu", features=kind).embed_pixels(pixels)
        assert got.shape == want.shape == alone.shape
        scale = max(1, np.abs(want).max())
        differences += [np.abs(one - want).max() / scale for one in (got, alone)]
    return float(max(differences))


def _clip(folder: Path) -> None:
    from transformers import CLIPConfig

    published.write_clip(folder, CLIPConfig(), seed=1)  # ViT-B/32


def _siglip(folder: Path) -> None:
    from transformers import SiglipConfig

    published.write_siglip(folder, SiglipConfig(), seed=2)  # base, 224 pixels


def _dinov2(folder: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    # RAD-DINO: ViT-B/14 at 518 pixels.
    _write(folder, Dinov2Model(Dinov2Config(image_size=518, patch_size=14)), side=518)


def _registers(folder: Path) -> None:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(image_size=518, patch_size=14)
    _write(folder, Dinov2WithRegistersModel(config), side=518)


def _vit(folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    _write(folder, ViTModel(ViTConfig(), add_pooling_layer=False), side=224)


def _write(folder: Path, model: torch.nn.Module, *, side: int) -> None:
    published.randomize(model, seed=3)
    model.save_pretrained(folder)  # type: ignore[operator]
    size = {"height": side, "width": side}
    content = {"image_processor_type": "ViTImageProcessor", "size": size}
    published.write_json(folder / "preprocessor_config.json", content)


BUILDERS = {
    "clip": _clip,
    "siglip": _siglip,
    "dinov2": _dinov2,
    "registers": _registers,
    "vit": _vit,
}

if __name__ == "__main__":
    main()
