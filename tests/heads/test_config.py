"""Settings of a head: invalid values are refused by name."""

import math

import pytest
import torch

from featurecache.errors import UnknownNameError, UsageError
from featurecache.heads import precision as module
from featurecache.heads.config import (
    MANY_IMAGES,
    HeadConfig,
    resolve_precision,
    resolve_schedule,
)
from featurecache.heads.precision import faster_precision


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": ()}, "`hidden` is"),
        ({"hidden": (8, 0)}, "`hidden` is"),
        ({"hidden": (8, 16)}, "must not increase"),
        ({"dropout": 1.0}, "`dropout` is 1.0"),
        ({"dropout": -0.1}, "`dropout` is -0.1"),
        ({"dropout": math.nan}, "`dropout` is nan"),
        ({"noise": -1.0}, "`noise` is -1.0"),
        ({"noise": math.nan}, "`noise` is nan"),
        ({"weight_decay": math.inf}, "`weight_decay` is inf"),
        ({"learning_rate": 0.0}, "`learning_rate` is 0.0"),
        ({"learning_rate": math.nan}, "`learning_rate` is nan"),
        ({"learning_rate": math.inf}, "`learning_rate` is inf"),
        ({"epochs": 0}, "`epochs` is 0"),
        ({"batch_size": 1}, "`batch_size` is 1: must be at least 2"),
        ({"patience": 0}, "`patience` is 0"),
        ({"seed": -1}, "`seed` is -1: must be at least 0"),
        ({"train_size": 1}, "`train_size` is 1"),
    ],
)
def test_setting_out_of_range_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        HeadConfig(head="baseline", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_ablation": "permutted"}, "'permutted': did you mean permuted"),
        ({"resample": "undersampel"}, "unknown resample 'undersampel': did you mean undersample"),
        ({"pos_weight": "heavy"}, "'heavy': choose from balanced, none"),
    ],
)
def test_unknown_choice_is_refused_with_valid_ones(settings, message):
    with pytest.raises(UnknownNameError, match=message):
        HeadConfig(head="baseline", **settings)


def test_pos_weight_with_a_loss_that_weights_classes_itself_is_refused():
    with pytest.raises(UsageError, match="weights positives and negatives itself"):
        HeadConfig(head="baseline", loss="asymmetric", pos_weight="balanced")


def test_equal_and_single_hidden_sizes_are_allowed():
    assert HeadConfig(head="baseline", hidden=(16, 16)).hidden == (16, 16)
    assert HeadConfig(head="baseline", hidden=[1]).hidden == (1,)


@pytest.mark.parametrize(
    ("n_images", "few"), [(100, True), (MANY_IMAGES - 1, True), (MANY_IMAGES, False)]
)
def test_schedule_depends_on_number_of_images(n_images, few):
    schedule = resolve_schedule(HeadConfig(head="baseline"), n_images)
    assert (schedule.epochs == 60, schedule.batch_size == 128) == (few, few)


def test_schedule_keeps_given_settings():
    config = HeadConfig(head="baseline", epochs=7, batch_size=9, learning_rate=0.5)
    schedule = resolve_schedule(config, 10**6)
    assert (schedule.epochs, schedule.batch_size, schedule.learning_rate) == (7, 9, 0.5)


@pytest.fixture
def seconds(monkeypatch):
    """Set how long a step takes in fp32 and bf16; return the shapes of the products."""
    shapes = []

    def set_seconds(fp32, bf16):
        def step(inputs, weights):
            shapes.append((tuple(inputs.shape), tuple(weights.shape)))
            return fp32 if inputs.dtype == torch.float32 else bf16

        monkeypatch.setattr(module, "_seconds_of_step", step)
        faster_precision.cache_clear()
        return shapes

    yield set_seconds
    faster_precision.cache_clear()


@pytest.mark.parametrize("flags", [{}, {"avx512_bf16": True}])
@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"), [(2.0, 1.0, "bf16"), (1.0, 2.0, "fp32"), (1.05, 1.0, "fp32")]
)
def test_precision_for_many_images_is_measured(seconds, monkeypatch, flags, fp32, bf16, chosen):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: flags, raising=False)
    shapes = seconds(fp32, bf16)
    config = HeadConfig(head="baseline", batch_size=100)
    assert resolve_precision(config, MANY_IMAGES, layer=(8, 5)) == chosen
    assert set(shapes) == {((100, 8), (5, 8))}
    n_steps = len(shapes)
    resolve_precision(config, MANY_IMAGES, layer=(8, 5))
    assert len(shapes) == n_steps  # once in a process


def test_precision_for_few_images_or_a_given_one_is_not_measured(seconds):
    shapes = seconds(2.0, 1.0)
    config = HeadConfig(head="baseline")
    assert resolve_precision(config, MANY_IMAGES - 1, layer=(8, 5)) == "fp32"
    given = HeadConfig(head="baseline", precision="bf16")
    assert resolve_precision(given, MANY_IMAGES, layer=(8, 5)) == "bf16"
    assert shapes == []
