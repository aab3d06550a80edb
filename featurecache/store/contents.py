"""What a cache holds, as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError

Strings = NDArray[np.str_]

UNSTORABLE = "its embedding is not finite in float16, or is all zero"


@dataclass(frozen=True)
class ImageTable:
    """One row per cached image, ordered by id. All arrays have N rows."""

    id: Strings
    sha256: Strings
    patient: Strings
    split: Strings
    view: Strings
    """Empty where not known; so are ``sex`` and ``age``."""
    sex: Strings
    age: Strings
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

        return TextSet(
            name=self.name,
            fingerprint=self.fingerprint,
            templates=self.templates,
            labels=labels,
            positive=pick(self.positive),
            negative=None if self.negative is None else pick(self.negative),
            aligned=self.aligned,
            scale=self.scale,
            bias=self.bias,
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
    description: Mapping[str, Any]
    """Everything that decides an image's embedding; its fingerprint is the cache's."""
    collection: str
    """The published films that the images are of: data sets of one collection share ids."""
    trained_on: Mapping[str, frozenset[str]]
    """Of each collection, the images that the encoder was fine-tuned on."""
    bf16_cosine: float | None = None
    """The least cosine between embeddings in bf16 and in fp32, where it chose the precision."""


def to_storable(
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
