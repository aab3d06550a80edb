"""Concatenate the features of several caches of the same images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError, UsageError
from featurecache.io.fingerprint import fingerprint
from featurecache.label_cells import LabelPolicy, require_same_policy
from featurecache.prompts import PromptSet
from featurecache.provenance.provenance import Provenance
from featurecache.store.cache import BLOCK_ROWS, Cache
from featurecache.store.records import (
    TextEmbeddings,
    TextSet,
    count_by_reason,
    positions,
)
from featurecache.wording import count_noun


@dataclass(frozen=True, eq=False, repr=False)
class ConcatCache(Cache):
    """The images that all of several caches hold, with concatenated features.

    Its encoder spec is ``{"joined": [spec of each cache]}``. Texts are concatenated as well, but do
    not share a space with the images.

    Attributes:
        caches: Two or more caches.
        cache_rows: For each cache, the rows there of the N images.
    """

    caches: tuple[Cache, ...]
    cache_rows: tuple[NDArray[np.intp], ...]

    @property
    def members(self) -> tuple[Cache, ...]:
        """The caches that are concatenated."""
        return self.caches

    def with_policy(self, policy: LabelPolicy) -> "ConcatCache":
        """See ``Cache.with_policy``."""
        members = tuple(cache.with_policy(policy) for cache in self.caches)
        return replace(self, labels=replace(self.labels, policy=policy), caches=members)

    @property
    def prompt_sets(self) -> frozenset[str]:
        """Names of the prompt sets that all of the caches hold text embeddings of."""
        return frozenset.intersection(*(cache.prompt_sets for cache in self.caches))

    @property
    def excluded(self) -> dict[str, int]:
        """See ``Cache.excluded``; images that only some of the caches hold are counted, too."""
        held = [set(cache.images.id.tolist()) for cache in self.caches]
        reasons = {
            image.decode(): "not in the cache of another encoder"
            for image in set.union(*held) - set.intersection(*held)
        }
        for cache in self.caches:
            reasons |= cache.failures
        return {**self.header.excluded, **count_by_reason(reasons)}

    @cached_property
    def mapped(self) -> NDArray[np.float16]:
        """Embeddings, (N, D) float16 in memory; those of each cache have unit length."""
        return self.read_rows(0, len(self))

    def read_rows(self, start: int, stop: int) -> NDArray[np.float16]:
        """Return rows ``start`` to ``stop`` of the embeddings.

        Raises:
            CacheError: A file is gone, damaged, or not the one that was opened.
        """
        joined = np.empty((stop - start, self.dim), dtype=np.float16)
        for first in range(start, stop, BLOCK_ROWS):
            last = min(first + BLOCK_ROWS, stop)
            members = zip(self.caches, self.cache_rows, strict=True)
            joined[first - start : last - start] = concat_embeddings(
                [cache.embedding[rows[first:last]] for cache, rows in members]
            )
        return joined

    def text(self, prompts: str | PromptSet | None = None) -> TextSet:
        """Return the caches' prompt sets of this name, concatenated; see ``Cache.text``.

        Raises:
            CacheError: A cache has no such set, or their prompts differ.
            UnknownNameError: There is no prompt set of that name.
        """
        sets = [cache.text(prompts) for cache in self.caches]
        first = sets[0]
        for cache, other in zip(self.caches[1:], sets[1:], strict=True):
            if other.positive.prompts != first.positive.prompts:
                raise CacheError(
                    f"the prompts {other.name!r} of {cache.path} are not the prompts "
                    f"{first.name!r} of {self.caches[0].path}: extract again with the same ones"
                )
        negatives = [text.negative for text in sets if text.negative is not None]
        return TextSet(
            name=first.name,
            fingerprint=fingerprint({"joined": [text.fingerprint for text in sets]}),
            templates=first.templates,
            labels=first.labels,
            positive=_concat_texts([text.positive for text in sets]),
            negative=_concat_texts(negatives) if len(negatives) == len(sets) else None,
            aligned=False,
            scale=None,
            bias=None,
        )


def concat_embeddings(embeddings: Sequence[NDArray[np.floating]]) -> NDArray[np.float16]:
    """Concatenate embeddings of the same images: (N, D_k) each to (N, sum of D_k).

    Each is scaled to unit length first, so that no encoder dominates by the scale of its output.
    """
    singles = [embedding.astype(np.float32) for embedding in embeddings]
    scaled = [single / np.linalg.norm(single, axis=1, keepdims=True) for single in singles]
    return np.concatenate(scaled, axis=1).astype(np.float16)


def concat_caches(caches: Sequence[Cache]) -> Cache:
    """Concatenate caches for the images that all of them hold; a single cache is returned as it is.

    Raises:
        CacheError: They share no image, or disagree on labels, splits, patients or files of the
            images they share; the message names both.
        UsageError: The list is empty or names a cache twice, or a cache holds tokens.
    """
    if not caches:
        raise UsageError("give at least one cache")
    first = caches[0]
    if len(caches) == 1:
        return first
    for cache in caches:
        cache.require_vectors()
    paths = [cache.path.resolve() for cache in caches]
    if len(set(paths)) < len(paths):
        raise UsageError("a cache is given twice: give each cache once")
    if joined := [cache for cache in caches if len(cache.sources) > 1]:
        raise UsageError(
            f"{joined[0].path} has the rows of several data sets: features are joined for caches "
            "of one data set"
        )
    shared = first.images.id
    for cache in caches[1:]:
        shared = shared[positions(cache.images.id, shared) >= 0]
    if len(shared) == 0:
        raise CacheError(
            f"{' and '.join(str(cache.path) for cache in caches)} share no image: "
            "give caches of one data set"
        )
    rows = tuple(positions(cache.images.id, shared) for cache in caches)
    for cache, shared_rows in zip(caches[1:], rows[1:], strict=True):
        _require_agreement(first, rows[0], cache, shared_rows)
    provenance = Provenance()
    for cache in caches:
        for images in cache.header.trained_on.values():
            provenance = provenance.with_training(images)
    encoder_spec = {"joined": [dict(cache.header.encoder_spec) for cache in caches]}
    header = replace(
        first.header,
        model="+".join(cache.header.model for cache in caches),
        exposed=any(cache.header.exposed for cache in caches),
        image_level_split=any(cache.header.image_level_split for cache in caches),
        encoder_spec=encoder_spec,
        trained_on=provenance.trained_on,
        probe=None,
    )
    return ConcatCache(
        path=first.path.with_name("+".join(cache.path.stem for cache in caches)),
        header=header,
        fingerprint=fingerprint(encoder_spec),
        created=max(cache.created for cache in caches),
        images=first.images.take(rows[0]),
        dim=sum(cache.dim for cache in caches),
        labels=replace(first.labels, cells=first.labels.cells[rows[0]]),
        texts={},
        failures={},
        state=first.state,
        sums=first.sums,
        caches=tuple(caches),
        cache_rows=rows,
    )


def _require_agreement(
    first: Cache, rows: NDArray[np.intp], other: Cache, other_rows: NDArray[np.intp]
) -> None:
    both = f"{first.path} and {other.path}"
    if first.header.collection != other.header.collection:
        raise CacheError(
            f"{both} are of different images, {first.header.collection} and "
            f"{other.header.collection}: give caches of one data set"
        )
    if first.header.bit_depth != other.header.bit_depth:
        raise CacheError(
            f"{both} were made with bit depths of {first.header.bit_depth} and "
            f"{other.header.bit_depth}: extract one of them again, with the other's `bit_depth`"
        )
    if first.labels.names != other.labels.names:
        raise CacheError(f"{both} have different labels: extract one of them again")
    require_same_policy(
        asdict(first.policy), asdict(other.policy), names=(str(first.path), str(other.path))
    )
    differences = {
        what: getattr(first.images, name)[rows] != getattr(other.images, name)[other_rows]
        for name, what in (("split", "splits"), ("patient", "patients"), ("sha256", "files"))
    }
    for member, member_rows in ((first, rows), (other, other_rows)):
        differences["files"] &= member.images.sha256[member_rows] != b""
    unequal_labels = first.labels.cells[rows] != other.labels.cells[other_rows]
    differences["labels"] = unequal_labels.any(axis=1)
    for what, differ in differences.items():
        if differ.any():
            raise CacheError(
                f"{both} differ in the {what} of {count_noun(int(differ.sum()), 'image')}, the "
                f"first is {first.ids[rows[int(np.argmax(differ))]]}: extract one of them again "
                "with the settings of the other"
            )


def _concat_texts(texts: Sequence[TextEmbeddings]) -> TextEmbeddings:
    return TextEmbeddings(
        prompts=texts[0].prompts,
        embedding=np.concatenate([text.embedding for text in texts], axis=2),
        ensemble=np.concatenate([text.ensemble for text in texts], axis=1),
    )
