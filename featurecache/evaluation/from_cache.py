"""Scoring a cache: its rows as what is scored, and zero-shot scores from its text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.alignment.alignment import Alignment
from featurecache.alignment.apply import align_images, align_texts, require_unseen
from featurecache.errors import CacheError
from featurecache.evaluation.controls import (
    control_figures,
    permuted_texts,
    random_features,
    text_gain,
    untrained_controls,
)
from featurecache.evaluation.evaluate import caveats, evaluate
from featurecache.evaluation.repeated_runs import Trial
from featurecache.evaluation.split_data import SplitData
from featurecache.evaluation.zero_shot import (
    Scores,
    Scoring,
    choose_scoring,
    pair_scores,
    sigmoid_scores,
    softmax_scores,
)
from featurecache.runs.folder import new_run, write_config, write_json, write_predictions
from featurecache.store.cache import Cache
from featurecache.store.layout import UNKNOWN
from featurecache.store.records import TextSet


@dataclass(frozen=True)
class ZeroShot:
    """Zero-shot scores of a whole cache, and what was measured of them.

    Attributes:
        text: the prompt set that was scored with.
        scoring: how its cosines became probabilities.
        scores: of every row of the cache, (N, C).
        metrics: the document of ``metrics.json``.
        alignment: what brought images and texts into one space, where the encoder does not.
    """

    text: TextSet
    scoring: Scoring
    scores: Scores
    metrics: dict[str, Any]
    alignment: Alignment | None


def zero_shot(
    cache: Cache,
    *,
    prompts: str | None = None,
    scoring: str = "auto",
    n_bootstrap: int = 1000,
    alignment: Alignment | None = None,
) -> ZeroShot:
    """Score every image of a cache against its prompts, without any training of its own.

    Thresholds come from the validation rows where there are any; no figure is chosen on test. With
    an alignment the view-only control learns from the cache's training rows; without one nothing
    was trained, and it is null.

    Args:
        cache: embeddings, labels and texts.
        prompts: the prompt set; needed only where the cache holds several.
        scoring: as ``choose_scoring`` takes it.
        n_bootstrap: number of bootstrap samples over patients.
        alignment: for the cache of an unaligned encoder.

    Raises:
        CacheError: the cache has no text, no labels, or several prompt sets and none is named.
        UsageError: the encoder is unaligned, the scoring asked for cannot be done, or the alignment
            learned from images that would be scored.
        RunError: the alignment is of other encoders or settings; the message names the field.
        UnknownNameError: there is no such prompt set or scoring.
    """
    warnings = cache_caveats(cache)
    train = np.empty(0, dtype=np.intp)
    if alignment is None:
        text = cache.text(prompts)
    else:
        text, differences = align_texts(alignment, cache, prompts)
        warnings += differences
        train = cache.rows("train")
    if (cache.labels.values == UNKNOWN).all():
        raise CacheError(f"{cache.path} holds no labels to score against")
    how = choose_scoring(
        scoring,
        aligned=text.aligned,
        bias=text.bias,
        has_negatives=text.negative is not None,
        n_labels=len(cache.labels.names),
        exclusive=_exclusive(cache.labels.values),
    )
    rows = split_data_from(cache, train=train)
    _, scored = rows.scored
    if alignment is not None:
        require_unseen(alignment, cache, scored)

    def score(embedding: NDArray[np.float16]) -> Scores:
        images = embedding if alignment is None else align_images(alignment, embedding)
        return _score(images, text, how)

    scores = score(cache.embedding)
    metrics = evaluate(rows, scores.probabilities, ranking=scores.logits, n_bootstrap=n_bootstrap)
    random = score(random_features((len(scored), cache.dim), seed=0))
    metrics["controls"] |= untrained_controls(
        rows, scores.logits, random.logits, n_bootstrap=n_bootstrap
    )
    permuted = permuted_texts(rows, scores.logits)
    metrics["controls"]["permuted_texts"] = (
        control_figures(permuted, scored, n_bootstrap=n_bootstrap) if permuted else None
    )
    if alignment is not None:
        real = [Trial(rows, scores.logits)]
        metrics["text_gain"] = text_gain(real, permuted, scored, n_bootstrap=n_bootstrap)
    metrics["warnings"] = warnings
    return ZeroShot(text, how, scores, metrics, alignment)


def save_zero_shot(target: Path, cache: Cache, result: ZeroShot) -> None:
    """Write a run folder of zero-shot scores, whole or not at all.

    Raises:
        UsageError: something is at ``target`` already.
        OSError: the disk is full or not writable.
    """
    settings = {
        "scoring": result.scoring,
        "labels": list(cache.labels.names),
        "cache": cache_reference(cache),
        "prompts": {"name": result.text.name, "fingerprint": result.text.fingerprint},
        "alignment": None if result.alignment is None else alignment_reference(result.alignment),
    }
    with new_run(target) as folder:
        write_config(folder, "zero-shot", settings)
        write_json(folder / "metrics.json", result.metrics)
        write_predictions(folder, **predictions_of(cache, result.scores.probabilities))


def cache_reference(cache: Cache) -> dict[str, Any]:
    """What a run's config says of the cache it was made from, and of each of several."""
    reference: dict[str, Any] = {
        "path": str(cache.path),
        "dataset": cache.header.dataset,
        "model": cache.header.model,
        "fingerprint": cache.fingerprint,
        "spec": dict(cache.header.encoder_spec),
        "dim": cache.dim,
    }
    if len(cache.members) > 1:
        reference["joined"] = [cache_reference(one) for one in cache.members]
    return reference


def alignment_reference(alignment: Alignment) -> dict[str, Any]:
    """What a run's config says of the alignment that it was scored with."""
    kept = ("model", "dataset", "method", "settings", "prompts")
    return {
        "fingerprint": alignment.fingerprint,
        **{name: alignment.spec[name] for name in kept},
    }


def split_data_from(
    cache: Cache, *, train: NDArray[np.intp], learned: NDArray[np.bool_] | None = None
) -> SplitData:
    """The rows of a cache as what is scored.

    Args:
        cache: the cache.
        train: rows that were learned from; none for zero-shot.
        learned: (C,) labels that could be learned; None for all.
    """
    return SplitData(
        truth=cache.labels.values,
        label_names=cache.labels.names,
        patient=cache.patients,
        view=cache.views,
        train=train,
        val=cache.rows("val"),
        test=cache.rows("test"),
        learned=np.ones(len(cache.labels.names), dtype=np.bool_) if learned is None else learned,
    )


def predictions_of(cache: Cache, probability: NDArray[np.float64]) -> dict[str, Any]:
    """What ``predictions.csv`` holds: the validation rows, then the test rows."""
    rows = np.concatenate([cache.rows("val"), cache.rows("test")])
    return {
        "ids": cache.ids[rows],
        "patients": cache.patients[rows],
        "splits": cache.splits[rows],
        "label_names": cache.labels.names,
        "truth": cache.labels.values[rows],
        "probability": probability[rows],
    }


def cache_caveats(cache: Cache) -> list[str]:
    """What a reader of figures has to know of the cache they come from."""
    warnings = caveats(
        model=cache.header.model,
        dataset=cache.header.dataset,
        exposed=cache.header.exposed,
        image_level_split=cache.header.image_level_split,
        has_test=len(cache.rows("test")) > 0,
    )
    for one in cache.members:
        known = one.header.trained_on.get(one.header.collection)
        if not known:
            continue
        chosen_on = cache.ids[np.concatenate([cache.rows("train"), cache.rows("val")])].tolist()
        if seen := len(known.intersection(chosen_on)):
            warnings.append(
                f"{one.header.model} itself was trained on {seen} of the {len(chosen_on)} training "
                "and validation images: it tells them better than new ones, so that a head leans "
                "on it too much, and thresholds and calibration chosen there are too sure"
            )
    return warnings


def _exclusive(labels: NDArray[np.int8]) -> bool:
    """Whether exactly one label holds for each image, with nothing unknown."""
    return bool((labels != UNKNOWN).all() and ((labels == 1).sum(axis=1) == 1).all())


def _score(images: NDArray[np.floating], text: TextSet, scoring: Scoring) -> Scores:
    positive = text.positive.ensemble
    negative = None if text.negative is None else text.negative.ensemble
    scale = 1.0 if text.scale is None else text.scale
    if scoring == "sigmoid":
        return sigmoid_scores(images, positive, scale=scale, bias=text.bias)
    if scoring == "softmax":
        # Only a single label is weighed against its negative; several compete with each other.
        rival = negative if len(positive) == 1 else None
        return softmax_scores(images, positive, scale=scale, negatives=rival)
    if negative is None:
        raise ValueError("pair scoring needs negatives")
    return pair_scores(images, positive, negative, scale=scale)
