"""Several caches of the same images, seen as one whose embeddings stand side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError, UsageError
from featurecache.io.fingerprint import fingerprint
from featurecache.store.cache import Cache
from featurecache.store.records import ImageTable, Labels, TextEmbeddings, TextSet, positions

_ROWS = 4096
"""As many rows are joined at once: single precision takes twice the memory of what is kept."""


@dataclass(frozen=True, eq=False, repr=False)
class ConcatCache(Cache):
    """The images that all of several caches hold, with all their embeddings.

    Its description is ``{"joined": [description of each part]}``. Texts, too, stand side by side,
    and share no space with anything.

    Attributes:
        caches: two caches or more, as they are.
        cache_rows: of each part, the rows (N,) that its images have there.
    """

    caches: tuple[Cache, ...]
    cache_rows: tuple[NDArray[np.intp], ...]

    @property
    def members(self) -> tuple[Cache, ...]:
        """The caches that this joins."""
        return self.caches

    @cached_property
    def embedding(self) -> NDArray[np.float16]:
        """(N, D) float16 in memory, each part's share of length 1."""
        return self.read_rows(0, len(self.images))

    def read_rows(self, start: int, stop: int) -> NDArray[np.float16]:
        """Rows ``start`` to ``stop`` of the embedding.

        Raises:
            CacheError: a part is gone, damaged, or not the one that was read.
        """
        joined = np.empty((stop - start, self.dim), dtype=np.float16)
        for first in range(start, stop, _ROWS):
            last = min(first + _ROWS, stop)
            joined[first - start : last - start] = concat_embeddings(
                [
                    part.embedding[rows[first:last]]
                    for part, rows in zip(self.caches, self.cache_rows, strict=True)
                ]
            )
        return joined

    def text(self, prompts: str | None = None) -> TextSet:
        """The parts' prompt sets of that name side by side; as ``Cache.text`` has it.

        Raises:
            CacheError: a part has no such set, or their prompts differ.
            UnknownNameError: no prompt set of that name.
        """
        sets = [part.text(prompts) for part in self.caches]
        first = sets[0]
        for part, other in zip(self.caches[1:], sets[1:], strict=True):
            if other.positive.prompts != first.positive.prompts:
                raise CacheError(
                    f"the prompts {other.name!r} of {part.path} are not the prompts "
                    f"{first.name!r} of {self.caches[0].path}: run extract again with the same ones"
                )
        negatives = [one.negative for one in sets if one.negative is not None]
        return TextSet(
            name=first.name,
            fingerprint=fingerprint({"joined": [one.fingerprint for one in sets]}),
            templates=first.templates,
            labels=first.labels,
            positive=_side_by_side([one.positive for one in sets]),
            negative=_side_by_side(negatives) if len(negatives) == len(sets) else None,
            aligned=False,
            scale=None,
            bias=None,
        )


def concat_embeddings(parts: Sequence[NDArray[np.floating]]) -> NDArray[np.float16]:
    """Embeddings of the same images side by side: (N, D_k) each to (N, sum of D_k).

    Each is brought to length 1 first, so that none outweighs another by its encoder's scale.
    """
    shares = []
    for part in parts:
        single = part.astype(np.float32)
        shares.append(single / np.linalg.norm(single, axis=1, keepdims=True))
    return np.concatenate(shares, axis=1).astype(np.float16)


def concat_caches(caches: Sequence[Cache]) -> Cache:
    """Several caches as one, of the images that all of them hold; a single one as it is.

    Raises:
        CacheError: they share no image, or disagree on labels, splits, patients or files of the
            images they share; the message names both.
        UsageError: none is given, or one twice.
    """
    if not caches:
        raise UsageError("give a cache")
    first = caches[0]
    if len(caches) == 1:
        return first
    paths = [cache.path.resolve() for cache in caches]
    if len(set(paths)) < len(paths):
        raise UsageError("a cache is given twice: give each --cache once")
    shared = first.images.id
    for cache in caches[1:]:
        shared = shared[positions(cache.images.id, shared) >= 0]
    if len(shared) == 0:
        raise CacheError(
            f"{' and '.join(str(cache.path) for cache in caches)} share no image: "
            "give caches of one data set"
        )
    rows = tuple(positions(cache.images.id, shared) for cache in caches)
    for cache, of_cache in zip(caches[1:], rows[1:], strict=True):
        _check_agreement(first, rows[0], cache, of_cache)
    description = {"joined": [dict(cache.header.encoder_spec) for cache in caches]}
    header = replace(
        first.header,
        model="+".join(cache.header.model for cache in caches),
        exposed=any(cache.header.exposed for cache in caches),
        image_level_split=any(cache.header.image_level_split for cache in caches),
        encoder_spec=description,
        trained_on=_trained_on(caches),
        bf16_cosine=None,
    )
    return ConcatCache(
        path=first.path.with_name("+".join(cache.path.stem for cache in caches)),
        header=header,
        fingerprint=fingerprint(description),
        created=max(cache.created for cache in caches),
        images=_take(first.images, rows[0]),
        dim=sum(cache.dim for cache in caches),
        labels=Labels(first.labels.names, first.labels.values[rows[0]]),
        texts={},
        failures={},
        state=first.state,
        sums=None,
        caches=tuple(caches),
        cache_rows=rows,
    )


def _take(images: ImageTable, rows: NDArray[np.intp]) -> ImageTable:
    return ImageTable(**{name: column[rows] for name, column in vars(images).items()})


def _check_agreement(
    first: Cache, rows: NDArray[np.intp], other: Cache, other_rows: NDArray[np.intp]
) -> None:
    both = f"{first.path} and {other.path}"
    if first.header.collection != other.header.collection:
        raise CacheError(
            f"{both} are of different films, {first.header.collection} and "
            f"{other.header.collection}: give caches of one data set"
        )
    if first.labels.names != other.labels.names:
        raise CacheError(f"{both} have different labels: run extract again for one of them")
    for name, what in (("split", "splits"), ("patient", "patients"), ("sha256", "files")):
        differ = getattr(first.images, name)[rows] != getattr(other.images, name)[other_rows]
        if differ.any():
            raise CacheError(
                f"{both} differ in the {what} of {int(differ.sum())} images, "
                f"{first.ids[rows[int(np.argmax(differ))]]} the first: run extract again for one "
                "of them with the options of the other"
            )
    unlike = (first.labels.values[rows] != other.labels.values[other_rows]).any(axis=1)
    if unlike.any():
        raise CacheError(
            f"{both} differ in the labels of {int(unlike.sum())} images, "
            f"{first.ids[rows[int(np.argmax(unlike))]]} the first: run extract again for one of "
            "them"
        )


def _trained_on(caches: Sequence[Cache]) -> dict[str, frozenset[str]]:
    """All images that any of the encoders was fine-tuned on."""
    together: dict[str, frozenset[str]] = {}
    for cache in caches:
        for collection, ids in cache.header.trained_on.items():
            together[collection] = together.get(collection, frozenset()) | ids
    return together


def _side_by_side(texts: Sequence[TextEmbeddings]) -> TextEmbeddings:
    return TextEmbeddings(
        prompts=texts[0].prompts,
        embedding=np.concatenate([one.embedding for one in texts], axis=2),
        ensemble=np.concatenate([one.ensemble for one in texts], axis=1),
    )
