"""The fast preprocessing equals the image processors of transformers bit by bit."""

import json
import pickle

import numpy as np
import pytest
import transformers
from PIL import Image

from featurecache.encoders.preprocessing import read_preprocessing
from featurecache.encoders.pretrained import ImageProcessor

HALF = [0.5, 0.5, 0.5]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
RAD_DINO = {"image_mean": [0.5307] * 3, "image_std": [0.2583] * 3}

# Settings of the registered encoders, as published, and a few with other steps.
SETTINGS = {
    "clip": ("CLIP", {}),
    "siglip2": ("Siglip", {"resample": 2}),
    "medsiglip": ("Siglip", {"size": {"height": 448, "width": 448}}),
    "xraysiglip": ("Siglip", {"size": {"height": 512, "width": 512}}),
    "dinov2": ("Bit", {"size": {"shortest_edge": 256}, **IMAGENET}),
    "rad-dino": ("Bit", {"size": {"shortest_edge": 518}, "crop_size": 518, **RAD_DINO}),
    "vit": ("ViT", {}),
    "tiny": (
        "CLIP",
        {
            "size": {"height": 128, "width": 128},
            "do_center_crop": False,
            "image_mean": HALF,
            "image_std": [0.25, 0.25, 0.25],
        },
    ),
    "not square": ("Siglip", {"size": {"height": 90, "width": 131}}),
    "odd crop": ("CLIP", {"size": {"shortest_edge": 61}, "crop_size": {"height": 33, "width": 40}}),
    "no crop": ("CLIP", {"size": {"shortest_edge": 61}, "do_center_crop": False}),
    "nearest": ("ViT", {"resample": 0}),
    "not normalized": ("ViT", {"do_normalize": False}),
    "not rescaled": ("ViT", {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0]}),
}


def make(family, settings):
    # Before there were two back ends, that of Pillow had the plain name.
    name = f"{family}ImageProcessor"
    kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    return kind(**settings)


def reference(processor, image):
    batch = processor(images=image.convert("RGB"), return_tensors="np")
    return batch["pixel_values"][0].astype(np.float32)


@pytest.mark.parametrize(("family", "settings"), SETTINGS.values(), ids=SETTINGS)
def test_pixels_equal_those_of_the_processor_exactly(family, settings, images):
    processor = make(family, settings)
    preprocessing = read_preprocessing(processor)
    for image in images.values():
        for mode in ("L", "RGB"):
            got = preprocessing(image.convert(mode))
            assert got.dtype == np.float32
            assert got.flags.c_contiguous
            np.testing.assert_array_equal(got, reference(processor, image.convert(mode)))


def test_image_of_target_size_is_not_resized():
    noise = np.random.default_rng(3).integers(0, 256, (224, 224), dtype=np.uint8)
    processor = make("CLIP", {})
    got = read_preprocessing(processor)(Image.fromarray(noise))
    np.testing.assert_array_equal(got, reference(processor, Image.fromarray(noise)))


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("CLIP", {"size": {"shortest_edge": 61}}),  # the crop of 224 would be padded
        ("CLIP", {"size": {"shortest_edge": 61, "longest_edge": 70}, "do_center_crop": False}),
        ("ViT", {"do_resize": False}),
        ("CLIP", {"do_pad": True, "pad_size": {"height": 300, "width": 300}}),
        ("ConvNext", {}),
    ],
)
def test_unsupported_settings_use_the_processor(family, settings, images, tmp_path):
    processor = make(family, settings)
    assert read_preprocessing(processor) is None
    processor.save_pretrained(tmp_path)
    loaded = ImageProcessor(tmp_path)
    want = reference(processor, images["tall"])
    np.testing.assert_array_equal(loaded(images["tall"]), want)
    sent = pickle.loads(pickle.dumps(loaded.picklable))  # noqa: S301
    np.testing.assert_array_equal(sent(images["tall"]), want)


def test_supported_checkpoint_does_not_use_the_processor(images, tmp_path):
    make("CLIP", {}).save_pretrained(tmp_path)
    loaded = ImageProcessor(tmp_path)
    description = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert description["image_processor_type"] == "CLIPImageProcessor"
    loaded._processor = None  # must not be used
    want = reference(make("CLIP", {}), images["gray"])
    np.testing.assert_array_equal(loaded(images["gray"]), want)
