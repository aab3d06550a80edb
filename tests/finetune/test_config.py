"""Settings and recipes of a fine-tuning."""

import pytest

from featurecache.errors import UnknownNameError, UsageError
from featurecache.finetune.config import RECIPES, FinetuneConfig, make_config


def test_recipe_of_clip_on_chestxray14():
    config = make_config("nih-bce", {})
    assert (config.objective, config.optimizer, config.learning_rate, config.epochs) == (
        *("bce", "adam", 1e-4, 15),
    )


@pytest.mark.parametrize(
    ("recipe", "decay"),
    [
        ("pediatric-clip", 1e-5),
        ("pediatric-clip-ucsd", 0.1),
        ("pediatric-medclip", 1e-4),
        ("pediatric-medclip-ucsd", 1e-2),
    ],
)
def test_pediatric_recipes(recipe, decay):
    config = make_config(recipe, {})
    assert (config.objective, config.learning_rate, config.batch_size) == ("contrastive", 1e-5, 256)
    assert (config.epochs, config.patience, config.weight_decay) == (50, 20, decay)


def test_given_settings_override_recipe():
    assert make_config("nih-bce", {"epochs": 3, "learning_rate": 1e-3}).epochs == 3


def test_every_recipe_is_valid():
    for recipe in RECIPES:
        make_config(recipe, {})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "give `objective`, bce or contrastive"),
        ({"objective": "bse"}, "did you mean bce"),
        ({"objective": "bce", "learning_rate": float("nan")}, "learning_rate"),
        ({"objective": "bce", "max_grad_norm": 0}, "max_grad_norm"),
        ({"objective": "bce", "batch_size": 1}, "batch_size"),
        ({"objective": "bce", "warmup_ratio": 1}, "warmup_ratio"),
        ({"objective": "bce", "weight_decay": -1}, "weight_decay"),
        ({"objective": "bce", "seed": -1}, "seed"),
        ({"objective": "bce", "learning_rat": 1}, "learning_rat"),
    ],
)
def test_invalid_settings_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        make_config(None, settings)


def test_unknown_recipe_is_refused():
    with pytest.raises(UnknownNameError, match="did you mean pediatric-clip"):
        make_config("paediatric-clip", {})


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        FinetuneConfig("bce").epochs = 3
