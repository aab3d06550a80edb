"""Scoring a cache: its rows as what is scored, and zero-shot scores from its text."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.scoring.evaluation import ScoredRows, evaluate
from featurecache.scoring.zero_shot import (
    Scores,
    Scoring,
    choose_scoring,
    pair_scores,
    sigmoid_scores,
    softmax_scores,
)
from featurecache.store.contents import TextSet
from featurecache.store.reader import Cache
from featurecache.store.schema import UNKNOWN


@dataclass(frozen=True)
class ZeroShot:
    """Zero-shot scores of a whole cache, and what was measured of them.

    Attributes:
        text: the prompt set that was scored with.
        scoring: how its cosines became probabilities.
        scores: of every row of the cache, (N, C).
        metrics: the document of ``metrics.json``.
    """

    text: TextSet
    scoring: Scoring
    scores: Scores
    metrics: dict[str, Any]


def zero_shot(
    cache: Cache, *, prompts: str | None = None, scoring: str = "auto", draws: int = 1000
) -> ZeroShot:
    """Score every image of a cache against its prompts, without any training.

    Thresholds come from the validation rows where there are any; no figure is chosen on test.

    Raises:
        CacheError: the cache has no text, no labels, or several prompt sets and none is named.
        UsageError: the encoder is unaligned, or the scoring asked for cannot be done.
        UnknownNameError: there is no such prompt set or scoring.
    """
    text = cache.text(prompts)
    if (cache.labels.values == UNKNOWN).all():
        raise CacheError(f"{cache.path} holds no labels to score against")
    how = choose_scoring(
        scoring,
        aligned=text.aligned,
        bias=text.bias,
        has_negatives=text.negative is not None,
        n_labels=len(cache.labels.names),
        exclusive=bool((cache.labels.values.sum(axis=1) == 1).all()),
    )
    scores = _score(cache, text, how)
    rows = scored_rows(cache, train=np.empty(0, dtype=np.intp))
    metrics = evaluate(rows, scores.probabilities, ranking=scores.logits, draws=draws)
    metrics["warnings"] = split_warnings(cache)
    return ZeroShot(text, how, scores, metrics)


def scored_rows(cache: Cache, *, train: NDArray[np.intp]) -> ScoredRows:
    """The rows of a cache as what is scored; ``train`` are those that were learned from."""
    return ScoredRows(
        truth=cache.labels.values,
        label_names=cache.labels.names,
        patient=cache.images.patient,
        view=cache.images.view,
        train=train,
        val=cache.rows("val"),
        test=cache.rows("test"),
    )


def predicted_rows(cache: Cache, probability: NDArray[np.float64]) -> dict[str, Any]:
    """What ``predictions.csv`` holds: the validation rows, then the test rows."""
    rows = np.concatenate([cache.rows("val"), cache.rows("test")])
    return {
        "ids": cache.images.id[rows],
        "patients": cache.images.patient[rows],
        "splits": cache.images.split[rows],
        "label_names": cache.labels.names,
        "truth": cache.labels.values[rows],
        "probability": probability[rows],
    }


def split_warnings(cache: Cache) -> list[str]:
    """What a reader of figures has to know of the cache's splits."""
    warnings = []
    if cache.header.image_level_split:
        warnings.append(
            "the split is by image: one patient may be in training and test, so the figures are "
            "optimistic"
        )
    if len(cache.rows("test")) == 0:
        warnings.append("there are no test images: the figures are those of the validation images")
    return warnings


def _score(cache: Cache, text: TextSet, scoring: Scoring) -> Scores:
    images, positive = cache.embedding, text.positive.ensemble
    negative = None if text.negative is None else text.negative.ensemble
    scale = 1.0 if text.scale is None else text.scale
    if scoring == "sigmoid":
        return sigmoid_scores(images, positive, scale=scale, bias=text.bias)
    if scoring == "softmax":
        return softmax_scores(images, positive, scale=scale, negatives=negative)
    if negative is None:
        raise ValueError("pair scoring needs negatives")
    return pair_scores(images, positive, negative, scale=scale)
