"""Networks of timm against direct calls of timm, on random weights in the layout of the hub."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from featurecache.encoders.loading import load_encoder
from featurecache.errors import CheckpointError, UsageError
from tests import published
from tests.timm_library import import_timm

timm = import_timm()

# By architecture, with what makes it small.
NETWORKS = {
    "vit_tiny_patch16_224": {"img_size": 64, "depth": 3, "reg_tokens": 2},
    "eva02_tiny_patch14_224": {"img_size": 56, "depth": 3},
    "deit_tiny_distilled_patch16_224": {"img_size": 64, "depth": 3},
    "vit_base_patch16_siglip_224": {"img_size": 64, "depth": 3, "embed_dim": 48, "num_heads": 3},
    "swin_tiny_patch4_window7_224": {"img_size": 112, "depths": [1, 1, 1, 1]},
    "convnext_atto": {"depths": [1, 1, 1, 1]},
    "davit_tiny": {"embed_dims": [12, 24, 48, 96], "depths": [1, 1, 1, 1]},
    "densenet121": {"in_chans": 1, "block_config": [1, 1, 1, 1]},
    "resnet18": {},
}
TOKENS = [name for name in NETWORKS if name.startswith(("vit", "eva", "deit"))]
CLASS_TOKENS = TOKENS[:3]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("timm")
    for seed, (name, arguments) in enumerate(NETWORKS.items()):
        side = arguments.get("img_size", 64)
        network = timm.create_model(
            name,
            pretrained=False,
            num_classes=5,
            pretrained_cfg_overlay={"input_size": (arguments.get("in_chans", 3), side, side)},
            **arguments,
        )
        published.randomize(network, seed=seed)
        arguments = {"num_classes": 5, **arguments}
        timm.models.save_for_hf(network, root / name, model_args=arguments, safe_serialization=True)
    return root


def direct(folders, name, pixels):
    """The network and its input, built by timm alone."""
    network = timm.create_model(f"local-dir:{folders / name}", pretrained=True).eval()
    return network, torch.tensor(pixels)[:, : NETWORKS[name].get("in_chans", 3)]


def random_pixels(encoder):
    height, width = encoder.preprocess(Image.new("L", (9, 9))).shape[1:]
    return np.random.default_rng(2).normal(size=(2, 3, height, width)).astype(np.float32)


def assert_equal(got, want):
    want = want.numpy()
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-5 * max(1, np.abs(want).max())
    assert np.abs(want[0] - want[1]).max() > 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_embeddings_equal_timm(folders, name):
    encoder = load_encoder(folders / name, device="cpu")
    pixels = random_pixels(encoder)
    network, inputs = direct(folders, name, pixels)
    with torch.no_grad():
        features = network.forward_features(inputs)
        pooled = network.forward_head(features, pre_logits=True)
    assert_equal(encoder.embed_pixels(pixels), pooled)
    assert encoder.dim == pooled.shape[1]
    logits = network.get_classifier()
    if isinstance(logits, torch.nn.Linear):
        with torch.no_grad():
            assert torch.allclose(logits(pooled), network(inputs), atol=1e-4)


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_equal_timm(folders, name):
    encoder = load_encoder(folders / name, device="cpu")
    pixels = random_pixels(encoder)
    network, inputs = direct(folders, name, pixels)
    with torch.no_grad():
        layers = network.forward_intermediates(
            inputs,
            indices=3,
            norm=not name.startswith("eva"),
            return_prefix_tokens=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        if name.startswith("eva"):  # it normalizes the mean of the patches, and no token
            layers = [tuple(network.fc_norm(one) for one in layer) for layer in layers]
    if name not in CLASS_TOKENS:  # timm returns tokens alone
        layers = [(layer, None) for layer in layers]
    (last, last_prefix), (first, first_prefix) = layers[-1], layers[0]

    def features(kind):
        return load_encoder(folders / name, device="cpu", features=kind).embed_pixels(pixels)

    means = [last.mean(1), first.mean(1)]
    assert_equal(features("mean"), means[0])
    maps = last.transpose(1, 2).unflatten(2, (4, 4))
    cells = torch.nn.functional.avg_pool2d(maps, 2).flatten(2).transpose(1, 2)
    if name not in CLASS_TOKENS:
        assert "cls" not in encoder.offered_features
        assert_equal(features("layers:-1,-3+mean"), torch.cat(means, 1))
        assert_equal(features("tokens:2"), cells.flatten(1))
        return
    class_tokens = [last_prefix[:, 0], first_prefix[:, 0]]
    assert_equal(features("cls"), class_tokens[0])
    both = torch.cat([class_tokens[0], means[0], class_tokens[1], means[1]], 1)
    assert_equal(features("layers:-1,-3+mean"), both)
    assert_equal(features("tokens:2"), torch.cat([class_tokens[0][:, None], cells], 1).flatten(1))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in TOKENS])
def test_maps_equal_timm(folders, name):
    encoder = load_encoder(folders / name, device="cpu")
    pixels = random_pixels(encoder)
    network, inputs = direct(folders, name, pixels)
    with torch.no_grad():
        last = network.forward_features(inputs)
        # Without the last norm, and before what follows the last stage: only earlier ones are used.
        *_, earlier, _ = network.forward_intermediates(inputs, intermediates_only=True)
    if name.startswith("swin"):
        last = last.permute(0, 3, 1, 2)

    def features(kind):
        return load_encoder(folders / name, device="cpu", features=kind).embed_pixels(pixels)

    assert_equal(features("mean"), last.mean((2, 3)))
    assert_equal(features("layers:-2+mean"), earlier.mean((2, 3)))
    cells = torch.nn.functional.adaptive_avg_pool2d(last, 2).flatten(2).transpose(1, 2)
    assert_equal(features("tokens:2"), cells.flatten(1))
    with pytest.raises(UsageError, match="no class token"):
        features("cls")


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "eva02_tiny_patch14_224",
        "swin_tiny_patch4_window7_224",
        "densenet121",
    ],
)
def test_openvino_equals_torch(folders, name):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    encoder = load_encoder(folders / name, device="cpu")
    pixels = random_pixels(encoder)
    expected = encoder.embed_pixels(pixels)
    got = load_encoder(folders / name, device="cpu", backend="openvino").embed_pixels(pixels)
    assert np.abs(got - expected).max() < 1e-4 * max(1, np.abs(expected).max())


def timm_pixels(image, *, side, crop_pct, crop_mode):
    """What timm's transform does, with Pillow and numpy: torchvision's rounding of the crop."""
    image = image.convert("RGB")
    scaled = int(side / crop_pct)
    if crop_mode == "squash":
        size = scaled, scaled
    else:
        short = min(image.size)
        size = tuple(scaled if s == short else int(scaled * s / short) for s in image.size)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (round((s - side) / 2) for s in image.size)
    values = np.asarray(image, np.float32)[top : top + side, left : left + side] / np.float32(255)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return ((values - mean) / std).transpose(2, 0, 1)


@pytest.mark.parametrize("crop", [{"crop_pct": 0.9}, {"crop_pct": 0.95, "crop_mode": "squash"}])
def test_preprocessing_is_that_of_the_config(folders, images, tmp_path, crop):
    folder = tmp_path / "network"
    folder.mkdir()
    config = json.loads((folders / "resnet18" / "config.json").read_text())
    config["pretrained_cfg"] |= {"input_size": [3, 63, 63], **crop}
    published.write_json(folder / "config.json", config)
    (folder / "model.safetensors").symlink_to(folders / "resnet18" / "model.safetensors")
    encoder = load_encoder(folder, device="cpu")
    for image in images.values():
        want = timm_pixels(image, side=63, **{"crop_mode": "center", **crop})
        assert np.abs(encoder.preprocess(image) - want).max() < 1e-6
    assert encoder.image_spec["processor"]["config"]["crop_pct"] == crop["crop_pct"]


def test_one_channel_is_the_gray_values(folders):
    encoder = load_encoder(folders / "densenet121", device="cpu")
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 80, 3), dtype=np.uint8))
    np.testing.assert_array_equal(encoder.preprocess(rgb), encoder.preprocess(rgb.convert("L")))


def test_whole_images_by_choice(folders, images):
    encoder = load_encoder(folders / "resnet18", device="cpu", resize="pad")
    assert encoder.resize == "pad"
    assert encoder.cache_name == "resnet18.pad"
    assert encoder.preprocess(images["tall"]).shape == (3, 64, 64)


def test_name_and_weights_of_timm(folders):
    folder = folders / "resnet18"
    encoder = load_encoder("timm:resnet18", weights=folder, device="cpu")
    assert encoder.name == "timm:resnet18"
    assert load_encoder("timm:resnet18.a1_in1k", weights=folder, device="cpu").dim == 512
    with pytest.raises(CheckpointError, match="architecture 'resnet18', not resnet50"):
        load_encoder("timm:resnet50", weights=folder, device="cpu")
    with pytest.raises(UsageError, match=r"no model 'resnet81'.*did you mean timm:resnet"):
        load_encoder("timm:resnet81", device="cpu")
    with pytest.raises(UsageError, match="hf:org/name"):
        load_encoder("timm:hf_hub:org/name", device="cpu")
    with pytest.raises(CheckpointError, match=r"timm/resnet18\.a1_in1k"):
        load_encoder("timm:resnet18.a1_in1k", device="cpu")
    with pytest.raises(CheckpointError, match="convert_checkpoint"):
        load_encoder("timm:resnet18", weights=folder / "model.safetensors", device="cpu")


def test_without_timm_the_message_says_what_to_install(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for name in (folders / "resnet18", "timm:resnet18"):
        with pytest.raises(UsageError, match=r"pip install 'featurecache\[timm\]'"):
            load_encoder(name, device="cpu")


def test_weights_that_do_not_fit_are_refused(folders, tmp_path):
    folder = tmp_path / "network"
    folder.mkdir()
    published.write_json(
        folder / "config.json", json.loads((folders / "resnet18" / "config.json").read_text())
    )
    (folder / "model.safetensors").symlink_to(folders / "convnext_atto" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing .* unexpected"):
        load_encoder(folder, device="cpu").embed_pixels(np.zeros((1, 3, 64, 64), np.float32))
