"""Zero-shot: score the images of a cache against its prompts, without training."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.alignment.alignment import as_alignment
from featurecache.alignment.apply import align_images, align_texts, check_alignment
from featurecache.evaluation.controls import (
    permute_texts,
    random_features,
    summarize_control,
    text_gain,
    untrained_controls,
)
from featurecache.evaluation.evaluate import evaluate
from featurecache.evaluation.from_cache import (
    cache_caveats,
    cache_reference,
    cohort_from,
    learning_caveats,
    predictions_from,
    run_name,
    split_data_from,
)
from featurecache.evaluation.repeated_runs import Trial
from featurecache.evaluation.simple_predictors import any_finding_from_scores
from featurecache.evaluation.zero_shot_scores import (
    Scoring,
    ZeroShotScores,
    choose_scoring,
    pair_scores,
    sigmoid_scores,
    softmax_scores,
)
from featurecache.metrics.classes import are_exclusive
from featurecache.metrics.predictive_values import Prevalence, stated_prevalence
from featurecache.metrics.thresholds import OperatingPoint
from featurecache.prompts import PromptSet
from featurecache.runs.run import Run
from featurecache.store.cache import Cache
from featurecache.store.open import CacheLike, open_cache

if TYPE_CHECKING:
    from featurecache.alignment.alignment import Alignment
    from featurecache.store.records import TextSet


def zero_shot(
    cache: CacheLike,
    *,
    prompts: str | PromptSet | None = None,
    scoring: str = "auto",
    alignment: "Alignment | str | os.PathLike[str] | None" = None,
    operating_point: str | OperatingPoint = "f1",
    prevalence: Prevalence | None = None,
    n_bootstrap: int = 1000,
) -> Run:
    """Score every image of a cache against its prompts.

    Thresholds come from the validation split where there is one; nothing is chosen on test. The
    view-only control learns from the training split only where an alignment did too; otherwise
    nothing was trained, and it is None.

    Example:
        >>> import featurecache as fc
        >>> run = fc.zero_shot("cache/phantom/tiny.h5", prompts="signs")
        >>> run.metrics.macro.auroc > 0.9
        True

    Args:
        cache: A cache, or its path.
        prompts: Prompt set, or its name; needed only where the cache holds several.
        scoring: How cosines become probabilities: "sigmoid" with the model's scale and bias,
            "softmax" over the labels, "pair" for each label against its negative, or "auto".
        alignment: An alignment or its file, for the cache of an encoder whose images and texts do
            not share a space.
        operating_point: The rule by which thresholds are chosen on validation images; see
            ``train_head``.
        prevalence: Share of positives for which predictive values are stated; see ``Run.evaluate``.
        n_bootstrap: Number of bootstrap samples over patients; 0 for no intervals.

    Returns:
        A run of kind "zero-shot".

    Raises:
        CacheError: The cache has no text, or several prompt sets and none is named.
        UsageError: The cache has no labels, the encoder is unaligned, the scoring is impossible, or
            the alignment was fitted to images that would be scored.
        RunError: The alignment is of other encoders or settings; the message names the field.
        UnknownNameError: There is no such prompt set, scoring or operating point.
    """
    point = OperatingPoint.parse(operating_point)
    cache, alignment = open_cache(cache), as_alignment(alignment)
    cache.require_labels()
    cache.require_vectors()
    text, differences = prompt_texts(cache, prompts, alignment)
    train = np.empty(0, dtype=np.intp)
    if alignment is not None:
        train = cache.inputs.learning_rows("train")
    method = scoring_of(cache, text, scoring)
    data = split_data_from(cache, train=train)
    _, rows = data.scored
    warnings = [
        *cache_caveats(cache, rows),
        *learning_caveats(cache),
        *cache.copies.warnings(),
        *text.warnings,
        *differences,
    ]
    if alignment is not None:
        warnings += check_alignment(alignment, cache, rows)

    of_inputs = score_images(cache.inputs.embedding, text, method, alignment)
    scores = ZeroShotScores(
        logits=cache.join_scores(of_inputs.logits, cache.labels.names),
        probabilities=cache.join_scores(of_inputs.probabilities, cache.labels.names),
    )
    random = score_images(random_features((len(rows), cache.dim), seed=0), text, method, alignment)
    permuted = permute_texts(data, scores.logits)
    controls = untrained_controls(data, scores.logits, random.logits, n_bootstrap=n_bootstrap)
    controls["permuted_texts"] = summarize_control(permuted, rows, n_bootstrap=n_bootstrap)
    gain = None
    if alignment is not None:
        gain = text_gain([Trial(data, scores.logits)], permuted, rows)
    metrics = evaluate(
        data,
        scores.probabilities,
        operating_point=point,
        ranking=scores.logits,
        any_finding=any_finding_from_scores(data, scores.logits),
        controls=controls,
        text_gain=gain,
        warnings=warnings,
        prevalence=prevalence,
        n_bootstrap=n_bootstrap,
    )
    return Run(
        kind="zero-shot",
        config={
            "scoring": method,
            "labels": list(cache.labels.names),
            "label_policy": cache.labels.applied_policy,
            "units": cache.units.to_config(),
            "cache": cache_reference(cache),
            "cohort": cohort_from(cache, data, trained=False).to_json(),
            "prompts": {"name": text.name, "fingerprint": text.fingerprint},
            "alignment": None if alignment is None else _alignment_reference(alignment),
            "operating_point": str(point),
            "prevalence": stated_prevalence(prevalence),
            "n_bootstrap": n_bootstrap,
        },
        metrics=metrics,
        scored=predictions_from(cache, data, scores.probabilities),
        default_name=run_name(cache, "zero-shot"),
    )


def _alignment_reference(alignment: "Alignment") -> dict[str, Any]:
    """Return what a run's config records about its alignment."""
    fields = ("model", "dataset", "method", "settings", "prompts")
    return {
        "fingerprint": alignment.fingerprint,
        "path": None if alignment.path is None else str(alignment.path),
        **{name: alignment.spec[name] for name in fields},
    }


def prompt_texts(
    cache: Cache, prompts: str | PromptSet | None, alignment: "Alignment | None"
) -> "tuple[TextSet, list[str]]":
    """Return a prompt set in the space of a cache's images, and warnings about its alignment.

    Raises:
        CacheError: The cache has no text, or several prompt sets and none is named.
        UsageError: The encoder is unaligned, or it needs no alignment.
        RunError: The alignment is of other encoders or settings; the message names the field.
        UnknownNameError: There is no such prompt set.
    """
    if alignment is not None:
        return align_texts(alignment, cache, prompts)
    cache.require_text_space()
    return cache.text(prompts), []


def scoring_of(cache: Cache, text: "TextSet", scoring: str) -> Scoring:
    """Return the scoring of a prompt set on a cache; see ``choose_scoring``."""
    return choose_scoring(
        scoring,
        aligned=text.aligned,
        bias=text.bias,
        has_negatives=text.negative is not None,
        n_labels=len(cache.labels.names),
        exclusive=are_exclusive(cache.labels.values),
    )


def score_images(
    embedding: NDArray[np.floating],
    text: "TextSet",
    scoring: Scoring,
    alignment: "Alignment | None" = None,
) -> ZeroShotScores:
    """Score N images, (N, D), against the prompts of a set."""
    images = embedding if alignment is None else align_images(alignment, embedding)
    positive = text.positive.ensemble
    scale = 1.0 if text.scale is None else text.scale
    if scoring == "sigmoid":
        return sigmoid_scores(images, positive, scale=scale, bias=text.bias)
    if scoring == "softmax" and len(positive) > 1:
        return softmax_scores(images, positive, scale=scale)
    if text.negative is None:
        raise ValueError("scores against negatives need negative prompts")
    return pair_scores(images, positive, text.negative.ensemble, scale=scale)
