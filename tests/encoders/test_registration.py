"""A user's own encoders by name, and encoders found again by name and spec."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

import featurecache as fc
from featurecache import plugins
from featurecache.encoders.compatibility import check_encoder_specs
from featurecache.encoders.loading import as_encoder, load_encoder, reload_encoder
from featurecache.encoders.registry import ENCODERS, EncoderSpec, register_encoder
from featurecache.errors import FeaturecacheWarning, RunError, UnknownNameError, UsageError
from featurecache.provenance.provenance import Provenance


class MeanGray(fc.Encoder):
    dim = 3
    image_spec: ClassVar = {"mean gray": 1}

    def preprocess(self, image):
        return np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1)

    def embed_pixels(self, pixels):
        return pixels.mean(axis=(2, 3))


def test_a_registered_loader_is_called_with_the_resolved_arguments(tmp_path):
    calls = []

    def load(**arguments):
        calls.append(arguments)
        return MeanGray(name="anything")

    register_encoder("mean-gray", load, dim=3, license="MIT", exposed_to=("nih",))
    encoder = load_encoder("mean-gray", weights=str(tmp_path), device="cpu")
    assert calls == [{"device": "cpu", "precision": "fp32", "weights": tmp_path}]
    assert encoder.name == "mean-gray"
    assert encoder.provenance == Provenance(("nih",))
    assert ENCODERS["mean-gray"].license == "MIT"
    assert encoder.encode_images([Image.new("L", (20, 20), 7)]).tolist() == [[7, 7, 7]]


def test_a_spec_names_weights_of_a_supported_family(tiny_clip, tmp_path, monkeypatch):
    register_encoder("ours", EncoderSpec(name="x", hub_ids=("lab/tiny-clip",), dim=24))
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_clip.parent))
    assert load_encoder("ours", device="cpu").dim == 24
    assert ENCODERS["ours"].name == "ours"


def test_names_of_built_in_encoders_and_unusable_names_are_refused():
    with pytest.raises(UsageError, match="built-in"):
        register_encoder("clip", MeanGray, dim=3)
    with pytest.raises(UsageError, match="use letters"):
        register_encoder("my/encoder", MeanGray, dim=3)
    register_encoder("mine", lambda **_: None, dim=3)
    with pytest.raises(UsageError, match="the loader of the encoder mine returned a NoneType"):
        load_encoder("mine")


def test_an_installed_plugin_is_imported_when_a_name_is_unknown(monkeypatch):
    plugin = SimpleNamespace(
        register=lambda: register_encoder("theirs", lambda **_: MeanGray(name="m"), dim=3)
    )
    monkeypatch.setattr(plugins, "import_module", lambda name: plugin.register())
    installed = [SimpleNamespace(module="their.m")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: installed)
    plugins.load_entry_points.cache_clear()
    assert load_encoder("theirs", device="cpu").name == "theirs"
    plugins.load_entry_points.cache_clear()
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    with pytest.raises(UnknownNameError, match="unknown model 'nobodys'"):
        load_encoder("nobodys")


def test_an_encoder_is_accepted_in_place_of_its_name(tiny_clip):
    encoder = MeanGray(name="mine")
    assert as_encoder(encoder) is encoder
    assert as_encoder(tiny_clip, device="cpu").name == "tiny-clip"
    with pytest.raises(UsageError, match="leave out `weights`"):
        as_encoder(encoder, weights=tiny_clip)


def test_an_encoder_is_reloaded_by_name_in_its_precision(tiny_clip):
    spec = load_encoder(tiny_clip, device="cpu", precision="bf16").image_spec
    again = reload_encoder(str(tiny_clip), spec, device="cpu")
    assert again.precision == "bf16"
    older = {**spec, "libraries": {**spec["libraries"], "torch": "1.0"}}
    with pytest.warns(FeaturecacheWarning, match=r"runs/x was made with other .*torch: '1\.0'"):
        reload_encoder("gone", older, model=tiny_clip, device="cpu", source="runs/x")
    with pytest.raises(RunError, match="runs/x was made with another encoder"):
        reload_encoder(str(tiny_clip), {**spec, "weights": []}, device="cpu", source="runs/x")


def test_the_encoders_of_a_cache_must_be_those_of_the_model():
    first = {"model": "a", "libraries": {"torch": "1"}}
    second = {"model": "b"}
    assert check_encoder_specs([first, second], [first, second], source="run") == []
    newer = {"model": "a", "libraries": {"torch": "2"}}
    assert check_encoder_specs([first], [newer], source="run") == ["torch: '1' against '2'"]
    with pytest.raises(RunError, match="run was made with another encoder"):
        check_encoder_specs([first, second], [second, first], source="run")
    with pytest.raises(UsageError, match=r"2 encoders, but `cache` gives 1"):
        check_encoder_specs([first, second], [first], source="run")
