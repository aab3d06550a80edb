"""All settings of a fine-tuning in one frozen dataclass, and published settings as recipes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from featurecache.errors import UnknownNameError, UsageError
from featurecache.prompts import PROMPT_SETS, PromptSet
from featurecache.settings import check_names, check_settings, describe_settings, setting

KIND = "finetune"
"""The kind of run."""

Init = Literal["pretrained", "random"]
ObjectiveName = Literal["bce", "contrastive"]
HeadKind = Literal["linear", "mlp"]
Optimizer = Literal["adam", "adamw"]
PosWeight = Literal["none", "balanced"]
Precision = Literal["fp32", "bf16"]


@describe_settings
@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of one fine-tuning; the same settings on the same images give the same encoder.

    Raises:
        UnknownNameError: A setting has none of the values that its type allows.
        UsageError: A number is out of its range.
    """

    objective: ObjectiveName = setting(
        help="Training objective, a head on the labels or images against their captions."
    )
    trainable: str = setting(
        "all",
        help="Weights of the encoder to train: all, vision, last-N (blocks of the vision tower), "
        "lora-R (adapters of rank R) or head (the projections into the joint space).",
    )
    init: Init = setting(
        "pretrained",
        help="Initial weights; with random ones a model folder needs no weights.",
    )
    train_size: int | None = setting(
        None, help="Number of training images, sampled with the seed. Default: all.", minimum=2
    )
    head: HeadKind = setting("linear", help="Head of bce, linear or with one hidden layer.")
    prompts: str = setting(
        "showing", help="Prompt set of the captions of contrastive: a name or a file."
    )
    teacher_weight: float = setting(
        1.0, help="Weight of the loss against the teacher's embeddings.", above=0
    )
    optimizer: Optimizer = setting("adamw", help="Optimizer; weight decay is decoupled in adamw.")
    learning_rate: float = setting(1e-5, help="Peak learning rate of the encoder.", above=0)
    head_learning_rate: float = setting(1e-3, help="Peak learning rate of the head.", above=0)
    weight_decay: float = setting(0.01, help="Weight decay.", minimum=0)
    epochs: int = setting(10, help="Maximum number of epochs.", minimum=1)
    batch_size: int = setting(32, help="Images per step.", minimum=2)
    micro_batch_size: int = setting(
        32, help="Images in memory at once; does not change the gradient.", minimum=1
    )
    patience: int = setting(
        5, help="Epochs without a better validation loss before training stops.", minimum=1
    )
    warmup_ratio: float = setting(
        0.1,
        help="Share of the steps over which the learning rate rises, before it falls as a cosine.",
        minimum=0,
        below=1,
    )
    max_grad_norm: float = setting(1.0, help="Norm to which gradients are clipped.", above=0)
    pos_weight: PosWeight = setting(
        "none", help="Weighting of positives in bce, where balanced is negatives / positives."
    )
    augment: bool = setting(
        True,
        help="Rotate, shift and scale training images slightly, change their brightness, and "
        "choose the template of each caption at random.",
    )
    precision: Precision = setting("fp32", help="Precision of the encoder; bf16 is autocast.")
    seed: int = setting(
        0,
        help="Seed of initial weights, order of images, augmentation and dropout.",
        minimum=0,
        below=2**63,
    )

    def __post_init__(self) -> None:
        check_settings(self)


_PEDIATRIC: Mapping[str, Any] = MappingProxyType(
    {
        "objective": "contrastive",
        "prompts": "lungs",
        "optimizer": "adam",
        "learning_rate": 1e-5,
        "batch_size": 256,
        "epochs": 50,
        "patience": 20,
        "warmup_ratio": 0.0,
    }
)

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "nih-bce": MappingProxyType(
            {
                "objective": "bce",
                "optimizer": "adam",
                "learning_rate": 1e-4,
                "head_learning_rate": 1e-4,
                "weight_decay": 0.0,
                "epochs": 15,
            }
        ),
        "pediatric-clip": MappingProxyType({**_PEDIATRIC, "weight_decay": 1e-5}),
        "pediatric-clip-ucsd": MappingProxyType({**_PEDIATRIC, "weight_decay": 0.1}),
        "pediatric-medclip": MappingProxyType({**_PEDIATRIC, "weight_decay": 1e-4}),
        "pediatric-medclip-ucsd": MappingProxyType({**_PEDIATRIC, "weight_decay": 1e-2}),
    }
)
"""Published settings by name. ``nih-bce``: CLIP on ChestX-ray14. ``pediatric-*``: CLIP and MedCLIP
on pediatric images, with a weight decay of its own for the UCSD (Kermany) data set."""


def make_config(recipe: str | None, settings: Mapping[str, Any]) -> FinetuneConfig:
    """Return the settings of a recipe, overridden by the given ones.

    Args:
        recipe: A name in ``RECIPES``; None for the defaults.
        settings: Fields of ``FinetuneConfig``; None stands for a field that was not given.

    Raises:
        UnknownNameError: There is no such recipe or setting, or a setting has an unknown value.
        UsageError: There is no objective, or a number is out of its range.
    """
    if recipe is not None and recipe not in RECIPES:
        raise UnknownNameError("recipe", recipe, RECIPES)
    given = {name: value for name, value in settings.items() if value is not None}
    merged = {**(RECIPES[recipe] if recipe else {}), **given}
    if "objective" not in merged:
        raise UsageError("give `objective`, bce or contrastive, or a `recipe`")
    check_names(FinetuneConfig, merged)
    if "prompts" in merged:
        merged["prompts"] = _recordable(merged["prompts"])
    return FinetuneConfig(**merged)


def _recordable(prompts: str | os.PathLike[str] | PromptSet) -> str:
    """Return what a run folder records, and later loads, a prompt set by."""
    if not isinstance(prompts, PromptSet):
        return os.fspath(prompts)
    if PROMPT_SETS.get(prompts.name) != prompts:
        raise UsageError(
            f"the prompt set {prompts.name!r} is not built in: write it to a .json or .toml file "
            "and give its path as `prompts`, which the run records"
        )
    return prompts.name
