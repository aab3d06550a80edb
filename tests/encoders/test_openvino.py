"""OpenVINO embeds as torch does, from a converted network that is kept and checked."""

import os
import shutil

import numpy as np
import pytest

from featurecache.encoders import openvino as module
from featurecache.encoders.loading import load_encoder, reload_encoder
from featurecache.errors import FeaturecacheWarning, UsageError
from featurecache.extraction.probe import min_cosine
from tests import published

# Not imported yet: every process collects this file.
pytestmark = pytest.mark.skipif(
    not module.has_openvino(), reason="the extra openvino is not installed"
)

TOLERANCE = 1e-4
SHAPES = ("clip", "siglip", "joined", "dinov2", "vit")
PIXELS = np.random.default_rng(3).normal(size=(5, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def load(folders):
    return lambda shape="clip", **options: load_encoder(
        str(folders[shape]), device="cpu", **options
    )


def pixels_for(shape: str) -> np.ndarray:
    return PIXELS[..., :28, :28].copy() if shape == "dinov2" else PIXELS


@pytest.fixture(scope="module")
def converted(folders):
    """The folder of the converted network of "clip", and what it embeds."""
    kept = module.user_cache() / "openvino"
    before = set(kept.glob("*/*"))
    encoder = load_encoder(str(folders["clip"]), device="cpu", backend="openvino")
    embedding = encoder.embed_pixels(PIXELS)
    (folder,) = set(kept.glob("*/*")) - before
    return folder, embedding


def kept_as(folder, user_cache):
    """Return where a converted network is kept in another user cache."""
    return user_cache / "openvino" / folder.parent.name / folder.name


@pytest.fixture
def kept(converted, user_cache):
    """A copy of that folder, for one test."""
    folder, _ = converted
    return shutil.copytree(folder, kept_as(folder, user_cache))


@pytest.fixture
def no_conversion(monkeypatch):
    def convert(*args, **options):
        raise AssertionError("converted again")

    return lambda: monkeypatch.setattr(module, "_convert", convert)


@pytest.mark.parametrize("shape", SHAPES)
def test_fp32_equals_torch_in_batches_of_any_size(load, shape):
    pixels = pixels_for(shape)
    expected = load(shape).embed_pixels(pixels)
    encoder = load(shape, backend="openvino")
    assert str(encoder.execution) == "openvino fp32"
    for size in (5, 3, 1):
        got = encoder.embed_pixels(pixels[:size])
        assert got.dtype == np.float32
        assert np.abs(got - expected[:size]).max() < TOLERANCE
    assert np.abs(expected[0] - expected[1]).max() > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("shape", "precision"), [("joined", "fp32"), ("clip", "bf16"), ("clip", "int8")]
)
def test_embeddings_repeat_to_the_bit_whatever_else_is_in_the_batch(load, shape, precision):
    first, second = (load(shape, backend="openvino", precision=precision) for _ in range(2))
    embedding = first.embed_pixels(PIXELS)
    order = [4, 2, 0, 1, 3]
    np.testing.assert_array_equal(second.embed_pixels(PIXELS), embedding)
    np.testing.assert_array_equal(second.embed_pixels(PIXELS[order]), embedding[order])
    assert min_cosine(embedding, load(shape).embed_pixels(PIXELS)) > 0.999


def test_texts_are_encoded_by_torch_in_fp32(load):
    plain = load()
    for options in (
        {"backend": "openvino"},
        {"precision": "int8"},
        {"precision": "bf16"},
        {"precision": "bf16-weights"},
    ):
        other = load(**options)
        assert other.text_spec == plain.text_spec
        np.testing.assert_array_equal(
            other.encode_texts(published.SENTENCES), plain.encode_texts(published.SENTENCES)
        )


def test_spec_names_backend_and_versions(load):
    spec = load(backend="openvino").image_spec
    assert (spec["backend"], spec["precision"]) == ("openvino", "fp32")
    assert {"openvino", "nncf", "torch"} <= set(spec["libraries"])
    again = reload_encoder("clip", spec, model=load()._checkpoint.folder, device="cpu")
    assert again.image_spec == spec


def test_converted_network_is_kept(load, converted, kept, user_cache, no_conversion):
    no_conversion()
    again = load(backend="openvino")
    np.testing.assert_array_equal(again.embed_pixels(PIXELS), converted[1])
    load(backend="openvino", precision="bf16").embed_pixels(PIXELS)  # of the same network
    assert list(user_cache.glob("openvino/*/*")) == [kept]
    with pytest.raises(AssertionError, match="converted again"):
        load("siglip", backend="openvino").embed_pixels(PIXELS)


def test_network_of_other_library_versions_is_removed(load, converted, kept):
    kept.rename(kept.with_name("0" * 64))
    (kept.parents[1] / "another network" / "0").mkdir(parents=True)
    load(backend="openvino").embed_pixels(PIXELS)
    assert [path.name for path in kept.parent.iterdir()] == [converted[0].name]
    assert (kept.parents[1] / "another network" / "0").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.bin").write_bytes(b"\0" * 100),
        lambda folder: (folder / "model.xml").write_text("<net>"),
        lambda folder: (folder / "sha256.json").write_text("{"),
        lambda folder: (folder / "model.bin").unlink(),
    ],
)
def test_damaged_network_is_converted_again(load, converted, kept, damage):
    damage(kept)
    with pytest.warns(FeaturecacheWarning, match="is damaged: the network is converted again"):
        got = load(backend="openvino").embed_pixels(PIXELS)
    np.testing.assert_array_equal(got, converted[1])


def test_interrupted_conversion_leaves_nothing(load, user_cache, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("openvino.save_model", stop)
    with pytest.raises(KeyboardInterrupt):
        load(backend="openvino").embed_pixels(PIXELS)
    assert list(user_cache.glob("openvino/*/*")) == []


def test_network_that_another_process_converted_meanwhile_is_used(
    load, converted, user_cache, monkeypatch
):
    folder, expected = converted
    convert = module._convert

    def slow(*args, **options):
        convert(*args, **options)
        shutil.copytree(folder, kept_as(folder, user_cache))

    monkeypatch.setattr(module, "_convert", slow)
    np.testing.assert_array_equal(load(backend="openvino").embed_pixels(PIXELS), expected)


@pytest.mark.parametrize("problem", ["not a folder", "full disk"])
def test_network_that_cannot_be_kept_is_converted_each_time(
    load, converted, user_cache, monkeypatch, problem
):
    user_cache.mkdir(parents=True)
    if problem == "not a folder":
        (user_cache / "openvino").touch()
    else:
        from openvino import save_model

        def fail_in_cache(model, path, **options):
            if path.is_relative_to(user_cache):
                path.write_text("<half")
                raise RuntimeError("basic_ios::clear: iostream error")
            save_model(model, path, **options)

        monkeypatch.setattr("openvino.save_model", fail_in_cache)
    for _ in range(2):
        with pytest.warns(FeaturecacheWarning, match="cannot be kept .*, and is converted each"):
            got = load(backend="openvino").embed_pixels(PIXELS)
        np.testing.assert_array_equal(got, converted[1])
    assert list(user_cache.glob("openvino/*/*")) == []


def test_conversion_prints_nothing(load, capfd):
    load("dinov2", precision="int8").embed_pixels(pixels_for("dinov2"))
    assert capfd.readouterr() == ("", "")


def test_conversion_sends_no_statistics(load, monkeypatch):
    from openvino_telemetry import Telemetry

    monkeypatch.delenv("CI", raising=False)
    load(backend="openvino").embed_pixels(PIXELS)
    assert not Telemetry().consent  # the one that the conversion made
    assert "CI" not in os.environ


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "openvino", "precision": "fp16"}, "cannot run as openvino fp16 on cpu"),
        ({"backend": "torch", "precision": "int8"}, "cannot run as torch int8 on cpu"),
        ({"precision": "fp16"}, "cannot run as torch fp16 on cpu: choose `backend` and"),
        ({"backend": "openvino", "precision": "exact"}, "exact means torch fp32"),
        ({"backend": "onnx"}, "unknown backend 'onnx': use auto, torch, openvino"),
    ],
)
def test_execution_that_does_not_exist_is_refused(load, options, message):
    with pytest.raises(UsageError, match=message):
        load(**options)


def test_missing_extra_is_named(load, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'featurecache\[openvino\]'"):
        load(backend="openvino")
    assert {one.backend for one in load().executions} == {"torch"}
