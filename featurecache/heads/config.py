"""The settings of a head's training, and the schedule that follows from them."""

from dataclasses import dataclass
from typing import Literal

from featurecache.errors import UsageError
from featurecache.heads.precision import Precision, faster_precision
from featurecache.settings import check_settings, describe_settings, setting

TextAblation = Literal["none", "permuted", "random", "zero"]
Resample = Literal["none", "undersample", "weighted"]
PosWeight = Literal["none", "balanced"]
Loss = Literal["bce", "asymmetric", "logit_adjusted"]
Fusion = Literal["early", "late"]
BatchNorm = Literal["first", "later", "all", "none"]


@describe_settings
@dataclass(frozen=True)
class HeadConfig:
    """Settings of one training. The same settings on the same cache give the same head.

    Raises:
        UnknownNameError: A setting has none of its allowed values.
        UsageError: A setting is out of range, or two settings exclude each other.
    """

    head: str = setting(help="Name of the head.")
    hidden: tuple[int, ...] | None = setting(
        None,
        help="Sizes of the hidden layers, from first to last, not increasing, such as 512,256. "
        "Default: chosen by the head.",
    )
    batch_norm: BatchNorm = setting(
        "first",
        help="Hidden layers with batch norm: the first, the later ones, all or none.",
    )
    dropout: float = setting(0.3, help="Dropout probability of hidden units.", minimum=0, below=1)
    noise: float = setting(
        0.05,
        help="Standard deviation of Gaussian noise on the standardized embeddings in training.",
        minimum=0,
    )
    learning_rate: float | None = setting(
        None,
        help="Peak learning rate, after one epoch of warmup and before a cosine decay. Default: "
        "chosen by the number of training images.",
        above=0,
    )
    weight_decay: float = setting(1e-2, help="Decoupled weight decay of AdamW.", minimum=0)
    epochs: int | None = setting(
        None,
        help="Maximum number of epochs. Default: chosen by the number of training images.",
        minimum=1,
    )
    batch_size: int | None = setting(
        None,
        help="Images per step. Default: chosen by the number of training images.",
        minimum=2,
    )
    precision: Precision | None = setting(
        None,
        help="Precision of matrix products: fp32 or bf16. Default: bf16 for many training images "
        "if a product of that size is measured to be faster in it, else fp32.",
    )
    patience: int = setting(
        10,
        help="Number of epochs without a lower validation loss after which training stops.",
        minimum=1,
    )
    loss: Loss = setting(
        "bce",
        help="Loss function: bce; asymmetric, for rare findings; or logit_adjusted, for findings "
        "of very different frequency.",
    )
    pos_weight: PosWeight = setting(
        "none",
        help="Weight of positives in the bce loss: none, or balanced for each label's ratio of "
        "negatives to positives.",
    )
    resample: Resample = setting(
        "none",
        help="Balance the labels: undersample trains on equally many images of each label, "
        "weighted samples images of rare labels more often.",
    )
    train_size: int | None = setting(
        None, help="Number of training images to use. Default: all.", minimum=2
    )
    text_ablation: TextAblation = setting(
        "none",
        help="Replace the text embeddings with uninformative ones: permuted across labels, random "
        "or zero.",
    )
    prompts: str | None = setting(
        None, help="Name of the prompt set in the cache. Default: the only one."
    )
    fusion: Fusion = setting(
        "early",
        help="How to combine several encoders: early trains one head on their concatenated "
        "embeddings, late averages the logits of one head per encoder.",
    )
    seed: int = setting(
        0,
        help="Random seed of initial weights, dropout, noise, order and choice of images.",
        minimum=0,
        below=2**63,
    )

    @property
    def normalizes_first(self) -> bool:
        """Whether the first hidden layer has batch norm."""
        return self.batch_norm in ("first", "all")

    @property
    def normalizes_later(self) -> bool:
        """Whether the hidden layers after the first have batch norm."""
        return self.batch_norm in ("later", "all")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.hidden is not None:
            object.__setattr__(self, "hidden", tuple(self.hidden))
            if not self.hidden or min(self.hidden) < 1:
                raise UsageError(f"`hidden` is {self.hidden}: give one or more positive sizes")
            if list(self.hidden) != sorted(self.hidden, reverse=True):
                raise UsageError(f"`hidden` is {self.hidden}: the sizes must not increase")
        if self.loss != "bce" and self.pos_weight != "none":
            raise UsageError(
                f"the {self.loss} loss weights positives and negatives itself: leave out "
                "`pos_weight`"
            )


@dataclass(frozen=True)
class TrainingSchedule:
    """The settings of gradient training that depend on the number of training images.

    Attributes:
        learning_rate: Peak learning rate.
        epochs: Maximum number of epochs.
        batch_size: Images per step.
    """

    learning_rate: float
    epochs: int
    batch_size: int


MANY_IMAGES = 16_384
"""From this number of training images on, training uses all cores and a shorter schedule."""

_FEW = TrainingSchedule(learning_rate=1e-3, epochs=60, batch_size=128)
# The fastest schedule tried on 78,000 synthetic images (benchmarks/heads.py) with which every head
# ranks as well as with 60 epochs of small batches.
_MANY = TrainingSchedule(learning_rate=6e-3, epochs=4, batch_size=1024)


def resolve_schedule(config: HeadConfig, n_images: int) -> TrainingSchedule:
    """Return the schedule for a number of training images.

    Args:
        config: The settings; those that are not None are kept.
        n_images: Number of training images.
    """
    default = _FEW if n_images < MANY_IMAGES else _MANY
    return TrainingSchedule(
        learning_rate=config.learning_rate or default.learning_rate,
        epochs=config.epochs or default.epochs,
        batch_size=config.batch_size or default.batch_size,
    )


def resolve_precision(config: HeadConfig, n_images: int, *, layer: tuple[int, int]) -> Precision:
    """Return the precision of matrix products: for many images, the one measured to be faster.

    Args:
        config: The settings; a precision that is not None is kept.
        n_images: Number of training images.
        layer: Numbers of inputs and of outputs of the largest layer.
    """
    if config.precision is not None or n_images < MANY_IMAGES:
        return config.precision or "fp32"
    return faster_precision(resolve_schedule(config, n_images).batch_size, *layer)
