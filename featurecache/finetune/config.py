"""Everything that decides a fine-tuning, in one frozen dataclass, and the published recipes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from featurecache.errors import UnknownNameError, UsageError

Init = Literal["pretrained", "random"]
Objective = Literal["bce", "contrastive"]
HeadKind = Literal["linear", "mlp"]
Optimizer = Literal["adam", "adamw"]
PosWeight = Literal["none", "balanced"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of one fine-tuning; the same settings on the same images give the same encoder.

    Attributes:
        objective: "bce", a head on the image embedding against the labels; or "contrastive",
            images against the captions of their labels.
        trainable: which weights of the encoder move: "all", "vision", "last-N" (blocks of the vision
            tower and what follows them), "lora-R" (adapters of rank R on the vision tower's
            blocks) or "head" (the projections into the joint space alone).
        init: "pretrained", from the model's weights, or "random", from weights that the seed draws
            for the model's architecture.
        train_size: train on this many images, drawn by the seed; None for all.
        head: of "bce": one linear layer, or one hidden layer before it.
        prompts: of "contrastive": the prompt set, by name or file, in whose words the captions are.
        teacher_weight: of the loss against a teacher's embeddings, beside the objective's.
        optimizer: "adam" adds weight decay to the gradient, "adamw" decouples it.
        learning_rate: of the encoder, at its highest.
        head_learning_rate: of the head, at its highest.
        weight_decay: as the optimizer takes it.
        epochs: the most epochs to train.
        batch_size: images a step.
        micro_batch_size: images in memory at once; it changes no gradient.
        patience: epochs without a better validation loss before training stops.
        warmup_ratio: share of all steps over which the learning rate rises, before it falls as a cosine.
        max_grad_norm: the longest a step's gradient may be.
        pos_weight: "balanced" weighs a label's positives by its negatives over its positives.
        augment: whether to rotate, shift, scale and relight training images a little, and to draw
            the template of each caption.
        precision: "bf16" runs the encoder under autocast.
        seed: of every weight that is drawn, the order of images, augmentation and dropout.
    """

    objective: Objective
    trainable: str = "all"
    init: Init = "pretrained"
    train_size: int | None = None
    head: HeadKind = "linear"
    prompts: str = "showing"
    teacher_weight: float = 1.0
    optimizer: Optimizer = "adamw"
    learning_rate: float = 1e-5
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    epochs: int = 10
    batch_size: int = 32
    micro_batch_size: int = 32
    patience: int = 5
    warmup_ratio: float = 0.1
    max_grad_norm: float = 1.0
    pos_weight: PosWeight = "none"
    augment: bool = True
    precision: Precision = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.train_size is not None and self.train_size < 2:
            raise UsageError(f"--train-size {self.train_size}: must be at least 2")
        for option, value, choices in (
            ("objective", self.objective, get_args(Objective)),
            ("init", self.init, get_args(Init)),
            ("head", self.head, get_args(HeadKind)),
            ("optimizer", self.optimizer, get_args(Optimizer)),
            ("loss weight", self.pos_weight, get_args(PosWeight)),
            ("precision", self.precision, get_args(Precision)),
        ):
            if value not in choices:
                raise UnknownNameError(option, value, choices)
        # Written so that NaN, of which every comparison is false, is refused too.
        for name in ("learning_rate", "head_learning_rate", "max_grad_norm", "teacher_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} {getattr(self, name)}: must be finite and positive")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight_decay {self.weight_decay}: must be finite, not negative")
        if not 0 <= self.warmup_ratio < 1:
            raise UsageError(f"warmup_ratio {self.warmup_ratio}: must be at least 0 and below 1")
        for name, least in (
            ("epochs", 1),
            ("batch_size", 2),
            ("micro_batch_size", 1),
            ("patience", 1),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise UsageError(f"{name} {getattr(self, name)}: must be at least {least}")


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
on paediatric films, with a weight decay of its own for the UCSD (Kermany) set."""


def configure(recipe: str | None, given: Mapping[str, Any]) -> FinetuneConfig:
    """The settings of a recipe, with the ones that were given in their places.

    Raises:
        UnknownNameError: there is no such recipe, or a setting has an unknown value.
        UsageError: no objective, or a setting out of its range.
    """
    if recipe is not None and recipe not in RECIPES:
        raise UnknownNameError("recipe", recipe, RECIPES)
    settings = {**(RECIPES[recipe] if recipe else {}), **given}
    if "objective" not in settings:
        raise UsageError("give --objective bce or contrastive, or a --recipe")
    return FinetuneConfig(**settings)
