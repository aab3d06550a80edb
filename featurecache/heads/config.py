"""Everything that decides how a head is trained, in one frozen dataclass."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from featurecache.device import has_fast_bf16
from featurecache.errors import UnknownNameError, UsageError

TextAblation = Literal["none", "permuted", "random", "zero"]
Resample = Literal["none", "undersample", "weighted"]
PosWeight = Literal["none", "balanced"]
Precision = Literal["fp32", "bf16"]
Loss = Literal["bce", "asymmetric", "logit_adjusted"]
Fusion = Literal["early", "late"]


@dataclass(frozen=True)
class HeadConfig:
    """Settings of one training; the same settings on the same cache give the same head.

    Attributes:
        head: a name in ``HEADS``.
        hidden: units of the hidden layers, decreasing; None for what suits the head.
        dropout: probability of dropping a hidden unit.
        noise: standard deviation of the Gaussian noise on standardised inputs, in training only.
        learning_rate: Adam's, at its highest; it warms up over one epoch, then falls as a cosine.
            None, as for epochs and batch size: as suits the number of training rows, see
            ``resolve_schedule``.
        weight_decay: decoupled (AdamW).
        epochs: the most epochs to train.
        batch_size: rows a step.
        precision: of the matrix products; None for bf16 where rows are many and the processor has
            instructions for it, else fp32.
        patience: epochs without a better validation loss before training stops.
        loss: what is minimised; see ``featurecache.losses``.
        pos_weight: "balanced" weighs a label's positives by its negatives over its positives.
        resample: "undersample" trains on as many rows of each label; "weighted" draws them that often.
        train_size: train on this many rows; None for all.
        text_ablation: real text, or text that can carry no meaning (see ``text.py``).
        prompts: the prompt set in the cache; None for the only one.
        fusion: of several caches, "early" trains one head on their embeddings side by side,
            "late" one on each and takes the mean of their logits; the same for a single cache.
        seed: 0 or more; of initial weights, dropout, noise, order, and the choice of rows.
    """

    head: str
    hidden: tuple[int, ...] | None = None
    dropout: float = 0.3
    noise: float = 0.05
    learning_rate: float | None = None
    weight_decay: float = 1e-2
    epochs: int | None = None
    batch_size: int | None = None
    precision: Precision | None = None
    patience: int = 10
    loss: Loss = "bce"
    pos_weight: PosWeight = "none"
    resample: Resample = "none"
    train_size: int | None = None
    text_ablation: TextAblation = "none"
    prompts: str | None = None
    fusion: Fusion = "early"
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, choices in (
            ("text control", self.text_ablation, get_args(TextAblation)),
            ("resample", self.resample, get_args(Resample)),
            ("loss", self.loss, get_args(Loss)),
            ("loss weight", self.pos_weight, get_args(PosWeight)),
            ("precision", self.precision or "fp32", get_args(Precision)),
            ("way to fusion", self.fusion, get_args(Fusion)),
        ):
            if value not in choices:
                raise UnknownNameError(option, value, choices)
        if self.hidden is not None:
            if not self.hidden or min(self.hidden) < 1:
                raise UsageError(f"hidden layers {self.hidden}: give one or more positive sizes")
            if list(self.hidden) != sorted(self.hidden, reverse=True):
                raise UsageError(f"hidden layers {self.hidden}: their sizes must not increase")
        if self.loss != "bce" and self.pos_weight != "none":
            raise UsageError(
                f"--loss {self.loss} weighs positives and negatives itself: leave out --pos-weight"
            )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout {self.dropout}: must be at least 0 and below 1")
        # Written so that NaN, of which every comparison is false, is refused too.
        for name in ("noise", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} {getattr(self, name)}: must be finite and not negative")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning rate {self.learning_rate}: must be finite and positive")
        for name, least in (("epochs", 1), ("batch_size", 2), ("patience", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} {value}: must be at least {least}")
        if self.train_size is not None and self.train_size < 2:
            raise UsageError(f"--train-size {self.train_size}: a head needs at least 2 images")


@dataclass(frozen=True)
class TrainingSchedule:
    """How fast a head learns.

    Attributes:
        learning_rate: at its highest.
        epochs: at most.
        batch_size: rows a step.
        precision: of the matrix products.
    """

    learning_rate: float
    epochs: int
    batch_size: int
    precision: Precision


MANY_ROWS = 16_384
_FEW = TrainingSchedule(learning_rate=1e-3, epochs=60, batch_size=128, precision="fp32")
_MANY = TrainingSchedule(learning_rate=6e-3, epochs=4, batch_size=1024, precision="bf16")
"""Of what was tried on 78,000 synthetic rows (benchmarks/heads.py), the fastest with which every
head ranks as well as one trained in the usual way."""


def resolve_schedule(config: HeadConfig, rows: int) -> TrainingSchedule:
    """The settings of a training on so many rows: those given, and what suits for the others."""
    usual = _FEW if rows < MANY_ROWS else _MANY
    precision = usual.precision if has_fast_bf16("cpu") else "fp32"
    return TrainingSchedule(
        learning_rate=config.learning_rate or usual.learning_rate,
        epochs=config.epochs or usual.epochs,
        batch_size=config.batch_size or usual.batch_size,
        precision=config.precision or precision,
    )
