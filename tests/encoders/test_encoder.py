"""The interface that all encoders share."""

import numpy as np
import pytest
from PIL import Image

from featurecache.encoders.encoder import Encoder
from featurecache.encoders.loading import load_encoder
from featurecache.errors import ImageError, UsageError


@pytest.fixture(scope="module")
def tiny():
    return load_encoder("tiny", device="cpu")


def test_paths_and_pil_images_give_the_same_embeddings(tiny, images, tmp_path):
    paths = [tmp_path / f"{name}.png" for name in images]
    for path, image in zip(paths, images.values(), strict=True):
        image.save(path)
    direct = tiny.embed_pixels(np.stack([tiny.preprocess(image) for image in images.values()]))
    from_paths = tiny.encode_images(paths)
    assert from_paths.dtype == np.float32
    assert from_paths.shape == (len(images), 128)
    np.testing.assert_allclose(from_paths, direct, atol=1e-6)
    in_batches = tiny.encode_images([str(paths[0]), *list(images.values())[1:]], batch_size=2)
    np.testing.assert_allclose(in_batches, direct, atol=1e-5)


def test_pil_images_of_other_modes_are_converted(tiny, images):
    rgba = images["wide"].convert("RGBA")
    np.testing.assert_array_equal(tiny.encode_images([rgba]), tiny.encode_images([images["wide"]]))
    with pytest.raises(ImageError, match="mode I;16"):
        tiny.encode_images([Image.new("I;16", (64, 64))])


def test_unusable_image_is_named(tiny, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png: not an image"):
        tiny.encode_images([tmp_path / "broken.png"])


def test_single_image_or_none_is_refused(tiny, images):
    for single in ("a.png", images["gray"]):
        with pytest.raises(TypeError, match="give a list"):
            tiny.encode_images(single)
    with pytest.raises(ValueError, match="no images"):
        tiny.encode_images([])


def test_undefined_members_of_an_own_encoder_are_named():
    class Incomplete(Encoder):
        dim = 3

    encoder = Incomplete(name="mine")
    assert repr(encoder) == "Incomplete('mine', dim=3, images, cpu, fp32)"
    assert encoder.scale is None
    assert encoder.bias is None
    with pytest.raises(NotImplementedError, match="Incomplete does not define embed_pixels"):
        encoder.embed_pixels(np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(UsageError, match="mine encodes images only"):
        encoder.encode_texts(["a"])
    with pytest.raises(UsageError, match="cannot be trained"):
        encoder.trainable()
