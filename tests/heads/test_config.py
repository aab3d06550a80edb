"""Settings that make no head are refused, naming the setting."""

import math

import pytest

from featurecache.errors import UnknownNameError, UsageError
from featurecache.heads.config import HeadConfig


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"hidden": ()}, "hidden layers"),
        ({"hidden": (8, 0)}, "hidden layers"),
        ({"hidden": (8, 16)}, "must not increase"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"dropout": -0.1}, "dropout -0.1"),
        ({"dropout": math.nan}, "dropout nan"),
        ({"noise": -1.0}, "noise -1.0"),
        ({"noise": math.nan}, "noise nan"),
        ({"weight_decay": math.inf}, "weight_decay inf"),
        ({"learning_rate": 0.0}, "learning rate 0.0"),
        ({"learning_rate": math.nan}, "learning rate nan"),
        ({"learning_rate": math.inf}, "learning rate inf"),
        ({"epochs": 0}, "epochs 0"),
        ({"batch_size": 1}, "batch_size 1: must be at least 2"),
        ({"patience": 0}, "patience 0"),
        ({"seed": -1}, "seed -1: must be at least 0"),
        ({"train_size": 1}, "--train-size 1"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(UsageError, match=message):
        HeadConfig(head="baseline", **setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"text_ablation": "permutted"}, "unknown text control 'permutted': did you mean permuted"),
        ({"resample": "undersampel"}, "unknown resample 'undersampel': did you mean undersample"),
        ({"pos_weight": "heavy"}, "unknown loss weight 'heavy': known: balanced, none"),
    ],
)
def test_an_unknown_choice_is_answered_with_the_known_ones(setting, message):
    with pytest.raises(UnknownNameError, match=message):
        HeadConfig(head="baseline", **setting)


def test_equal_and_single_hidden_sizes_are_allowed():
    assert HeadConfig(head="baseline", hidden=(16, 16)).hidden == (16, 16)
    assert HeadConfig(head="baseline", hidden=(1,)).hidden == (1,)
