"""Image-only families of transformers, against direct calls of transformers on random weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from featurecache.encoders.loading import load_encoder
from featurecache.errors import CheckpointError, UsageError
from tests import published

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SIDE = 64
VIT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 16,
}
MAE_DECODER = {
    "decoder_hidden_size": 16,
    "decoder_intermediate_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
}
# By family: the published class and its configuration, the class that embeds, the processor.
FAMILIES = {
    "clip_vision_model": ("CLIPVisionModel", VIT, "CLIPVisionModel", "CLIPImageProcessor"),
    "dinov2_with_registers": (
        "Dinov2WithRegistersModel",
        VIT,
        "Dinov2WithRegistersModel",
        "BitImageProcessor",
    ),
    "dinov3_convnext": (
        "DINOv3ConvNextModel",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": SIDE},
        "DINOv3ConvNextModel",
        "DINOv3ViTImageProcessorFast",
    ),
    "dinov3_vit": (
        "DINOv3ViTModel",
        VIT | {"num_register_tokens": 4},
        "DINOv3ViTModel",
        "DINOv3ViTImageProcessorFast",
    ),
    "ijepa": ("IJepaForImageClassification", VIT, "IJepaModel", "ViTImageProcessor"),
    "siglip_vision_model": ("SiglipVisionModel", VIT, "SiglipVisionModel", "SiglipImageProcessor"),
    "vit_mae": ("ViTMAEForPreTraining", VIT | MAE_DECODER, "ViTMAEModel", "ViTImageProcessor"),
}
PIXELS = np.random.default_rng(3).normal(size=(3, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    write_folders(root)
    return root


def write_folders(root):
    import transformers

    for seed, (family, (class_name, settings, _, processor)) in enumerate(FAMILIES.items()):
        model_class = getattr(transformers, class_name)
        model = model_class(model_class.config_class(**settings))
        published.randomize(model, seed=seed)
        model.save_pretrained(root / family)
        size = {"height": SIDE, "width": SIDE}
        crop = {"crop_size": size} if processor.startswith(("CLIP", "Bit")) else {}
        published.write_json(
            root / family / "preprocessor_config.json",
            {
                "image_processor_type": processor,
                "size": {"shortest_edge": SIDE} if crop else size,
                "resample": 2,
                "do_resize": True,
                "do_rescale": True,
                "do_normalize": True,
                "do_center_crop": bool(crop),
                **crop,
                **IMAGENET,
            },
        )


def load(folders, family, **options):
    return load_encoder(folders / family, device="cpu", **options)


def reference(folders, family):
    """Class token or None, patch tokens of each layer from the last, and the pooled vector."""
    import transformers

    model = getattr(transformers, FAMILIES[family][2]).from_pretrained(folders / family).eval()
    pixels = torch.tensor(PIXELS)
    options = {}
    if family == "vit_mae":
        model.config.mask_ratio = 0.0
        options = {"noise": torch.arange((SIDE / 16) ** 2).expand(len(PIXELS), -1)}
    with torch.no_grad():
        output = model(pixel_values=pixels, output_hidden_states=True, **options)
        states = list(output.hidden_states)[::-1][:4]
        last = output.last_hidden_state
        if family == "dinov3_convnext":
            maps = [state.flatten(2).transpose(1, 2) for state in states[1:]]
            return None, [last[:, 1:], *maps], output.pooler_output
        tower = getattr(model, "vision_model", model)  # in transformers 5.0
        norm = next(
            getattr(tower, name)
            for name in ("layernorm", "post_layernorm", "norm")
            if hasattr(tower, name)
        )
        states = [norm(state) for state in states]
    if family != "clip_vision_model":
        assert torch.allclose(states[0], last, atol=1e-5)
    if family == "ijepa":
        return None, states, last.mean(1)
    if family == "siglip_vision_model":
        return None, states, output.pooler_output
    prefix = 1 + getattr(model.config, "num_register_tokens", 0)
    patches = [state[:, prefix:] for state in states]
    pooled = last[:, 0] if family == "vit_mae" else output.pooler_output
    return [state[:, 0] for state in states], patches, pooled


def assert_equal(got, want):
    want = want.numpy()
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-5 * max(1, np.abs(want).max())
    assert np.abs(want[0] - want[1]).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_features_equals_transformers(folders, family):
    class_tokens, patches, pooled = reference(folders, family)

    def features(name):
        return load(folders, family, features=name).embed_pixels(PIXELS)

    assert_equal(load(folders, family).embed_pixels(PIXELS), pooled)
    means = [tokens.mean(1) for tokens in patches]
    assert_equal(features("mean"), means[0])
    grid = 2
    maps = patches[0].transpose(1, 2).unflatten(2, (int(patches[0].shape[1] ** 0.5), -1))
    cells = torch.nn.functional.adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2)
    if class_tokens is None:
        assert "cls" not in load(folders, family).offered_features
        with pytest.raises(UsageError, match="no class token"):
            features("cls")
        assert_equal(features("layers:-1,-3+mean"), torch.cat([means[0], means[2]], 1))
        assert_equal(features(f"tokens:{grid}"), cells.flatten(1))
        return
    assert_equal(features("cls"), class_tokens[0])
    both = torch.cat([class_tokens[0], means[0], class_tokens[2], means[2]], 1)
    assert_equal(features("layers:-1,-3+mean"), both)
    tokens = torch.cat([class_tokens[0][:, None], cells], 1)
    assert_equal(features(f"tokens:{grid}"), tokens.flatten(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_openvino_equals_torch(folders, family):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    expected = load(folders, family).embed_pixels(PIXELS)
    got = load(folders, family, backend="openvino").embed_pixels(PIXELS)
    assert np.abs(got - expected).max() < 1e-4 * max(1, np.abs(expected).max())


def test_a_masked_autoencoder_sees_every_patch_in_order(folders):
    encoder = load(folders, "vit_mae", features="tokens:4")
    first = encoder.embed_pixels(PIXELS)
    np.testing.assert_array_equal(encoder.embed_pixels(PIXELS), first)
    changed = PIXELS.copy()
    changed[:, :, -16:, -16:] += 1  # the last patch
    before, after = (tokens.reshape(3, 17, -1) for tokens in (first, encoder.embed_pixels(changed)))
    difference = np.abs(after - before).mean((0, 2))
    assert difference[1:].argmax() == 15


def test_dinov3_pixels_are_those_of_its_processor_up_to_a_rounded_gray_level(folders):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 90), dtype=np.uint8))
    got = load(folders, "dinov3_vit").preprocess(image)
    # rescale, resize in float with antialiasing, normalize: as DINOv3ViTImageProcessorFast
    values = torch.tensor(np.asarray(image.convert("RGB"), np.float32) / 255).permute(2, 0, 1)
    resized = torch.nn.functional.interpolate(
        values[None], (SIDE, SIDE), mode="bilinear", antialias=True
    )[0]
    mean, std = (torch.tensor(IMAGENET[key])[:, None, None] for key in ("image_mean", "image_std"))
    difference = np.abs(got - ((resized - mean) / std).numpy())
    assert difference.max() < 1.01 / 255 / 0.224


def test_siglip_without_a_pooling_head_is_refused(folders, tmp_path):
    shutil.copytree(folders / "siglip_vision_model", tmp_path / "headless")
    path = tmp_path / "headless" / "config.json"
    published.write_json(path, json.loads(path.read_text()) | {"vision_use_head": False})
    with pytest.raises(CheckpointError, match="no pooling head"):
        load_encoder(tmp_path / "headless", device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_trainable_networks_embed_alike_and_are_saved(folders, family, tmp_path):
    encoder = load(folders, family)
    trainable = encoder.trainable()
    with torch.no_grad():
        assert_equal(encoder.embed_pixels(PIXELS), trainable.embed_images(torch.tensor(PIXELS)))
    assert trainable.set_trainable("last-1") > 0
    trainable.save(tmp_path / "saved")
    saved = load_encoder(tmp_path / "saved", device="cpu")
    np.testing.assert_array_equal(saved.embed_pixels(PIXELS), encoder.embed_pixels(PIXELS))
