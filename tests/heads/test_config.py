"""Settings of a head: invalid values are refused by name."""

import math

import pytest

from featurecache.errors import UnknownNameError, UsageError
from featurecache.heads.config import MANY_IMAGES, HeadConfig, resolve_schedule


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
