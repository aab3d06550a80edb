"""The registry of heads, and heads that users register."""

import numpy as np
import pytest

from featurecache.errors import RunError, UnknownNameError, UsageError
from featurecache.heads import registry
from featurecache.heads.io import load_model
from featurecache.heads.models.baseline import Baseline
from featurecache.heads.models.prototype import Prototype
from featurecache.heads.registry import GRADIENT_SETTINGS, HEADS, head_spec, register_head
from featurecache.heads.train import train_head


class Tilted(Prototype):
    """A head of a user, which differs from the built-in one in its scores."""

    def scores(self, unit):
        return super().scores(unit) + unit[:, :1]


def test_registered_head_is_trained_saved_and_loaded(cache, tmp_path):
    register_head("tilted", Tilted, summary="a tilted prototype")
    run = train_head(cache, "tilted", n_bootstrap=0, controls=False)
    folder = run.save(tmp_path / "run")
    model = load_model(folder)
    assert type(model.module) is Tilted
    probabilities = run.model.probabilities(cache.embedding)
    assert np.array_equal(model.probabilities(cache.embedding), probabilities)
    built_in = train_head(cache, "prototype", n_bootstrap=0, controls=False)
    assert not np.allclose(built_in.model.probabilities(cache.embedding), probabilities)


def test_run_of_an_unregistered_head_is_refused(cache, tmp_path):
    register_head("tilted", Tilted)
    folder = train_head(cache, "tilted", n_bootstrap=0, controls=False).save(tmp_path / "run")
    del registry._HEADS["tilted"]
    with pytest.raises(RunError, match="unknown head 'tilted'"):
        load_model(folder)


def test_registered_head_accepts_its_settings_only(cache):
    def build(dim, labels, texts, config):
        return Baseline(dim, labels, texts, config)

    register_head("mine", build, settings=GRADIENT_SETTINGS - {"loss"})
    arguments = {"hidden": (4,), "epochs": 1, "n_bootstrap": 0, "controls": False}
    assert len(train_head(cache, "mine", **arguments).history) == 1
    with pytest.raises(UsageError, match="head 'mine' has no `loss`"):
        train_head(cache, "mine", loss="asymmetric", **arguments)


def test_registering_again_replaces_the_head():
    register_head("mine", Prototype, summary="first")
    register_head("mine", Tilted, summary="second")
    assert (HEADS["mine"].factory, HEADS["mine"].summary) == (Tilted, "second")


def test_built_in_head_cannot_be_replaced():
    with pytest.raises(UsageError, match="'linear' is a built-in head"):
        register_head("linear", Prototype)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "1st"])
def test_unusable_name_is_refused(name):
    with pytest.raises(UsageError, match="use letters"):
        register_head(name, Prototype)


def test_unknown_setting_or_use_of_text_is_refused():
    with pytest.raises(UnknownNameError, match="unknown setting 'epoch': did you mean epochs"):
        register_head("mine", Prototype, settings=["epoch"])
    with pytest.raises(UnknownNameError, match="did you mean aligned"):
        register_head("mine", Prototype, text="aligend")


def test_unknown_head_is_refused_with_the_nearest_after_loading_plugins(monkeypatch):
    loaded = []
    monkeypatch.setattr(
        "featurecache.heads.registry.load_entry_points", lambda: loaded.append(True)
    )
    with pytest.raises(UnknownNameError, match="unknown head 'weighted-sum': did you mean weighte"):
        head_spec("weighted-sum")
    assert loaded == [True]


def test_plugin_registers_an_unknown_head(monkeypatch):
    monkeypatch.setattr(registry, "load_entry_points", lambda: register_head("tilted", Tilted))
    assert head_spec("tilted").factory is Tilted
