"""Join the rows of the caches of several data sets, by one encoder."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError, UsageError
from featurecache.io.fingerprint import fingerprint
from featurecache.label_cells import BLANK, UNKNOWN, LabelPolicy, any_of
from featurecache.prompts import PromptSet
from featurecache.provenance.encoder_spec import spec_difference
from featurecache.provenance.names import base_name, may_share_images
from featurecache.provenance.provenance import Provenance
from featurecache.provenance.records import ImageRecords
from featurecache.store.cache import Cache
from featurecache.store.gather import ReadSource, gather_rows
from featurecache.store.grouped import GroupedCache
from featurecache.store.records import (
    Header,
    ImageTable,
    Labels,
    Listed,
    TextEmbeddings,
    TextSet,
)
from featurecache.vocabulary import Meanings, meanings_of, vocabulary


@dataclass(frozen=True)
class JoinedLabel:
    """A label of joined data sets.

    Attributes:
        name: Its name.
        parts: For each data set, the labels there that mean it, any of which counts; empty where
            it has none.
        named_by: Number of the first data set that has a label of this name.
    """

    name: str
    parts: tuple[tuple[str, ...], ...]
    named_by: int


def join_labels(sets: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[JoinedLabel]:
    """Join the labels of data sets by their names and by the vocabulary.

    A finding that several data sets have is one label if it is a label of its own (``same``) in one
    of them. Its name is that of the first. Another may have it as the union of its kinds, which are
    no labels of their own any more, unless they are findings that are not joined. What is only near
    a finding is not joined. All other labels keep their names.

    Args:
        sets: Names in the vocabulary and labels of each data set.

    Returns:
        The labels, in the order in which the data sets have them.
    """
    meanings = [meanings_of(labels, names) for names, labels in sets]
    finding_of: list[dict[str, str]] = [{} for _ in sets]
    findings: dict[str, JoinedLabel] = {}
    for finding in vocabulary():
        means = [of_set.get(finding, Meanings()) for of_set in meanings]
        parts = tuple(means_of_set.same or means_of_set.union for means_of_set in means)
        for part, first in zip(parts, finding_of, strict=True):
            for label in part:
                first.setdefault(label, finding)
        named_by = [number for number, of_set in enumerate(means) if of_set.same]
        if named_by and sum(map(bool, parts)) > 1:
            findings[finding] = JoinedLabel(means[named_by[0]].same[0], parts, named_by[0])
    joined: dict[str, JoinedLabel] = {}
    for number, (_, labels) in enumerate(sets):
        for label in labels:
            finding = finding_of[number].get(label, "")
            if finding in findings:
                joined.setdefault(findings[finding].name, findings[finding])
                continue
            same_name = joined.get(label, JoinedLabel(label, ((),) * len(sets), number))
            parts = tuple(
                (*part, label) if index == number else part
                for index, part in enumerate(same_name.parts)
            )
            joined[label] = replace(same_name, parts=parts)
    return list(joined.values())


@dataclass(frozen=True)
class _JoinedLabels(Labels):
    """Labels of several data sets, resolved by a policy for each: cells are 1, 0 and blank.

    Attributes:
        applied: See ``Labels.applied_policy``.
    """

    applied: Mapping[str, str] = field(default_factory=dict)

    @property
    def applied_policy(self) -> dict[str, str]:
        """The fields that matter for a data set, and on which all of these agree."""
        return dict(self.applied)


@dataclass(frozen=True, eq=False, repr=False)
class RowJoin(Cache):
    """The images of several caches by one encoder, with joined labels.

    Ids, patients and studies are preceded by their collection, as in ``nih/00000001_000.png``:
    patients of different collections are different ones. What uncertain and blank cells count as is
    decided for each cache on its own.

    Attributes:
        caches: Two or more caches.
        joined_labels: The C labels, and which labels of the caches they are made of.
        cache_number: For each of the N images, the number of its cache.
        cache_row: For each of the N images, its row there.
    """

    caches: tuple[Cache, ...]
    joined_labels: tuple[JoinedLabel, ...]
    cache_number: NDArray[np.int32]
    cache_row: NDArray[np.int32]

    @property
    def sources(self) -> tuple[Cache, ...]:
        """The caches whose rows are joined."""
        return self.caches

    def with_policy(self, policy: LabelPolicy) -> Cache:
        """See ``Cache.with_policy``; it is the policy of each cache then."""
        return join_rows([cache.with_policy(policy) for cache in self.caches])

    @property
    def patients_known(self) -> bool:
        """Whether patients are known in all caches."""
        return all(cache.patients_known for cache in self.caches)

    def records(self, rows: NDArray[np.intp]) -> list[ImageRecords]:
        """Return what identifies the images of these rows, by collection."""
        return [
            records
            for number, cache in enumerate(self.caches)
            for records in cache.records(self.cache_row[rows[self.cache_number[rows] == number]])
        ]

    @cached_property
    def mapped(self) -> NDArray[np.float16]:
        """Embeddings, (N, D) float16 in memory."""
        return self._gather(
            slice(None),
            lambda number, low, high: self.caches[number].values[low:high].reshape(high - low, -1),
        )

    def read_rows(self, start: int, stop: int) -> NDArray[np.float16]:
        """Read rows ``start`` to ``stop`` of the embeddings; see ``Cache.read_rows``."""
        return self._gather(
            slice(start, stop), lambda number, low, high: self.caches[number].read_rows(low, high)
        )

    def _gather(self, rows: slice, read: ReadSource) -> NDArray[np.float16]:
        return gather_rows(self.cache_number[rows], self.cache_row[rows], dim=self.dim, read=read)

    @property
    def prompt_sets(self) -> frozenset[str]:
        """Names of the prompt sets that have texts of all labels."""
        return frozenset.intersection(
            *(self.caches[label.named_by].prompt_sets for label in self.joined_labels)
        )

    def text(self, prompts: str | PromptSet | None = None) -> TextSet:
        """Return the texts of the joined labels; see ``Cache.text``.

        Raises:
            CacheError: A cache has no such set, or their prompts or text encoders differ.
            UnknownNameError: There is no prompt set of that name.
        """
        numbers = sorted({label.named_by for label in self.joined_labels})
        sets = {number: self.caches[number].text(prompts) for number in numbers}
        first = sets[numbers[0]]
        kind = ("templates", "encoder_spec", "aligned", "scale", "bias")
        for number, other in sets.items():
            if any(getattr(first, name) != getattr(other, name) for name in kind):
                raise CacheError(
                    f"the prompts {other.name!r} of {self.caches[number].path} are not the prompts "
                    f"{first.name!r} of {self.caches[numbers[0]].path}, or were encoded otherwise: "
                    "extract again with the same ones"
                )
        parts = [sets[label.named_by].select((label.name,)) for label in self.joined_labels]
        negatives = [text.negative for text in parts if text.negative is not None]
        return replace(
            first,
            fingerprint=fingerprint({"rows": [[t.fingerprint, t.labels[0]] for t in parts]}),
            labels=self.labels.names,
            positive=_stack_texts([text.positive for text in parts]),
            negative=_stack_texts(negatives) if len(negatives) == len(parts) else None,
            n_cut=sum(text.n_cut for text in sets.values()),
        )


def join_rows(caches: Sequence[Cache]) -> Cache:
    """Join the rows of caches of different images; a single cache is returned as it is.

    Args:
        caches: Caches by one encoder.

    Raises:
        CacheError: Their encoders differ, the message names the field; an image is in two of them;
            or two are known to share images under different ids.
        UsageError: The list is empty, or a cache concatenates the features of several encoders.
    """
    if not caches:
        raise UsageError("give at least one cache")
    if len(caches) == 1:
        return caches[0]
    first = caches[0]
    for cache in caches:
        if len(cache.members) > 1:
            raise UsageError(
                f"{cache.path} has the features of several encoders: join rows of caches of one"
            )
    for one, other in combinations(caches, 2):
        _require_joinable(one, other)
    labels = join_labels([(cache.header.vocabulary_names, cache.labels.names) for cache in caches])
    tables = [_with_collection(cache) for cache in caches]
    order = np.argsort(np.concatenate([table.id for table in tables]), kind="stable")
    columns = zip(*(vars(table).values() for table in tables), strict=True)
    images = ImageTable(*map(np.concatenate, columns)).take(order)
    if len(duplicates := images.id[1:][images.id[1:] == images.id[:-1]]):
        raise CacheError(
            f"{duplicates[0].decode()!r} is in two of the caches: give each cache once, or, if "
            "they are different images, extract one of the data sets under another `name`"
        )
    values = np.concatenate([_joined_values(n, cache, labels) for n, cache in enumerate(caches)])
    names = [cache.header.dataset for cache in caches]
    dataset = "+".join(dict.fromkeys(names))
    rows = [np.arange(len(cache), dtype=np.int32) for cache in caches]
    return RowJoin(
        path=first.path.parent.with_name(dataset) / first.path.name,
        header=_join_headers([cache.header for cache in caches], dataset),
        fingerprint=first.fingerprint,
        created=max(cache.created for cache in caches),
        images=images,
        dim=first.dim,
        labels=_JoinedLabels(
            tuple(label.name for label in labels),
            np.where(values == UNKNOWN, np.int8(BLANK), values)[order],
            applied=_agreed_policy(caches),
        ),
        texts={},
        failures={
            _in_collection(cache, image): reason
            for cache in caches
            for image, reason in cache.failures.items()
        },
        state=first.state,
        sums=first.sums,
        caches=tuple(caches),
        joined_labels=tuple(labels),
        cache_number=np.repeat(np.arange(len(caches), dtype=np.int32), [*map(len, rows)])[order],
        cache_row=np.concatenate(rows)[order],
    )


def row_join_of(cache: Cache) -> RowJoin | None:
    """Return the join of rows that a cache is, or that its studies are of; None without one."""
    source = cache.source if isinstance(cache, GroupedCache) else cache
    return source if isinstance(source, RowJoin) else None


def _require_joinable(first: Cache, other: Cache) -> None:
    both = f"the rows of {first.path} and {other.path} cannot be joined"
    if difference := spec_difference(first.header.encoder_spec, other.header.encoder_spec):
        raise CacheError(
            f"{both}: their embeddings are of different encoders, or made with different settings "
            f"({difference})"
        )
    names = [cache.header.collection for cache in (first, other)]
    if names[0] != names[1] and base_name(names[0]) == base_name(names[1]):
        raise CacheError(
            f"{both}: they hold images of {base_name(names[0])} under different ids, so patients "
            "cannot be compared: extract both with the same `pseudonymize`"
        )
    if may_share_images(*names):
        raise CacheError(
            f"{both}: {base_name(names[0])} and {base_name(names[1])} share images and patients "
            "under other ids, so that a test image of one may be a training image of the other: "
            "join data sets that share none"
        )


def _in_collection(cache: Cache, name: str) -> str:
    return f"{cache.header.collection}/{name}"


def _with_collection(cache: Cache) -> ImageTable:
    """Return the images of a cache, whose ids, patients and studies name their collection."""
    prefix = _in_collection(cache, "").encode()
    columns = {
        name: np.where(column == b"", b"", np.char.add(prefix, column))
        for name, column in vars(cache.images).items()
        if name in ("id", "patient", "study")
    }
    return replace(cache.images, **columns)


def _joined_values(number: int, cache: Cache, labels: Sequence[JoinedLabel]) -> NDArray[np.int8]:
    """Return the joined labels of one of the caches, (N, C): 1, 0, or -1 for unknown."""
    values = np.full((len(cache), len(labels)), UNKNOWN, dtype=np.int8)
    for column, label in enumerate(labels):
        if part := label.parts[number]:
            values[:, column] = any_of(
                cache.labels.values[:, [cache.labels.names.index(name) for name in part]]
            )
    return values


def _agreed_policy(caches: Sequence[Cache]) -> dict[str, str]:
    """Return the fields that matter for a cache, unless the caches differ in them."""
    values: dict[str, set[str]] = {}
    for cache in caches:
        for name, value in cache.labels.applied_policy.items():
            values.setdefault(name, set()).add(value)
    return {name: value for name, (value, *others) in values.items() if not others}


def _join_headers(headers: Sequence[Header], dataset: str) -> Header:
    trained_on = Provenance()
    excluded = Counter[str]()
    listed = [header.listed for header in headers if header.listed is not None]
    patients = [counts["patients"] for counts in listed if counts["patients"] is not None]
    for header in headers:
        trained_on = trained_on.union(Provenance(trained_on=header.trained_on))
        excluded.update(header.excluded)
    bit_depths = {header.bit_depth for header in headers} - {None}
    return Header(
        model=headers[0].model,
        dataset=dataset,
        notes=tuple(dict.fromkeys(note for header in headers for note in header.notes)),
        image_level_split=any(header.image_level_split for header in headers),
        exposed=any(header.exposed for header in headers),
        encoder_spec=headers[0].encoder_spec,
        collection="+".join(dict.fromkeys(header.collection for header in headers)),
        trained_on=trained_on.trained_on,
        revision=headers[0].revision,
        excluded=dict(excluded),
        listed=None
        if len(listed) < len(headers)
        else Listed(
            images=sum(counts["images"] for counts in listed),
            patients=sum(patients) if len(patients) == len(headers) else None,
        ),
        # New images are read with it: where the data sets differ, it is judged from these.
        bit_depth=bit_depths.pop() if len(bit_depths) == 1 else None,
    )


def _stack_texts(texts: Sequence[TextEmbeddings]) -> TextEmbeddings:
    return TextEmbeddings(
        prompts=tuple(prompts for text in texts for prompts in text.prompts),
        embedding=np.concatenate([text.embedding for text in texts]),
        ensemble=np.concatenate([text.ensemble for text in texts]),
    )
