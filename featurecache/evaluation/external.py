"""External validation: a trained model evaluated on the cache of another data set."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UnknownNameError, UsageError
from featurecache.evaluation.controls import random_features, untrained_controls
from featurecache.evaluation.evaluate import evaluate
from featurecache.evaluation.from_cache import (
    cache_caveats,
    cache_reference,
    cohort_from,
    predictions_from,
)
from featurecache.evaluation.groups import group_rows
from featurecache.evaluation.label_matching import match_labels, match_warnings
from featurecache.evaluation.negatives import check_negatives, keep_negatives
from featurecache.evaluation.simple_predictors import any_finding_from_scores
from featurecache.evaluation.split_data import SplitData
from featurecache.label_cells import any_of
from featurecache.metrics.conformal import ConformalLimits
from featurecache.metrics.familiarity import Familiarity
from featurecache.metrics.metrics import LabelMap, Metrics
from featurecache.metrics.platt_scaling import PlattScaling, log_odds
from featurecache.metrics.predictive_values import Prevalence, stated_prevalence
from featurecache.metrics.retuned import Retuned, measure_retuned
from featurecache.metrics.subgroups import Subgroups, measure_subgroups
from featurecache.metrics.thresholds import F1, OperatingPoint, choose_thresholds
from featurecache.provenance.leaks import find_leaks, require_unseen
from featurecache.provenance.names import base_name
from featurecache.provenance.provenance import Provenance
from featurecache.runs.run import Run
from featurecache.store.cache import Cache
from featurecache.wording import count_noun, undefined_metrics

if TYPE_CHECKING:
    from featurecache.evaluation.groups import TableLike

Split = Literal["test", "all"]


def external_rows(cache: Cache, split: str) -> NDArray[np.intp]:
    """Return the rows of a cache's test split, or all rows.

    Raises:
        UnknownNameError: ``split`` is neither "test" nor "all".
        UsageError: There are no test rows.
    """
    if split not in get_args(Split):
        raise UnknownNameError("split", split, get_args(Split))
    if split == "all":
        return np.arange(len(cache.images))
    rows = cache.rows("test")
    if len(rows) == 0:
        raise UsageError(f"{cache.path} has no test images: give `split` all to score every image")
    return rows


def validate_external(
    cache: Cache,
    classify: Callable[[NDArray[np.floating]], NDArray[np.float64]],
    *,
    name: str,
    labels: Sequence[str],
    thresholds: Sequence[float],
    operating_point: OperatingPoint = F1,
    provenance: Provenance,
    learned: Sequence[bool] | None = None,
    calibration: PlattScaling | None = None,
    limits: ConformalLimits | None = None,
    familiarity: Familiarity | None = None,
    label_map: LabelMap | None = None,
    split: str = "test",
    prevalence: Prevalence | None = None,
    by: str | Sequence[str] | None = None,
    groups: "TableLike | None" = None,
    negatives: str = "all",
    warnings: Sequence[str] = (),
    n_bootstrap: int = 1000,
) -> Run:
    """Evaluate what was trained elsewhere.

    Thresholds are those of the training: nothing is chosen on this data set. The view-only control
    learns from this data set's training images; with ``split="all"`` there are none left, and it
    is None.

    Args:
        cache: The data set.
        classify: Function from embeddings (N, D), or tokens, to probabilities (N, L) of the trained
            labels.
        name: Name of the model.
        labels: The L trained labels.
        thresholds: Their thresholds, chosen in training; NaN where none could be.
        operating_point: The rule by which they were chosen.
        provenance: The images that the model was trained on.
        learned: Whether training had positives and negatives of each; None for all.
        calibration: Their Platt scaling, fitted in training; None without one.
        limits: Limits of their answers, chosen in training; None without any.
        familiarity: Compares images with those of the training; None where it cannot.
        label_map: Trained label to label, or labels, of the cache; None for labels of the same
            name or meaning, see ``match_labels``.
        split: "test" or "all".
        prevalence: Share of positives for which predictive values are stated; see ``Run.evaluate``.
        by: Attributes whose groups are measured; see ``Run.evaluate``.
        groups: Table of further attributes; see ``Run.evaluate``.
        negatives: Which negatives are scored; see ``Run.evaluate``.
        warnings: Further caveats to record.
        n_bootstrap: Number of bootstrap samples over patients.

    Returns:
        A run of kind "external"; its metrics are named after the data set's labels, or after the
        trained one where it is scored against several.

    Raises:
        UsageError: There is nothing to score, no label matches or was learned, or the model was
            trained on images that would be scored.
    """
    check_negatives(negatives)
    cache.require_labels()
    present = cache.labels.names
    matches = match_labels(
        labels,
        present,
        label_map,
        trained_on=map(base_name, provenance.trained_on),
        datasets=[name for source in cache.sources for name in source.header.vocabulary_names],
    )
    rows = external_rows(cache, split)
    val = cache.learning_rows("val") if split == "test" else rows[:0]
    seen_val = sum(
        int(find_leaks(records, provenance.trained_on).copies.sum())
        for records in cache.records(val)
    )
    if by is None and groups is not None:
        raise UsageError("name the columns of `groups` to group by as `by`, or leave out `groups`")
    grouped, notes = (None, []) if by is None else group_rows(cache, rows, by, groups)
    leak_warnings = [
        warning
        for records in cache.records(rows)
        for warning in require_unseen(
            records,
            provenance.trained_on,
            by=name,
            by_patient=not cache.header.image_level_split,
        )
    ]
    sources = [labels.index(source) for source in matches]
    truth = np.stack(
        [
            any_of(cache.labels.values[:, [present.index(label) for label in match.labels]])
            for match in matches.values()
        ],
        axis=1,
    )
    truth = keep_negatives(truth, negatives, of_data_set=cache.labels.values, label_names=present)
    is_learned = np.array([learned is None or learned[source] for source in sources])
    not_learned = [label for label, known in zip(matches, is_learned, strict=True) if not known]
    reason = f"not learned by {name}, which had no positive or no negative training image"
    data = SplitData(
        truth=truth,
        label_names=tuple(match.scored_as(source) for source, match in matches.items()),
        patient=cache.patients,
        view=cache.views,
        train=cache.learning_rows("train") if split == "test" else rows[:0],
        val=rows[:0],
        test=rows,
        learned=is_learned,
        patients_known=cache.patients_known,
        level=cache.units.level,
    )
    values = cache.inputs.values
    probability = classify(values)[:, sources]
    probability = cache.join_scores(probability, data.label_names)
    random = classify(random_features((len(rows), *values.shape[1:]), seed=0))[:, sources]
    metrics = evaluate(
        data,
        probability,
        operating_point=operating_point,
        thresholds=np.array([thresholds[source] for source in sources], dtype=np.float64),
        any_finding=any_finding_from_scores(data, log_odds(probability)),
        platt=None if calibration is None else calibration.of_labels(sources),
        limits=None if limits is None else limits.of_labels(sources),
        familiarity=None
        if familiarity is None
        else familiarity.measure(values[external_rows(cache.inputs, split)]),
        controls=untrained_controls(data, probability, random, n_bootstrap=n_bootstrap),
        warnings=[
            *warnings,
            *match_warnings(matches, labels),
            *([undefined_metrics(not_learned, ("was", "were"), reason)] if not_learned else []),
            *leak_warnings,
            *notes,
            *_not_external(name, cache.header.dataset, seen_val, len(val)),
            *cache_caveats(cache, rows, own_split=False),
        ],
        prevalence=prevalence,
        negatives=negatives,
        n_bootstrap=n_bootstrap,
    )
    metrics = metrics.replace(
        split=split,
        label_map=matches,
        retuned=_retune(
            replace(data, val=val),
            probability,
            operating_point,
            split,
            own_data=seen_val > 0,
        ),
        subgroups=None if grouped is None else _subgroups(data, probability, metrics, grouped),
    )
    return Run(
        kind="external",
        config={
            "run": name,
            "labels": list(data.label_names),
            "label_policy": cache.labels.applied_policy,
            "label_map": {source: match.to_json() for source, match in matches.items()},
            "units": cache.units.to_config(),
            "operating_point": str(operating_point),
            "split": split,
            "prevalence": stated_prevalence(prevalence),
            "by": [by] if isinstance(by, str) else list(by or ()),
            "groups": str(groups) if isinstance(groups, str | os.PathLike) else None,
            "negatives": negatives,
            "n_bootstrap": n_bootstrap,
            "cache": cache_reference(cache),
            "cohort": cohort_from(cache, replace(data, val=val), trained=False).to_json(),
        },
        metrics=metrics,
        scored=predictions_from(cache, data, probability),
        default_name=f"{name.rstrip('/').rpartition('/')[2]}-on-{cache.path.parent.name}",
    )


def _not_external(name: str, dataset: str, seen: int, n_val: int) -> list[str]:
    """Return a warning if validation images of a data set were trained on; or no warning."""
    if not seen:
        return []
    return [
        f"this is not external validation: {name} was trained, or its thresholds were chosen, on "
        f"{seen} of the {count_noun(n_val, 'validation image')} of {dataset}, although on none of "
        "the images that are scored"
    ]


def _retune(
    data: SplitData,
    probability: NDArray[np.float64],
    point: OperatingPoint,
    split: str,
    *,
    own_data: bool,
) -> Retuned:
    """Measure the thresholds that the rule of the training chooses on validation images here.

    Args:
        data: Labels, patients and splits.
        probability: Probabilities of shape (N, C).
        point: The rule.
        split: What is scored: "test" or "all".
        own_data: Whether the training has seen some of these validation images.
    """
    if own_data:
        reason = "the model was trained, or its thresholds were chosen, on these validation images"
        return Retuned(operating_point=str(point), reason=reason, per_label={})
    if not len(data.val):
        reason = "all images are scored, so that none are left to choose thresholds on"
        if split == "test":
            reason = "the data set has no validation images to choose thresholds on"
        return Retuned(operating_point=str(point), reason=reason, per_label={})
    truth = data.truth[data.val]
    chosen = choose_thresholds(truth, probability[data.val], point)
    reasons = np.where((truth == 1).any(axis=0), "negative", "positive")
    return Retuned(
        operating_point=str(point),
        per_label=measure_retuned(
            data.truth[data.test],
            probability[data.test],
            np.where(data.learned, chosen.values, np.nan),
            label_names=data.label_names,
            patients=data.patient[data.test],
            reasons=[
                f"no validation image is {kind}" if learned else "it was not learned"
                for kind, learned in zip(reasons, data.learned, strict=True)
            ],
        ),
    )


def _subgroups(
    data: SplitData,
    probability: NDArray[np.float64],
    metrics: Metrics,
    grouped: Mapping[str, NDArray[np.str_]],
) -> dict[str, Subgroups]:
    """Measure the groups of each attribute at the thresholds of the run, for learned labels."""
    names = [name for name, learned in zip(data.label_names, data.learned, strict=True) if learned]
    thresholds = np.array([metrics.per_label[name].threshold for name in names])
    scored = np.ix_(data.test, np.flatnonzero(data.learned))
    truth, scores = data.truth[scored], probability[scored]
    return {
        attribute: measure_subgroups(
            truth,
            scores >= thresholds,
            scores,
            label_names=names,
            patients=data.patient[data.test],
            groups=groups,
        )
        for attribute, groups in grouped.items()
    }
