"""Caches of some views, and of studies: the images of a cache, selected and grouped."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.label_cells import (
    BLANK,
    CELLS_BY_STRENGTH,
    NEGATIVE,
    POSITIVE,
    UNCERTAIN,
    UNKNOWN,
    LabelPolicy,
    means_no_finding,
)
from featurecache.prompts import PromptSet
from featurecache.provenance.leaks import SplitCopies
from featurecache.provenance.records import ImageRecords
from featurecache.store.cache import BLOCK_ROWS, Cache
from featurecache.store.records import ImageTable, TextSet, from_utf8, to_utf8
from featurecache.units import BOTH_SIDES, IMAGE, STUDY, Units
from featurecache.views import FRONTAL, LATERAL, side_of_view
from featurecache.wording import count_noun

_SIDES = (FRONTAL, LATERAL)


@dataclass(frozen=True, eq=False, repr=False)
class GroupedCache(Cache):
    """Some images of a cache, or studies made of them; each row is a group of images.

    Rows are in the order of their first image. Where each group is a single image, embeddings,
    labels and scores are exactly those of the image.

    Attributes:
        source: The cache of the images.
        image_rows: Rows of the source that are in a group, (M,), ascending.
        group: Row here of each of these images, (M,).
    """

    source: Cache
    image_rows: NDArray[np.intp]
    group: NDArray[np.intp]

    def _summary(self) -> dict[str, str]:
        notes = {"note": " ".join(self.notes)} if self.notes else {}
        return {**super()._summary(), "rows": self.units.describe(), **notes}

    @property
    def members(self) -> tuple[Cache, ...]:
        """The caches that the source concatenates; this cache itself if it is a single one."""
        return self.source.members if len(self.source.members) > 1 else (self,)

    @property
    def sources(self) -> tuple[Cache, ...]:
        """The caches whose rows the source joins; this cache itself if it is of one data set."""
        return self.source.sources if len(self.source.sources) > 1 else (self,)

    @property
    def prompt_sets(self) -> frozenset[str]:
        """See ``Cache.prompt_sets``."""
        return self.source.prompt_sets

    @property
    def excluded(self) -> dict[str, int]:
        """See ``Cache.excluded``; images of other views are counted, too."""
        other_views = len(self.source) - len(self.image_rows)
        return {**self.source.excluded, **({"of another view": other_views} if other_views else {})}

    @property
    def n_images(self) -> int:
        """See ``Cache.n_images``."""
        return len(self.image_rows)

    @property
    def patients_known(self) -> bool:
        """See ``Cache.patients_known``."""
        return self.source.patients_known

    def with_policy(self, policy: LabelPolicy) -> Cache:
        """See ``Cache.with_policy``."""
        return with_units(self.source.with_policy(policy), self.units)

    def text(self, prompts: str | PromptSet | None = None) -> TextSet:
        """See ``Cache.text``; no text is in the space of two embeddings side by side."""
        text = self.source.text(prompts)
        return replace(text, aligned=False) if self.units.study_features == BOTH_SIDES else text

    @cached_property
    def inputs(self) -> Cache:
        """See ``Cache.inputs``: the images, where the scores of studies are joined."""
        if self.units.study_scores is None:
            return self
        if len(self.image_rows) == len(self.source):
            return self.source
        images = Grouping(self.image_rows, np.arange(len(self.image_rows)), self.source.ids)
        return _group(self.source, Units(views=self.units.views), images)

    def join_scores(
        self, scores: NDArray[np.float64], label_names: Sequence[str]
    ) -> NDArray[np.float64]:
        """See ``Cache.join_scores``."""
        if self.units.study_scores is None:
            return scores
        return join_scores(scores, self.group, label_names, how=self.units.study_scores)

    def rows_of_inputs(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """See ``Cache.rows_of_inputs``."""
        return rows if self.units.study_scores is None else np.unique(self.group[rows])

    def records(self, rows: NDArray[np.intp]) -> list[ImageRecords]:
        """Return what identifies the images in the groups of these rows."""
        return self.source.records(self.image_rows[np.isin(self.group, rows)])

    @cached_property
    def copies(self) -> SplitCopies:
        """Training and validation rows with an image of which a later split has a copy."""
        copies = self.source.copies
        same_file, same_content = (
            np.unique(self.group[np.isin(self.image_rows, rows)])
            for rows in (copies.same_file, copies.same_content)
        )
        return SplitCopies(same_file, np.setdiff1d(same_content, same_file), self.units.level)

    @cached_property
    def mapped(self) -> NDArray[np.float16]:
        """Embeddings, (N, D) float16 in memory: those of the images, pooled.

        Raises:
            CacheError: The file is gone, damaged, or not the one that was opened.
            UsageError: Scores of studies are joined, which have no embedding.
        """
        if self.units.study_scores is not None:
            raise UsageError(
                "studies whose scores are joined have no embeddings: give `study_features` to pool "
                "those of their images, or `level` image"
            )
        order = np.argsort(self.group, kind="stable")
        group, rows = self.group[order], self.image_rows[order]
        views = self.source.views[rows] if self.units.study_features == BOTH_SIDES else None
        values = self.source.values.reshape(len(self.source), -1)
        pooled = np.empty((len(self), self.dim), dtype=np.float16)
        for start in range(0, len(self), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(self))
            low, high = np.searchsorted(group, [start, stop])
            pooled[start:stop] = pool_embeddings(
                values[rows[low:high]],
                group[low:high] - start,
                views=None if views is None else views[low:high],
            )
        return pooled

    def read_rows(self, start: int, stop: int) -> NDArray[np.float16]:
        """Return rows ``start`` to ``stop`` of the embeddings; see ``mapped``."""
        return self.mapped[start:stop]


def pool_embeddings(
    embedding: NDArray[np.float16],
    group: NDArray[np.intp],
    *,
    views: NDArray[np.str_] | None = None,
) -> NDArray[np.float16]:
    """Pool the embeddings of the M images of G groups.

    Args:
        embedding: Embeddings, (M, D).
        group: Group of each image, (M,), from 0 to G - 1.
        views: Views of the images, (M,), to put frontal and lateral embeddings side by side; None
            for the mean over all.

    Returns:
        (G, D) means. With ``views``, (G, 2 (D + 1)): for frontal and then for lateral images, the
        mean at unit length followed by 0, or, without such an image, zeros followed by 1. The
        weights of that 1 in the first layer of a head are a learned vector for a missing view.
    """
    if views is None:
        return _means(embedding, group)[0].astype(np.float16)
    side_of = {view: side_of_view(view) for view in np.unique(views).tolist()}
    sides = np.array([side_of[view] for view in views.tolist()], dtype=np.str_)
    n_groups, dim = int(group.max()) + 1, embedding.shape[1]
    blocks = np.zeros((n_groups, len(_SIDES), dim + 1), dtype=np.float16)
    blocks[:, :, dim] = 1
    for index, side in enumerate(_SIDES):
        of_side = sides == side
        means, present = _means(embedding[of_side], group[of_side])
        blocks[present, index, :dim] = means / np.linalg.norm(means, axis=1, keepdims=True)
        blocks[present, index, dim] = 0
    return blocks.reshape(n_groups, -1)


def _means(
    embedding: NDArray[np.float16], group: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the mean of each group that has an image, (G, D), and these groups, (G,)."""
    order = np.argsort(group, kind="stable")
    present, starts, counts = np.unique(group[order], return_index=True, return_counts=True)
    ordered = embedding[order].astype(np.float32)
    if len(present) == len(ordered):  # among others, where there are none, which cannot be summed
        return ordered, present
    sums = np.add.reduceat(ordered, starts, axis=0)
    return (sums / counts[:, np.newaxis]).astype(np.float32), present


def join_scores(
    scores: NDArray[np.float64], group: NDArray[np.intp], label_names: Sequence[str], *, how: str
) -> NDArray[np.float64]:
    """Join the scores of the images of each study.

    Args:
        scores: Scores, (M, C).
        group: Study of each image, (M,), from 0 to G - 1.
        label_names: The C labels.
        how: "mean" or "max". The maximum of a finding is the minimum of a label such as "No
            Finding": a study is normal as far as all its images are.

    Returns:
        Scores of the studies, (G, C).
    """
    order = np.argsort(group, kind="stable")
    _, starts, counts = np.unique(group[order], return_index=True, return_counts=True)
    ordered = scores[order]
    if how == "mean":
        means: NDArray[np.float64] = np.add.reduceat(ordered, starts, axis=0)
        return means / counts[:, np.newaxis]
    normal = np.array([means_no_finding(name) for name in label_names], dtype=np.bool_)
    highest, lowest = (f.reduceat(ordered, starts, axis=0) for f in (np.maximum, np.minimum))
    return np.where(normal, lowest, highest)


def with_units(cache: Cache, units: Units) -> Cache:
    """Return a cache whose rows are what is to be scored: images of some views, or studies.

    Args:
        cache: A cache, whose own units are replaced.
        units: The units.

    Raises:
        UsageError: No image has such a view, a study is in two splits, a study is named like an
            image without one, embeddings of several caches are to be put side by side, or
            tokens are to be pooled.
    """
    source = cache.source if isinstance(cache, GroupedCache) else cache
    if units == Units():
        return source
    if units.study_features is not None:
        source.require_vectors(
            "leave out `study_features`, so that the scores of images are joined"
        )
    if units.study_features == BOTH_SIDES and len(source.members) > 1:
        raise UsageError(
            f"`study_features` {BOTH_SIDES} is for the cache of one encoder: give one, or the mean"
        )
    grouping = group_images(
        source.ids, source.studies, source.views, units, source=str(source.path)
    )
    if units.level == STUDY:
        _require_one_split(source, grouping)
    return _group(source, units, grouping)


@dataclass(frozen=True)
class Grouping:
    """Which of N images are used, and which of G groups each is in.

    Attributes:
        rows: The images that are used, (M,), ascending.
        group: Group of each of them, (M,); groups are in the order of their first image.
        ids: Name of each group, (G,): that of its study, or of its only image.
        notes: Sentences for readers: what was left out or assumed.
    """

    rows: NDArray[np.intp]
    group: NDArray[np.intp]
    ids: NDArray[np.str_]
    notes: tuple[str, ...] = ()


def group_images(
    ids: NDArray[np.str_],
    studies: NDArray[np.str_],
    views: NDArray[np.str_],
    units: Units,
    *,
    source: str,
) -> Grouping:
    """Select images by their views, and group them by study.

    Args:
        ids: Names of the images, (N,).
        studies: Their studies, (N,); an image whose study is empty is one of its own.
        views: Their views, (N,).
        units: What to select and to group.
        source: Where the images are from, for messages.

    Raises:
        UsageError: No image has a required view, or a study is named like an image without one.
    """
    rows, notes = _rows_of_views(views, units, source)
    if units.level == IMAGE:
        return Grouping(rows, np.arange(len(rows)), ids[rows], tuple(notes))
    names = studies[rows]
    if unknown := int((names == "").sum()):
        alone = count_noun(unknown, "image without a study is", "images without a study are")
        notes.append(f"{alone} {'a study' if unknown == 1 else 'studies'} of one image.")
    group_ids = np.where(names == "", ids[rows], names)
    keys = np.char.add(np.where(names == "", "image ", "study "), group_ids)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    group_ids = group_ids[first[order]]
    unique, counts = np.unique(group_ids, return_counts=True)
    if len(unique) < len(group_ids):
        raise UsageError(
            f"{source}: {str(unique[counts > 1][0])!r} is the name of a study and of an image "
            "without one: give the study another name"
        )
    return Grouping(rows, np.argsort(order)[inverse], group_ids, tuple(notes))


def _rows_of_views(
    views: NDArray[np.str_], units: Units, source: str
) -> tuple[NDArray[np.intp], list[str]]:
    """Return the rows of the images that are used, and notes on those of unknown views.

    Raises:
        UsageError: There is no image of a required view.
    """
    if units.views == "all" and units.study_features != BOTH_SIDES:
        return np.arange(len(views)), []
    required = _SIDES if units.views == "all" else (units.views,)
    counts = Counter(views.tolist())
    sides = {view: side_of_view(view) for view in counts}
    for side in required:
        if side not in sides.values():
            listed = ", ".join(f"{view or 'unknown'} ({n:,})" for view, n in counts.most_common())
            raise UsageError(
                f"{source}: no image is known to be {side}; the views are {listed}. Give images "
                "with views, or `views` all"
            )
    notes = []
    if unknown := {view: n for view, n in counts.most_common() if not sides[view]}:
        listed = ", ".join(f"{view or 'unknown'} ({n:,})" for view, n in unknown.items())
        left_out = count_noun(sum(unknown.values()), "image is", "images are")
        notes.append(f"{left_out} left out, neither frontal nor lateral by the view: {listed}.")
    used = [view for view, side in sides.items() if side in required]
    return np.flatnonzero(np.isin(views, used)), notes


def _require_one_split(source: Cache, grouping: Grouping) -> None:
    order = np.argsort(grouping.group, kind="stable")
    group, splits = grouping.group[order], source.splits[grouping.rows[order]]
    mixed = group[1:][(group[1:] == group[:-1]) & (splits[1:] != splits[:-1])]
    if len(mixed):
        raise UsageError(
            f"{source.path}: images of study {str(grouping.ids[mixed[0]])!r} are in several "
            "splits, so studies cannot be scored: extract again with a split by patient"
        )


def _group(source: Cache, units: Units, grouping: Grouping) -> GroupedCache:
    rows, notes = grouping.rows, list(grouping.notes)
    images, cells = source.images.take(rows), source.labels.cells[rows]
    if units.level == STUDY:
        cells, n_differing = study_cells(
            cells, grouping.group, source.labels.names, policy=source.labels.policy
        )
        if n_differing:
            notes.append(
                f"The labels of the images differ in {count_noun(n_differing, 'study')}: a finding "
                "is positive in a study if it is in one of its images."
            )
        images = _study_table(images, grouping.group, grouping.ids)
    side_by_side = units.study_features == BOTH_SIDES
    return GroupedCache(
        path=source.path,
        header=source.header,
        fingerprint=source.fingerprint,
        created=source.created,
        images=images,
        dim=len(_SIDES) * (source.dim + 1) if side_by_side else source.dim,
        labels=replace(source.labels, cells=cells),
        texts=source.texts,
        failures=source.failures,
        state=source.state,
        sums=source.sums,
        units=units,
        notes=tuple(notes),
        source=source,
        image_rows=rows,
        group=grouping.group,
    )


def study_cells(
    cells: NDArray[np.int8],
    group: NDArray[np.intp],
    names: Sequence[str],
    *,
    policy: LabelPolicy,
) -> tuple[NDArray[np.int8], int]:
    """Join the cells (M, C) of the images of each study.

    A finding is positive where an image shows it, else uncertain where one may, else negative
    where one states it. For a label such as "No Finding", negative comes before positive. Which
    cells say so is decided by the policy, and of several, the strongest is taken; see
    ``CELLS_BY_STRENGTH``. Cells that count as unknown, other than uncertain ones, are weakest.

    Args:
        cells: Cells, or labels (-1 unknown), (M, C).
        group: Study of each image, (M,), from 0 to G - 1.
        names: The C labels.
        policy: What cells count as.

    Returns:
        Cells of the studies, (G, C), and the number of studies whose images differ.
    """
    by_rank = [_by_rank(name, policy) for name in names]
    rank = np.zeros((len(names), 256), dtype=np.intp)
    for row, codes in enumerate(by_rank):
        rank[row, codes] = np.arange(len(codes))  # negative codes count from the end
    columns = np.arange(len(names))
    ranked = rank[columns, cells]
    order = np.argsort(group, kind="stable")
    _, starts = np.unique(group[order], return_index=True)
    highest, lowest = (f.reduceat(ranked[order], starts, axis=0) for f in (np.maximum, np.minimum))
    resolved = np.array(by_rank, dtype=np.int8).reshape(len(names), -1)[columns, highest]
    return resolved, int((highest != lowest).any(axis=1).sum())


def _by_rank(name: str, policy: LabelPolicy) -> NDArray[np.int8]:
    """Return the codes of cells, of which a study has the last that its images have."""
    codes = np.array(CELLS_BY_STRENGTH, dtype=np.int8)
    normal = means_no_finding(name)
    if normal:  # blank stays the weakest cell
        codes = np.append(codes[:1], codes[:0:-1])
    labels = policy.resolve(codes[:, np.newaxis], [name])[:, 0]
    decisive = NEGATIVE if normal else POSITIVE
    is_uncertain = (codes == UNCERTAIN) & (labels == UNKNOWN)
    says_nothing = (codes == BLANK) | ((labels == UNKNOWN) & ~is_uncertain)
    level = np.select([says_nothing, labels == decisive, is_uncertain], [0, 3, 2], default=1)
    return codes[np.argsort(level, kind="stable")]


def _study_table(images: ImageTable, group: NDArray[np.intp], ids: NDArray[np.str_]) -> ImageTable:
    """Return the metadata of G studies: that of their first image, and the views of all.

    What is of a file, such as its SHA-256, is empty: a study has several.
    """
    _, first = np.unique(group, return_index=True)
    table = images.take(first)
    views: list[set[str]] = [set() for _ in ids]
    for study, view in zip(group.tolist(), from_utf8(images.view).tolist(), strict=True):
        views[study].add(view)
    n = len(ids)
    return replace(
        table,
        id=to_utf8(ids),
        study=to_utf8(ids),
        view=to_utf8(["+".join(sorted(of_study - {""})) for of_study in views]),
        sha256=np.full(n, b""),
        perceptual_hash=np.zeros_like(table.perceptual_hash),
        path=np.full(n, b""),
        size=np.zeros_like(table.size),
        mtime_ns=np.zeros_like(table.mtime_ns),
    )
