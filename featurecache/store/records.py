"""What a cache holds, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.store.layout import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd

Utf8 = NDArray[np.bytes_]
"""Strings as they lie in a cache file, UTF-8 of one width: numpy's own take four times as much.
Their order is that of the strings."""

BLOCK_STRINGS = 65_536
"""Strings that lie in memory in another form at a time."""

NON_FINITE_EMBEDDING = "its embedding is not finite in float16, or is all zero"


@dataclass(frozen=True)
class ImageTable:
    """One row per cached image, ordered by id. All arrays have N rows."""

    id: Utf8
    sha256: Utf8
    patient: Utf8
    split: Utf8
    view: Utf8
    """Empty where not known; so are ``sex`` and ``age``."""
    sex: Utf8
    age: Utf8
    """In years."""
    size: NDArray[np.int64]
    """Bytes of the file, and beside it ``mtime_ns``: they tell cheaply that a file has changed."""
    mtime_ns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class Labels:
    """Label names (C,) and values (N, C) int8: 1, 0, -1 unknown."""

    names: tuple[str, ...]
    values: NDArray[np.int8]

    def to_float(self, rows: "NDArray[np.intp] | slice" = slice(None)) -> NDArray[np.float32]:
        """Return the values of these rows as (n, C) float32, NaN where unknown."""
        values = self.values[rows].astype(np.float32)
        values[values == UNKNOWN] = np.nan
        return values


@dataclass(frozen=True)
class TextEmbeddings:
    """The prompts of C labels and what they mean: K texts a label, D values a text, float32."""

    prompts: tuple[tuple[str, ...], ...]
    embedding: NDArray[np.float32]
    ensemble: NDArray[np.float32]


@dataclass(frozen=True)
class TextSet:
    """One prompt set, encoded: ``/text/<name>``."""

    name: str
    fingerprint: str
    templates: tuple[str, ...]
    labels: tuple[str, ...]
    positive: TextEmbeddings
    negative: TextEmbeddings | None
    aligned: bool
    """Whether the texts share the images' space, so that their cosines mean something."""
    scale: float | None
    bias: float | None
    encoder: Mapping[str, Any] | None = None
    """Everything that decides a text's embedding; None in files of before, until extract runs."""

    def select(self, labels: tuple[str, ...]) -> "TextSet":
        """The same set for these labels, in this order.

        Raises:
            CacheError: a label has no prompts in this set.
        """
        if labels == self.labels:
            return self
        if missing := [label for label in labels if label not in self.labels]:
            raise CacheError(
                f"prompt set {self.name!r} in the cache has no text for label {missing[0]!r}: "
                f"run extract again with --prompts {self.name}"
            )
        rows = [self.labels.index(label) for label in labels]

        def pick(texts: TextEmbeddings) -> TextEmbeddings:
            prompts = tuple(texts.prompts[row] for row in rows)
            return TextEmbeddings(prompts, texts.embedding[rows], texts.ensemble[rows])

        return replace(
            self,
            labels=labels,
            positive=pick(self.positive),
            negative=None if self.negative is None else pick(self.negative),
        )


@dataclass(frozen=True)
class Header:
    """What a cache is about."""

    model: str
    dataset: str
    notes: tuple[str, ...]
    image_level_split: bool
    """True where images of one patient may lie in two splits, so that scores are optimistic."""
    exposed: bool
    """True where the encoder's published training may have seen these images."""
    encoder_spec: Mapping[str, Any]
    """Everything that decides an image's embedding; its fingerprint is the cache's."""
    collection: str
    """The published films that the images are of: data sets of one collection share ids."""
    trained_on: Mapping[str, frozenset[str]] = field(repr=False)
    """Of each collection, the images that the encoder was fine-tuned on."""
    bf16_cosine: float | None = None
    """The least cosine between embeddings in bf16 and in fp32, where it chose the precision."""
    revision: str | None = None
    """The commit of the hub's repository that the weights came from, where they did."""


def to_utf8(strings: "Sequence[Any] | NDArray[np.str_] | pd.Series[str]") -> Utf8:
    """Strings, or rows of strings, as a cache file holds them."""
    blocks = [
        np.char.encode(np.asarray(strings[start : start + BLOCK_STRINGS], dtype=np.str_), "utf-8")
        for start in range(0, len(strings), BLOCK_STRINGS)
    ]
    return np.concatenate(blocks) if blocks else np.empty(0, dtype="S1")


def from_utf8(strings: Utf8) -> NDArray[np.str_]:
    """The strings as numpy's own, of the same shape."""
    decoded: NDArray[np.str_] = np.char.decode(strings, "utf-8")
    return decoded


def positions(ids: Utf8, wanted: Utf8) -> NDArray[np.intp]:
    """Where each of the wanted ids is among the sorted ones, -1 where it is not."""
    if len(ids) == 0:
        return np.full(len(wanted), -1, dtype=np.intp)
    at = np.searchsorted(ids, wanted)
    at[at == len(ids)] = 0
    at[ids[at] != wanted] = -1
    return at


def to_float16_checked(
    embedding: NDArray[np.float32],
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Embeddings (B, D) as a cache stores them, and which of them it would store.

    float16 ends at 65504: what lies beyond is not stored as infinite, and a row of zeros, which
    has no direction, is not stored either.
    """
    with np.errstate(over="ignore"):
        half = embedding.astype(np.float16)
    usable: NDArray[np.bool_] = np.logical_and(np.isfinite(half).all(axis=1), half.any(axis=1))
    return half, usable
