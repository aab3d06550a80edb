"""The heads there are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from featurecache.errors import UnknownNameError
from featurecache.heads.config import HeadConfig

if TYPE_CHECKING:
    from torch import Tensor

    from featurecache.heads.head import Head


@dataclass(frozen=True)
class HeadSpec:
    """One kind of head.

    Attributes:
        name: as given to ``--head``.
        summary: one sentence.
        uses_text: whether it needs the mega-vector.
        build: (image dim, number of labels, mega-vector or None, settings) to a module that maps
            (B, D) embeddings to (B, C) logits.
    """

    name: str
    summary: str
    uses_text: bool
    build: "Callable[[int, int, Tensor | None, HeadConfig], Head]"


def _baseline(dim: int, labels: int, text: "Tensor | None", config: HeadConfig) -> "Head":
    from featurecache.heads.baseline import Baseline

    return Baseline(dim, labels, config)


def _concat(dim: int, labels: int, text: "Tensor | None", config: HeadConfig) -> "Head":
    from featurecache.heads.concat import Concat

    if text is None:
        raise ValueError("the concat head needs text")
    return Concat(dim, labels, text, config)


def _weighted_sum(dim: int, labels: int, text: "Tensor | None", config: HeadConfig) -> "Head":
    from featurecache.heads.weighted_sum import WeightedSum

    if text is None:
        raise ValueError("the weighted_sum head needs text")
    return WeightedSum(dim, labels, text, config)


HEADS: Mapping[str, HeadSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            HeadSpec("baseline", "an MLP on the image embedding alone", False, _baseline),
            HeadSpec(
                "concat",
                "an image branch and a text branch, concatenated, then a classifier",
                True,
                _concat,
            ),
            HeadSpec(
                "weighted_sum",
                "learned weights add projected text to the image embedding, then an MLP",
                True,
                _weighted_sum,
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
