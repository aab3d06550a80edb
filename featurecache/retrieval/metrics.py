"""Retrieval metrics: text to image, image to text and image to image.

An image is relevant to a label if the label is positive, and to another image if they share a
positive label. Entries of unknown relevance are removed from a ranking, as from all other metrics.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.alignment.alignment import Alignment, as_alignment
from featurecache.alignment.apply import align_images, align_texts, check_alignment
from featurecache.errors import CacheError, UsageError
from featurecache.evaluation.from_cache import cache_caveats
from featurecache.metrics.bootstrap import PatientResamples, none_if_nan, resample_patients
from featurecache.metrics.intervals import effective_number, pooled_interval
from featurecache.metrics.label_support import MIN_PATIENTS
from featurecache.metrics.ranking import Floats, Labels, auprc, macro, ratio
from featurecache.metrics.sampled_metrics import MIN_SAMPLES, MeanMetrics, sample_metrics
from featurecache.metrics.similarity import Directions, highest, l2_normalize, normalize_rows
from featurecache.progress import Progress
from featurecache.prompts import PromptSet
from featurecache.store.cache import Cache
from featurecache.store.open import CacheLike, open_cache
from featurecache.wording import count_noun

METRICS: Final = ("precision", "recall", "average_precision")

MAX_COMPARISONS: Final = 10**9
"""Comparisons of images with images, about three minutes of one core. Where all queries would need
more, a random sample of them is ranked; those of the test split of ChestX-ray14 need 0.4 billion.
"""

_BLOCK: Final = 64
"""Queries that share one matrix product."""

_Bounds = tuple[float, float] | None


@dataclass(frozen=True)
class QueryMetrics:
    """Metrics of one query; None where undefined.

    Attributes:
        precision: Fraction of relevant images among the first K.
        recall: Fraction of the relevant images that are among the first K.
        average_precision: Average precision over the whole ranking.
        chance: Fraction of relevant images in the gallery, which is the precision of a random
            order.
    """

    precision: float | None
    recall: float | None
    average_precision: float | None
    chance: float | None


@dataclass(frozen=True)
class RetrievalIntervals:
    """95 % intervals over patients: (low, high), or None where undefined or of too few patients."""

    precision: _Bounds
    recall: _Bounds
    average_precision: _Bounds


@dataclass(frozen=True)
class DirectionMetrics(QueryMetrics):
    """Mean metrics over the queries of one direction, such as text to image.

    Attributes:
        n_queries: Number of queries.
        ci95: Intervals of the means.
        per_label: Metrics of each label, where the labels are the queries; otherwise None.
    """

    n_queries: int
    ci95: RetrievalIntervals
    per_label: Mapping[str, QueryMetrics] | None = None


@dataclass(frozen=True)
class RetrievalMetrics:
    """Retrieval quality on the images of one split.

    Attributes:
        k: The K of precision and recall at K.
        split: The split.
        n: Number of images.
        prompts: Prompt set, or its name; None where the cache has no texts.
        text_to_image: Each label's prompt ensemble is a query, the images are the gallery. None
            where images and texts do not share a space.
        image_to_text: Each image is a query, the labels are the gallery. None as above, or with
            fewer than two labels.
        image_to_image: Each image is a query, the images of other patients are the gallery.
        warnings: What to know before using the metrics.
    """

    k: int
    split: str
    n: int
    prompts: str | PromptSet | None
    text_to_image: DirectionMetrics | None
    image_to_text: DirectionMetrics | None
    image_to_image: DirectionMetrics
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as a JSON value."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [f"retrieval on {count_noun(self.n, f'{self.split} image')}, K = {self.k}"]
        for name in ("text_to_image", "image_to_text", "image_to_image"):
            if (scores := getattr(self, name)) is not None:
                values = ", ".join(
                    f"{metric} {value:.3f}"
                    for metric in METRICS
                    if (value := getattr(scores, metric)) is not None
                )
                rows.append(f"  {name}: {values} ({count_noun(scores.n_queries, 'query')})")
        return "\n".join(rows)


@dataclass(frozen=True)
class RankedQueries:
    """Metrics of Q queries, (Q,) each; NaN where undefined.

    Attributes:
        precision: Fraction of relevant entries among the first K; undefined with fewer than K
            entries of known relevance.
        recall: Fraction of the relevant entries that are among the first K; undefined if none is
            relevant, or as above.
        average_precision: Over the whole ranking, as scikit-learn defines it; undefined unless
            there are relevant and irrelevant entries.
        chance: Fraction of relevant entries in the gallery: the precision of a random order.
    """

    precision: Floats
    recall: Floats
    average_precision: Floats
    chance: Floats


def rank_queries(relevant: Labels, cosines: NDArray[np.float32], *, k: int) -> RankedQueries:
    """Compute the metrics of rankings.

    Args:
        relevant: (Q, N) relevance 1, 0 or -1 (unknown).
        cosines: (Q, N) similarities. Among equal ones within the first K, the entry with the lower
            index comes first.
        k: The K of precision and recall at K.

    Returns:
        The metrics of each query.

    Raises:
        ValueError: The shapes differ, or ``k`` is less than 1.
    """
    if relevant.shape != cosines.shape or k < 1:
        raise ValueError(
            f"relevance of shape {relevant.shape}, cosines of shape {cosines.shape}, `k` = {k}"
        )
    rows = [_rank_query(truth, score, k) for truth, score in zip(relevant, cosines, strict=True)]
    return RankedQueries(*np.array(rows, dtype=np.float64).reshape(-1, 4).T)


def _rank_query(
    relevant: Labels, cosines: NDArray[np.float32], k: int
) -> tuple[float, float, float, float]:
    valid = relevant >= 0
    truth, score = relevant[valid], cosines[valid]
    if len(truth) == 0:
        return (np.nan,) * 4
    n_relevant, chance = int(truth.sum()), float(truth.mean())
    average_precision = auprc(truth, score)
    if len(truth) < k:
        return np.nan, np.nan, average_precision, chance
    hits = int(truth[highest(score, top=k)].sum())
    return hits / k, hits / n_relevant if n_relevant else np.nan, average_precision, chance


def measure_retrieval(
    cache: CacheLike,
    *,
    prompts: str | PromptSet | None = None,
    split: str = "test",
    k: int = 10,
    n_bootstrap: int = 1000,
    seed: int = 0,
    alignment: Alignment | str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> RetrievalMetrics:
    """Measure retrieval in all three directions on the images of one split.

    Text to image: each label's prompt ensemble is a query, the images are the gallery, and metrics
    are means over labels. Image to text: each image is a query, the labels are the gallery. Image
    to image: each image is a query, the images of other patients are the gallery; those of the
    same patient are easy to find and would inflate the metrics. In these two directions, metrics
    are means over the images with a positive label. Where they would need more than a billion
    comparisons, the means are over a random sample of them, which ``warnings`` says. The gallery
    always is the whole split.

    Intervals are over patients: those of the gallery in the first direction, those of the query
    images (with an unchanged gallery) in the others. Precision and recall at K have those of the
    decision "among the first K", see ``featurecache.metrics.intervals``.

    Args:
        cache: A cache, or its path.
        prompts: Prompt set, or its name; may be None if the cache holds only one.
        split: The images to use.
        k: The K of precision and recall at K.
        n_bootstrap: Number of bootstrap samples of patients; 0 for no intervals.
        seed: Seed of the bootstrap and of the sample of queries.
        alignment: An alignment or its file, for an encoder whose images and texts do not share a
            space. Images are compared with images without it.
        progress: Called while images are compared with images.

    Returns:
        The metrics.

    Raises:
        CacheError: No image of the split has a known label.
        UsageError: ``k`` is less than 1, or the alignment was fitted to images of the split.
        RunError: The alignment is of other encoders or settings; the message names the field.
        UnknownNameError: There is no such prompt set or split.
    """
    if k < 1:
        raise UsageError(f"`k` must be 1 or more, not {k}")
    cache, alignment = open_cache(cache), as_alignment(alignment)
    cache.require_images()
    cache.require_labels()
    rows = cache.require_rows(split)
    truth = cache.labels.values[rows]
    if not (truth >= 0).any():
        raise CacheError(f"{cache.path} has no labeled images of the split {split!r}")
    embedding = cache.embedding[rows]
    images = images_in_text_space = normalize_rows(embedding)
    warnings = cache_caveats(cache, rows)
    resamples = resample_patients(cache.patients[rows], n_bootstrap=n_bootstrap, seed=seed)
    queries, note = _choose_queries(truth, seed)
    warnings += note
    text = cache.text(prompts) if cache.texts else None
    if alignment is not None:
        text, differences = align_texts(alignment, cache, prompts)
        warnings += differences
        warnings += check_alignment(alignment, cache, rows)
        images_in_text_space = normalize_rows(align_images(alignment, embedding))
    text_to_image = image_to_text = None
    if text is not None and text.aligned:
        labels = l2_normalize(text.positive.ensemble, "text").astype(np.float32)
        text_to_image = _text_to_image(truth, images_in_text_space, labels, cache, resamples, k)
        if len(labels) > 1:
            ranked = rank_queries(truth[queries], images_in_text_space[queries] @ labels.T, k=k)
            image_to_text = _mean_over_images(ranked, queries, resamples)
    ranked = _rank_images(truth, images, resamples.patient_index, queries, k, progress)
    return RetrievalMetrics(
        k=k,
        split=split,
        n=len(rows),
        prompts=None if text is None else text.name,
        text_to_image=text_to_image,
        image_to_text=image_to_text,
        image_to_image=_mean_over_images(ranked, queries, resamples),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _choose_queries(truth: Labels, seed: int) -> tuple[NDArray[np.intp], list[str]]:
    """Return the images that are queries, those with a positive label, and a note on a sample."""
    queries = np.flatnonzero((truth == 1).any(axis=1))
    n_sampled = max(MAX_COMPARISONS // len(truth), 1)
    if len(queries) <= n_sampled:
        return queries, []
    sample = np.random.default_rng(seed).choice(queries, n_sampled, replace=False)
    return np.sort(sample), [
        f"of {len(queries):,} images with a positive label, a random sample of {n_sampled:,} "
        f"(seed {seed}) are the queries by image"
    ]


def _text_to_image(
    truth: Labels,
    images: Directions,
    labels: Directions,
    cache: Cache,
    resamples: PatientResamples,
    k: int,
) -> DirectionMetrics:
    cosines = labels @ images.T
    ranked = rank_queries(truth.T, cosines, k=k)
    every_label = np.ones(len(labels), dtype=np.bool_)
    mean = MeanMetrics(
        [sample_metrics(truth, _among_first(truth, cosines, k), cosines.T, resamples, every_label)]
    )
    intervals = {
        name: mean.macro(metric, ~np.isnan(getattr(ranked, name))).ci95
        for name, metric in zip(METRICS, ("precision", "recall", "auprc"), strict=True)
    }
    return DirectionMetrics(
        *_reduce(ranked, macro),
        n_queries=len(labels),
        ci95=RetrievalIntervals(**intervals),
        per_label={
            label: QueryMetrics(*_reduce(ranked, itemgetter(c)))
            for c, label in enumerate(cache.labels.names)
        },
    )


def _reduce(
    ranked: RankedQueries, reduce: Callable[[Floats], Floats]
) -> tuple[float | None, float | None, float | None, float | None]:
    """Reduce the metrics of all queries to a number each: precision, recall, ..., chance."""
    precision, recall, average_precision, chance = (
        none_if_nan(reduce(getattr(ranked, name))) for name in (*METRICS, "chance")
    )
    return precision, recall, average_precision, chance


def _among_first(truth: Labels, cosines: NDArray[np.float32], k: int) -> NDArray[np.bool_]:
    """Return which of the N images are among the first K of each label, (N, C)."""
    valid = truth >= 0
    order = np.argsort(np.where(valid.T, -cosines, np.inf), axis=1, kind="stable")
    among = np.zeros(truth.shape, dtype=np.bool_)
    np.put_along_axis(among, order[:, :k].T, values=True, axis=0)
    return among & valid


def _rank_images(
    truth: Labels,
    images: Directions,
    patient: NDArray[np.intp],
    queries: NDArray[np.intp],
    k: int,
    progress: Progress | None,
) -> RankedQueries:
    """Rank the images of other patients for each query, an image with a positive label."""
    positive, unknown = truth == 1, truth < 0
    rows = []
    for number, query in enumerate(queries.tolist()):
        if number % _BLOCK == 0:
            cosines = images[queries[number : number + _BLOCK]] @ images.T
            if progress is not None:
                progress(number, len(queries))
        query_labels = positive[query]
        shared = positive[:, query_labels].any(axis=1)
        # Relevance is unknown where a label of the query is unknown for the other image.
        undecided = ~shared & unknown[:, query_labels].any(axis=1)
        relevant = np.where(undecided, -1, shared.astype(np.int8))
        relevant[patient == patient[query]] = -1
        rows.append(_rank_query(relevant, cosines[number % _BLOCK], k))
    if progress is not None:
        progress(len(queries), len(queries))
    return RankedQueries(*np.array(rows, dtype=np.float64).reshape(-1, 4).T)


def _mean_over_images(
    ranked: RankedQueries, queries: NDArray[np.intp], resamples: PatientResamples
) -> DirectionMetrics:
    """Average over the queries by image; intervals are over their patients."""

    def interval_of(values: Floats) -> _Bounds:
        valid = ~np.isnan(values)
        index = resamples.patient_index[queries[valid]]
        counts = resamples.counts.astype(np.float64)
        n_images, sums = (
            np.bincount(index, weights, counts.shape[1]) for weights in (None, values[valid])
        )
        if (n_images > 0).sum() < MIN_PATIENTS or len(counts) < MIN_SAMPLES:
            return None
        samples = ratio(counts @ sums, counts @ n_images.astype(np.float64))
        n_patients = float(effective_number(n_images.astype(np.float64)))
        return pooled_interval(float(values[valid].mean()), samples, n_patients)

    return DirectionMetrics(
        *_reduce(ranked, macro),
        n_queries=len(queries),
        ci95=RetrievalIntervals(*(interval_of(getattr(ranked, name)) for name in METRICS)),
    )
