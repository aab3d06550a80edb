"""``resize``: whole images in place of the published crop, against transformers and numpy."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import transformers
from PIL import Image

import featurecache as fc
from featurecache.encoders.compatibility import library_difference
from featurecache.encoders.geometry import Geometry
from featurecache.encoders.open_clip import OpenClipEncoder
from featurecache.encoders.preprocessing import Preprocessing
from featurecache.errors import RunError, UnknownNameError, UsageError
from tests import published

SIDE = 28


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that resizes the shorter side to 32 pixels and crops the center of 28."""
    folder = tmp_path_factory.mktemp("resize") / "small-dinov2"
    published.write_dinov2(folder, seed=4)
    return folder


def square(image: Image.Image) -> Image.Image:
    """Pad an image with black to a square, its content in the center."""
    pixels = np.asarray(image)
    missing = [max(pixels.shape[:2]) - size for size in pixels.shape[:2]]
    before_and_after = [(size // 2, size - size // 2) for size in missing]
    return Image.fromarray(np.pad(pixels, before_and_after + [(0, 0)] * (pixels.ndim - 2)))


def reference(folder: Path, image: Image.Image, resize: str) -> np.ndarray:
    """Return the pixels that the processor of transformers makes, set to another size."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    if resize != "published":
        processor.do_center_crop = False
        processor.size = {"height": SIDE, "width": SIDE}
    image = square(image) if resize == "pad" else image
    batch = processor(images=image.convert("RGB"), return_tensors="np")
    return batch["pixel_values"][0].astype(np.float32)


@pytest.mark.parametrize("resize", ["published", "pad", "stretch"])
def test_pixels_equal_those_of_transformers(
    dinov2: Path, images: dict[str, Image.Image], resize: str
) -> None:
    encoder = fc.load_encoder(dinov2, resize=resize)
    assert encoder.resize == resize
    for image in images.values():
        for mode in ("L", "RGB"):
            pixels = encoder.preprocess(image.convert(mode))
            np.testing.assert_array_equal(pixels, reference(dinov2, image.convert(mode), resize))
            assert encoder.picklable_preprocess is not None
            np.testing.assert_array_equal(pixels, encoder.picklable_preprocess(image.convert(mode)))


def test_published_crop_of_dinov2_drops_23_percent_of_a_square() -> None:
    size = {"shortest_edge": 256}
    table = np.repeat(np.arange(256, dtype=np.float32)[None], 3, axis=0)
    crop = Preprocessing(Geometry(size, (224, 224)), Image.Resampling.NEAREST, table)
    bright = np.zeros((256, 256), np.uint8)
    bright[:16] = bright[-16:] = bright[:, :16] = bright[:, -16:] = 255
    assert bright.mean() / 255 == pytest.approx(0.234, abs=1e-3)
    image = Image.fromarray(bright)
    assert crop(image).max() == 0
    for resize in ("pad", "stretch"):
        assert crop.resized(resize)(image).mean() / 255 == pytest.approx(0.234, abs=0.01)


def test_open_clip_pads_or_stretches_in_its_own_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip's names for it; the size and everything else stay those of the checkpoint."""
    transform = ModuleType("open_clip.transform")
    vars(transform).update(
        PreprocessCfg=SimpleNamespace,
        merge_preprocess_dict=lambda base, overlay: {**vars(base), **overlay},
        image_transform_v2=lambda settings, is_train: (vars(settings), is_train),
    )
    monkeypatch.setitem(sys.modules, "open_clip", ModuleType("open_clip"))
    monkeypatch.setitem(sys.modules, "open_clip.transform", transform)
    encoder = object.__new__(OpenClipEncoder)
    published = {"mean": [0.5], "resize_mode": "shortest", "fill_color": 7}
    encoder._config = {
        "model_cfg": {"embed_dim": 16, "vision_cfg": {"image_size": 28}, "text_cfg": {}},
        "preprocess_cfg": published,
    }
    for resize, changes, area in (
        ("pad", {"resize_mode": "longest", "fill_color": 0}, (0, -25, 100, 75)),
        ("stretch", {"resize_mode": "squash", "fill_color": 0}, (0, 0, 100, 50)),
        ("published", {}, (25, 0, 75, 50)),
    ):
        encoder.use_resize(resize)
        assert encoder._transform == ({**published, "size": 28, **changes}, False)
        assert encoder.resize == resize
        assert encoder.geometry.area(100, 50) == pytest.approx(area, abs=1)
    with pytest.raises(UnknownNameError):
        encoder.use_resize("crop")


def test_pad_keeps_proportions_on_black() -> None:
    table = np.repeat(np.arange(256, dtype=np.float32)[None], 3, axis=0)
    geometry = Geometry({"shortest_edge": 40})
    preprocessing = Preprocessing(geometry, Image.Resampling.NEAREST, table)
    white = Image.new("L", (100, 50), 255)
    padded = preprocessing.resized("pad")(white)
    assert padded.shape == (3, 40, 40)
    np.testing.assert_array_equal(np.flatnonzero(padded[0].all(axis=1)), np.arange(10, 30))
    assert (preprocessing.resized("stretch")(white) == 255).all()


def test_way_to_resize_is_part_of_the_spec_only_where_it_changes_pixels(
    dinov2: Path, tiny_clip: Path
) -> None:
    assert "resize" not in fc.load_encoder(dinov2).image_spec
    assert fc.load_encoder(dinov2, resize="pad").image_spec["resize"] == "pad"
    # tiny resizes to a square as published.
    assert fc.load_encoder("tiny", resize="stretch").image_spec == (
        fc.load_encoder("tiny").image_spec
    )
    assert fc.load_encoder("tiny", resize="pad").cache_name == "tiny.pad"
    clip = fc.load_encoder(tiny_clip, resize="pad")
    assert clip.text_spec == fc.load_encoder(tiny_clip).text_spec


def test_wrong_uses_are_refused(dinov2: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="resize"):
        fc.load_encoder(dinov2, resize="squash")
    encoder = fc.load_encoder(dinov2, resize="pad")
    with pytest.raises(UsageError, match="fine-tuned as published: leave out `resize`"):
        encoder.trainable()
    published.write_bert(tmp_path / "bert", seed=1)
    with pytest.raises(UsageError, match="leave out `resize`"):
        fc.load_encoder(tmp_path / "bert", resize="pad")


def test_caches_of_both_ways_live_side_by_side_and_predict_as_they_were_made(
    dinov2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(24):
        folder = Path("images") / ("ill" if number % 2 else "well")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 100, (60, 40)) + 100 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
    plain = fc.extract(("folder", "images"), dinov2)
    padded = fc.extract(("folder", "images"), dinov2, resize="pad")
    assert plain.path.name == "small-dinov2.h5"
    assert padded.path.name == "small-dinov2.pad.h5"
    assert not np.array_equal(plain.embedding, padded.embedding)
    run = fc.train_head(padded, "prototype", controls=False, n_bootstrap=0)
    run.save("run")
    test = run.predictions[run.predictions["split"] == "test"]
    predicted = fc.load_run("run").predict(
        [f"images/{name}" for name in test["id"]], models=[str(dinov2)]
    )
    np.testing.assert_allclose(
        predicted["ill probability"], test["ill probability"].to_numpy(), atol=2e-3
    )
    with pytest.raises(fc.errors.RunError, match="resize"):
        run.evaluate(plain, n_bootstrap=0)
    # The same file with another way to resize is refused, and the difference named.
    padded.path.rename(plain.path)
    with pytest.raises(fc.errors.CacheError, match=r"resize: 'pad' against 'published'"):
        fc.extract(("folder", "images"), dinov2)


def test_another_resize_is_named_with_what_was_used() -> None:
    cropped = {"model": "dinov2", "libraries": {}}  # the published resize is not in the spec
    with pytest.raises(
        RunError, match="runs/x used `resize` 'published', but these embeddings `resize` 'pad'"
    ):
        library_difference(cropped, {**cropped, "resize": "pad"}, source="runs/x")
    with pytest.raises(
        RunError, match="used `resize` 'pad', but these embeddings `resize` 'published'"
    ):
        library_difference({**cropped, "resize": "pad"}, cropped, source="runs/x")
    assert library_difference(cropped, dict(cropped), source="runs/x") is None
