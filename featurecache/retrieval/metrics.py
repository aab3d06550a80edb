"""How good retrieval is: texts to images, images to label descriptions, images to images.

An image is relevant to a label that it has, and to another image with which it shares a label.
Entries of unknown relevance are left out of a ranking, as they are out of every other metric.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from featurecache.alignment.alignment import Alignment
from featurecache.alignment.apply import align_images, align_texts, require_unseen
from featurecache.errors import CacheError, UsageError
from featurecache.evaluation.from_cache import cache_caveats
from featurecache.metrics.bootstrap import (
    PatientResamples,
    bootstrap_metrics,
    interval,
    none_if_nan,
    resample_patients,
)
from featurecache.metrics.ranking import Floats, Labels, auprc, macro, ratio
from featurecache.metrics.similarity import Directions, l2_normalize, normalize_rows
from featurecache.store.cache import Cache

METRICS: Final = ("precision", "recall", "average_precision")


@dataclass(frozen=True)
class Ranked:
    """What each of Q queries got from a gallery, (Q,) each; NaN where undefined.

    Attributes:
        precision: share of relevant entries among the first K; undefined with fewer than K entries
            of known relevance.
        recall: share of the relevant entries that are among the first K; undefined where none is
            relevant, or as above.
        average_precision: over the whole ranking, as scikit-learn defines it; undefined unless
            there are relevant and irrelevant entries.
        chance: share of relevant entries in the gallery: the precision of a random order.
    """

    precision: Floats
    recall: Floats
    average_precision: Floats
    chance: Floats


def rank_queries(relevant: Labels, cosines: npt.NDArray[np.float32], *, at: int) -> Ranked:
    """Measure rankings.

    Args:
        relevant: (Q, N) of 1, 0 and -1 unknown.
        cosines: (Q, N); of equal ones, the entry with the lower number comes first among the
            first K.
        at: K.

    Raises:
        ValueError: the shapes differ, or K is less than 1.
    """
    if relevant.shape != cosines.shape or at < 1:
        raise ValueError(f"{relevant.shape} relevances, {cosines.shape} cosines, K = {at}")
    rows = [_rank_query(truth, score, at) for truth, score in zip(relevant, cosines, strict=True)]
    return Ranked(*np.array(rows, dtype=np.float64).reshape(-1, 4).T)


def _rank_query(
    relevant: Labels, cosines: npt.NDArray[np.float32], at: int
) -> tuple[float, float, float, float]:
    known = relevant >= 0
    truth, score = relevant[known], cosines[known]
    if len(truth) == 0:
        return (np.nan,) * 4
    positives, chance = int(truth.sum()), float(truth.mean())
    average = auprc(truth, score)
    if len(truth) < at:
        return np.nan, np.nan, average, chance
    hits = int(truth[np.argsort(-score, kind="stable")[:at]].sum())
    return hits / at, hits / positives if positives else np.nan, average, chance


def measure_retrieval(
    cache: Cache,
    *,
    prompts: str | None = None,
    split: str = "test",
    at: int = 10,
    n_bootstrap: int = 1000,
    seed: int = 0,
    alignment: Alignment | None = None,
) -> dict[str, Any]:
    """Measure all three directions on the images of one split.

    Texts to images: each label's prompt ensemble is a query, the images are the gallery; figures
    are means over labels. Images to texts: each image is a query, the labels are the gallery.
    Images to images: each image is a query, the images of other patients are the gallery; those of
    its own patient are easy to find and would flatter. Of these two, figures are means over the
    images that have a label at all.

    Intervals come from draws of patients: of the gallery's where texts ask, of the queries' where
    images ask, their gallery as it is.

    Args:
        cache: embeddings, and label descriptions where its encoder is aligned.
        prompts: the prompt set; needed only where the cache holds several.
        split: whose images are used.
        at: K of precision and recall.
        n_bootstrap: number of bootstrap samples over patients.
        seed: of the draws.
        alignment: for the texts of an unaligned encoder; images are compared with images as they
            are.

    Returns:
        ``text_to_image``, ``image_to_text`` (None where texts and images share no space, or
        where there are fewer than two labels to tell apart) and ``image_to_image``, each with
        precision, recall, average_precision, chance, n_queries and ci95; the first with per_label.

    Raises:
        CacheError: no image of the split has a known label.
        UsageError: K is less than 1, or the alignment learned from images of the split.
        RunError: the alignment is of other encoders or settings; the message names the field.
        UnknownNameError: there is no such prompt set.
    """
    if at < 1:
        raise UsageError(f"precision and recall at {at} make no sense: give 1 or more")
    rows = cache.rows(split)
    truth = cache.labels.values[rows]
    if not (truth >= 0).any():
        raise CacheError(f"{cache.path} has no labelled images of the split {split!r} to retrieve")
    embedding = cache.embedding[rows]
    images = with_texts = normalize_rows(embedding)
    warnings = cache_caveats(cache)
    patients = resample_patients(cache.patients[rows], n_bootstrap=n_bootstrap, seed=seed)
    text = cache.text(prompts) if cache.texts else None
    if alignment is not None:
        text, differences = align_texts(alignment, cache, prompts)
        warnings += differences
        require_unseen(alignment, cache, rows)
        with_texts = normalize_rows(align_images(alignment, embedding))
    document: dict[str, Any] = {"at": at, "split": split, "n": len(rows)}
    document["prompts"] = None if text is None else text.name
    document["text_to_image"] = document["image_to_text"] = None
    if text is not None and text.aligned:
        labels = l2_normalize(text.positive.ensemble, "text").astype(np.float32)
        document["text_to_image"] = _texts_ask(truth, with_texts, labels, cache, patients, at)
        if len(labels) > 1:
            document["image_to_text"] = _images_ask(
                rank_queries(truth, with_texts @ labels.T, at=at), truth, patients
            )
    document["image_to_image"] = _images_ask(
        _rank_images(truth, images, patients.patient_index, at), truth, patients
    )
    document["warnings"] = warnings
    return document


def _texts_ask(
    truth: Labels,
    images: Directions,
    labels: Directions,
    cache: Cache,
    patients: PatientResamples,
    at: int,
) -> dict[str, Any]:
    cosines = labels @ images.T
    ranked = rank_queries(truth.T, cosines, at=at)
    counts = patients.row_counts()
    drawn_at = [_drawn_at(truth[:, c], cosines[c], counts, at) for c in range(len(labels))]
    nothing = np.zeros(truth.shape, dtype=np.bool_)
    drawn = {
        "precision": macro(np.stack([precision for precision, _ in drawn_at], axis=-1)),
        "recall": macro(np.stack([recall for _, recall in drawn_at], axis=-1)),
        "average_precision": bootstrap_metrics(truth, nothing, cosines.T, patients).macro["auprc"],
    }
    figures = {name: none_if_nan(macro(getattr(ranked, name))) for name in (*METRICS, "chance")}
    per_label = {
        label: {name: none_if_nan(getattr(ranked, name)[c]) for name in (*METRICS, "chance")}
        for c, label in enumerate(cache.labels.names)
    }
    return {
        **figures,
        "n_queries": len(labels),
        "ci95": {name: interval(values) for name, values in drawn.items()},
        "per_label": per_label,
    }


def _drawn_at(
    truth: Labels, cosines: npt.NDArray[np.float32], counts: npt.NDArray[np.int32], at: int
) -> tuple[Floats, Floats]:
    """Precision and recall at K of one query in draws of the gallery, (draws,) each.

    A row that is in a draw several times stands there several times in a row.
    """
    known = truth >= 0
    order = np.argsort(-cosines[known], kind="stable")
    hit = truth[known][order] == 1
    weights = counts[:, known][:, order].astype(np.float64)
    before = np.cumsum(weights, axis=1) - weights
    taken = np.clip(at - before, 0, weights)
    hits = taken[:, hit].sum(axis=1)
    enough = np.where(weights.sum(axis=1) >= at, 1.0, np.nan)
    return hits / at * enough, ratio(hits, weights[:, hit].sum(axis=1)) * enough


def _rank_images(
    truth: Labels, images: Directions, patient: npt.NDArray[np.intp], at: int
) -> Ranked:
    """Each image as a query among the images of other patients; NaN where it has no label."""
    positive, unknown = truth == 1, truth < 0
    parts = []
    for query in range(len(truth)):
        mine = positive[query]
        shared = positive[:, mine].any(axis=1)
        # Where a label of the query is unknown in the other, they may share it or not.
        open_question = ~shared & unknown[:, mine].any(axis=1)
        relevant = np.where(open_question, -1, shared.astype(np.int8))
        relevant[patient == patient[query]] = -1
        if not mine.any():
            relevant[:] = -1
        parts.append(_rank_query(relevant, images @ images[query], at))
    return Ranked(*np.array(parts, dtype=np.float64).T)


def _images_ask(ranked: Ranked, truth: Labels, patients: PatientResamples) -> dict[str, Any]:
    """Means over the images that have a label, with intervals over their patients."""
    asked = (truth == 1).any(axis=1)
    counts = patients.row_counts().astype(np.float64)
    figures: dict[str, Any] = {}
    bounds = {}
    for name in (*METRICS, "chance"):
        values = np.where(asked, getattr(ranked, name), np.nan)
        figures[name] = none_if_nan(macro(values))
        defined = ~np.isnan(values)
        bounds[name] = interval(
            ratio(counts[:, defined] @ values[defined], counts[:, defined].sum(axis=1))
        )
    del bounds["chance"]
    return {**figures, "n_queries": int(asked.sum()), "ci95": bounds}
