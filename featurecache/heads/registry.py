"""The registry of heads: the built-in ones and those that users register."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from featurecache.errors import UnknownNameError, UsageError
from featurecache.heads.config import HeadConfig
from featurecache.plugins import load_entry_points

if TYPE_CHECKING:
    from featurecache.heads.text_features import LabelTexts
    from featurecache.heads.types import Head

TextUse = Literal["none", "constant", "aligned"]
"""How a head uses text: not at all; the same text for every image, so that it cannot distinguish
images; or by comparing images with each label's text, which needs an aligned encoder."""

HeadFactory = Callable[[int, int, Any, HeadConfig], "Head"]
"""Builds a head from the dimension of embeddings, or of tokens, the number of labels, the labels'
texts (a ``LabelTexts``, or None if the head uses no text) and the settings."""

GRADIENT_SETTINGS = frozenset(
    {
        *("hidden", "dropout", "noise", "learning_rate", "weight_decay", "epochs", "batch_size"),
        *("precision", "patience", "loss", "pos_weight"),
    }
)
"""Settings of a head that subclasses ``GradientHead``."""

_MLP_SETTINGS = GRADIENT_SETTINGS | {"batch_norm"}
"""Settings of the MLPs, with and without text, that share their layers."""

_COMMON_SETTINGS = frozenset(
    {"head", "train_size", "resample", "text_ablation", "prompts", "fusion", "seed"}
)


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """One registered head.

    Attributes:
        name: Name of the head.
        summary: What it computes, in one phrase.
        factory: Builds it; None for a built-in head, whose class is in the module of its name.
        text: How it uses text.
        settings: The fields of ``HeadConfig`` that it uses in addition to those that apply to all
            heads.
        hidden: Default sizes of its hidden layers.
        takes_tokens: Whether it takes the tokens of an image, and not one vector.
    """

    name: str
    summary: str
    factory: HeadFactory | None = None
    text: TextUse = "none"
    settings: frozenset[str] = frozenset()
    hidden: tuple[int, ...] | None = None
    takes_tokens: bool = False

    @property
    def uses_text(self) -> bool:
        """Whether it needs text embeddings."""
        return self.text != "none"

    @property
    def has_epochs(self) -> bool:
        """Whether it is trained in epochs."""
        return "epochs" in self.settings

    def build(
        self, dim: int, labels: int, texts: "LabelTexts | None", config: HeadConfig
    ) -> "Head":
        """Return the untrained head.

        Args:
            dim: Dimension of the embeddings, or of each token.
            labels: Number of labels, C.
            texts: Text embeddings of the labels; needed by a head that uses text.
            config: The settings.

        Raises:
            ValueError: The head uses text and there is none.
        """
        if self.uses_text and texts is None:
            raise ValueError(f"the {self.name} head needs text")
        factory = self.factory
        if factory is None:  # imported on use, since torch takes a second to import
            module = import_module(f"featurecache.heads.models.{self.name}")
            factory = getattr(module, self.name.title().replace("_", ""))
        head: Head = factory(dim, labels, texts, config)
        return head

    def check(self, config: HeadConfig) -> None:
        """Refuse settings that would have no effect on this head.

        Raises:
            UsageError: A setting differs from its default, and the head does not use it.
        """
        if not self.uses_text and config.text_ablation != "none":
            raise UsageError(
                f"head {self.name!r} uses no text, so `text_ablation` would have no effect: leave "
                "it out, or choose a head that uses text"
            )
        if config.resample == "weighted" and not self.has_epochs:
            raise UsageError(
                f"head {self.name!r} is fitted on each image once, so weighted `resample` would "
                "have no effect: leave it out, or use undersample"
            )
        for field in fields(config):
            used = field.name in _COMMON_SETTINGS | self.settings
            if not used and getattr(config, field.name) != field.default:
                raise UsageError(f"head {self.name!r} has no `{field.name}`: leave it out")


_mlp = partial(HeadSpec, settings=_MLP_SETTINGS, hidden=(512, 256))

_HEADS = {
    spec.name: spec
    for spec in (
        _mlp(name="baseline", summary="an MLP on the image embedding alone"),
        _mlp(
            name="concat",
            text="constant",
            summary="an image branch and a text branch, concatenated, then a classifier",
        ),
        _mlp(
            name="weighted_sum",
            text="constant",
            summary="learned weights add projected text to the image embedding, then an MLP",
        ),
        HeadSpec(
            name="text_residual",
            settings=GRADIENT_SETTINGS,
            text="aligned",
            summary="the zero-shot score, corrected by an MLP on image times label text",
            hidden=(64,),
        ),
        HeadSpec(
            name="linear",
            summary="logistic regression, each label shrunk towards that of any finding",
        ),
        HeadSpec(
            name="lp_plus_plus",
            text="aligned",
            summary="a linear probe that starts from class means, blended with the text score",
        ),
        HeadSpec(
            name="clap",
            text="aligned",
            summary="a linear probe that starts from the texts and is kept near them; needs no "
            "validation",
        ),
        HeadSpec(
            name="tip_adapter",
            text="aligned",
            summary="the zero-shot score plus the labels of similar training images",
        ),
        HeadSpec(name="knn", summary="the fraction of positives among the nearest training images"),
        HeadSpec(
            name="prototype",
            summary="the similarity to the mean of a label's positives minus that of its negatives",
        ),
        HeadSpec(
            name="attentive",
            settings=GRADIENT_SETTINGS,
            summary="a learned query per label over the tokens of an image",
            hidden=(128,),
            takes_tokens=True,
        ),
        HeadSpec(name="svm", summary="a linear support vector machine per label"),
    )
}
_BUILT_IN = frozenset(_HEADS)

HEADS: Mapping[str, HeadSpec] = MappingProxyType(_HEADS)
"""All registered heads by name."""


def register_head(
    name: str,
    factory: HeadFactory,
    *,
    summary: str = "",
    text: TextUse = "none",
    settings: Iterable[str] = (),
    takes_tokens: bool = False,
) -> None:
    """Register a head of your own under a name, for ``train_head`` and the command line.

    Saved runs of it can be loaded wherever it is registered. To have it registered in every
    process, name the module that calls this function in the entry point group
    ``featurecache.plugins`` of your package.

    Args:
        name: Name of the head; registering a name again replaces the earlier head, except for
            built-in heads.
        factory: A subclass of ``Head``, or a function that returns one. It is called with the
            dimension of the embeddings, the number of labels, the labels' texts (None if ``text``
            is "none") and the ``HeadConfig``.
        summary: What the head computes, in one phrase.
        text: "none"; "constant" if every image gets the same text; or "aligned" if images are
            compared with each label's text.
        settings: The fields of ``HeadConfig`` that it uses, such as ``GRADIENT_SETTINGS``; others
            are refused unless they apply to all heads.
        takes_tokens: Whether it takes the tokens of an image, (B, T, D), and not one vector.

    Raises:
        UsageError: The name is not usable or belongs to a built-in head, or a setting is unknown.

    Example:
        >>> import featurecache as fc
        >>> from featurecache.heads.models.prototype import Prototype
        >>> fc.register_head("my_prototype", Prototype, summary="nearest class mean")
    """
    if not name.replace("-", "_").isidentifier():
        raise UsageError(f"`name` is {name!r}: use letters, digits, - and _")
    if name in _BUILT_IN:
        raise UsageError(f"{name!r} is a built-in head: choose another `name`")
    if text not in get_args(TextUse):
        raise UnknownNameError("use of text", text, get_args(TextUse))
    settings, valid = frozenset(settings), {field.name for field in fields(HeadConfig)}
    for setting in settings - valid:
        raise UnknownNameError("setting", setting, valid)
    _HEADS[name] = HeadSpec(
        name=name,
        summary=summary,
        factory=factory,
        text=text,
        settings=settings,
        takes_tokens=takes_tokens,
    )


def head_spec(name: str) -> HeadSpec:
    """Return a registered head, looking for it in installed plugins if need be.

    Raises:
        UnknownNameError: There is no such head.
        UsageError: An installed plugin cannot be imported.
    """
    if name not in _HEADS:
        load_entry_points()
    if name not in _HEADS:
        raise UnknownNameError("head", name, HEADS)
    return _HEADS[name]
