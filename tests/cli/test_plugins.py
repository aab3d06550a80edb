"""Encoders, data sets and heads that a user registers work with commands."""

import sys
from types import SimpleNamespace

import pytest

from featurecache import plugins
from featurecache.datasets import registry as datasets
from featurecache.encoders import registry as encoders
from featurecache.heads import registry as heads

PLUGIN = """
import numpy as np
import featurecache as fc
from featurecache.heads.models.prototype import Prototype

class GrayLevels(fc.Encoder):
    dim = 2
    image_spec = {"gray levels": 1}

    def preprocess(self, image):
        return np.asarray(image.convert("L"), np.float32)[None] / 255

    def embed_pixels(self, pixels):
        return np.concatenate([pixels.mean(axis=(2, 3)), pixels.std(axis=(2, 3))], axis=1)

def load_ward(root, **options):
    return fc.load_dataset("csv", root, labels=["Opacity"], patient="patient", split="split")

fc.register_encoder("gray-levels", lambda **_: GrayLevels(name="gray-levels"), dim=2)
fc.register_dataset("ward", load_ward, description="images of our ward")
fc.register_head("lab-prototype", Prototype, summary="nearest class mean")
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Write a plugin into the current folder; undo its import."""
    (tmp_path / "lab_plugin.py").write_text(PLUGIN)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "lab_plugin"
    sys.modules.pop("lab_plugin", None)


def test_plugin_module_in_the_current_folder(run, plugin, image_folder):
    use = ("--plugin", plugin)
    extracted = run(
        *(*use, "extract", "--model", "gray-levels"),
        *("--dataset", "ward", "--data-root", image_folder / "xrays.csv", "--json"),
    )
    assert extracted.code == 0, extracted.stderr
    assert extracted.json[0]["done"] == 60
    trained = run(*use, "train-head", "--head", "lab-prototype", "--n-bootstrap", 0, "--json")
    assert trained.code == 0, trained.stderr
    assert trained.json["macro"]["auroc"] > 0.8  # opacities are brighter
    predicted = run(*use, "predict", trained.json["run"], image_folder / "image-000.png")
    assert predicted.code == 0, predicted.stderr


def test_plugins_are_listed(run, plugin):
    for command, name in (
        ("models", "gray-levels"),
        ("datasets", "ward"),
        ("heads", "lab-prototype"),
    ):
        assert name not in [entry["name"] for entry in run(command, "--json").json]
        listed = run("--plugin", plugin, command, "--json").json
        assert name in [entry["name"] for entry in listed]
        sys.modules.pop(plugin)
        encoders._encoders.pop("gray-levels")
        encoders._loaders.pop("gray-levels")
        datasets._specs.pop("ward")
        heads._HEADS.pop("lab-prototype")


def test_installed_plugin_is_loaded(run, plugin, monkeypatch, image_folder):
    def entry_points(*, group):
        assert group == "featurecache.plugins"
        return [SimpleNamespace(module=plugin)]

    monkeypatch.syspath_prepend(".")
    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    plugins.load_entry_points.cache_clear()
    try:
        outcome = run(
            *("extract", "--model", "gray-levels", "--limit", 3, "--json"),
            *("--dataset", "ward", "--data-root", image_folder / "xrays.csv"),
        )
        assert outcome.code == 0, outcome.stderr
        assert outcome.json[0]["done"] == 3
        assert "lab-prototype" in run("heads").stdout
    finally:
        plugins.load_entry_points.cache_clear()


def test_missing_plugin_is_refused(run):
    outcome = run("--plugin", "no_such_plugin", "models")
    assert outcome.code == 2
    assert "error: the plugin no_such_plugin cannot be imported" in outcome.stderr
    assert outcome.stdout == ""
