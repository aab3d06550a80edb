"""The heads there are."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from featurecache.errors import UnknownNameError, UsageError
from featurecache.heads.config import HeadConfig

if TYPE_CHECKING:
    from featurecache.heads.head import Head
    from featurecache.heads.text_features import LabelTexts

UseOfText = Literal["none", "constant", "aligned"]

_COMMON = frozenset(
    {"head", "train_size", "resample", "text_ablation", "prompts", "fusion", "seed"}
)
_GRADIENT = frozenset(
    {
        *("hidden", "dropout", "noise", "learning_rate", "weight_decay", "epochs", "batch_size"),
        *("precision", "patience", "loss", "pos_weight"),
    }
)


@dataclass(frozen=True)
class HeadSpec:
    """One kind of head.

    Attributes:
        name: as given to ``--head``.
        summary: one sentence.
        text: "none"; "constant" where every image is given the same text, which can then say
            nothing of one image that it does not say of another; "aligned" where images are
            compared with each label's text, for which the encoder has to be aligned.
        settings: the fields of ``HeadConfig`` that it heeds, beside those that all heed.
        hidden: its hidden layers where none are given.
        kind: the name of its class, in the module of its own name.
    """

    name: str
    summary: str
    text: UseOfText
    settings: frozenset[str]
    hidden: tuple[int, ...] | None
    kind: str

    @property
    def uses_text(self) -> bool:
        """Whether it needs prompt ensembles."""
        return self.text != "none"

    @property
    def has_epochs(self) -> bool:
        """Whether it is trained by gradient, epoch by epoch."""
        return "epochs" in self.settings

    def build(
        self, dim: int, labels: int, texts: "LabelTexts | None", config: HeadConfig
    ) -> "Head":
        """The head, not trained, for embeddings of ``dim`` and so many labels."""
        if self.uses_text and texts is None:
            raise ValueError(f"the {self.name} head needs text")
        module = import_module(f"featurecache.heads.models.{self.name}")
        head: Head = getattr(module, self.kind)(dim, labels, texts, config)
        return head

    def check(self, config: HeadConfig) -> None:
        """Refuse settings that would change nothing.

        Raises:
            UsageError: one is given that this head does not heed.
        """
        if self.text == "none" and config.text_ablation != "none":
            raise UsageError(
                f"head {self.name!r} uses no text, so --text-ablation {config.text_ablation} would "
                "change nothing: leave it out, or choose a head that uses text"
            )
        if config.resample == "weighted" and not self.has_epochs:
            raise UsageError(
                f"head {self.name!r} looks at every image once, so --resample weighted would change "
                "nothing: leave it out, or give --resample undersample"
            )
        for field in fields(config):
            heeded = field.name in _COMMON | self.settings
            if not heeded and getattr(config, field.name) != field.default:
                option = f"--{field.name.replace('_', '-')}"
                raise UsageError(f"head {self.name!r} has no {option}: leave it out")


_WIDE = (512, 256)
_NONE: frozenset[str] = frozenset()

HEADS: Mapping[str, HeadSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            HeadSpec(
                "baseline",
                "an MLP on the image embedding alone",
                *("none", _GRADIENT, _WIDE, "Baseline"),
            ),
            HeadSpec(
                "concat",
                "an image branch and a text branch, concatenated, then a classifier",
                *("constant", _GRADIENT, _WIDE, "Concat"),
            ),
            HeadSpec(
                "weighted_sum",
                "learned weights add projected text to the image embedding, then an MLP",
                *("constant", _GRADIENT, _WIDE, "WeightedSum"),
            ),
            HeadSpec(
                "text_residual",
                "the zero-shot score, corrected by an MLP on image times label text",
                *("aligned", _GRADIENT, (64,), "TextResidual"),
            ),
            HeadSpec(
                "linear",
                "a logistic probe for each label, its strength chosen on validation",
                *("none", _NONE, None, "Linear"),
            ),
            HeadSpec(
                "lp_plus_plus",
                "a linear probe that starts from class means, with the text score blended in",
                *("aligned", _NONE, None, "LpPlusPlus"),
            ),
            HeadSpec(
                "clap",
                "a linear probe that starts from the texts and is held to them; no validation",
                *("aligned", _NONE, None, "Clap"),
            ),
            HeadSpec(
                "tip_adapter",
                "the zero-shot score plus the labels of similar training images",
                *("aligned", _NONE, None, "TipAdapter"),
            ),
            HeadSpec(
                "knn",
                "the share of positives among the nearest training images",
                *("none", _NONE, None, "Knn"),
            ),
            HeadSpec(
                "prototype",
                "nearer to the mean of a label's positives than to that of its negatives",
                *("none", _NONE, None, "Prototype"),
            ),
            HeadSpec(
                "svm",
                "a linear support vector machine for each label",
                *("none", _NONE, None, "Svm"),
            ),
        )
    }
)


def head_spec(name: str) -> HeadSpec:
    """A head by name.

    Raises:
        UnknownNameError: there is no such head.
    """
    if name not in HEADS:
        raise UnknownNameError("head", name, HEADS)
    return HEADS[name]
