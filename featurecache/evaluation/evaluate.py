"""Evaluate predictions: thresholds from the validation split, metrics on the test split."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.evaluation import simple_predictors
from featurecache.evaluation.controls import always_negative, measure_control, rank_parts
from featurecache.evaluation.repeated_runs import RANKING_METRICS, Trial
from featurecache.evaluation.scores import ScoredPredictions, score_predictions
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.bootstrap import PatientResamples, resample_patients
from featurecache.metrics.calibration import measure_calibration
from featurecache.metrics.classes import are_exclusive, measure_classes, predicted_classes
from featurecache.metrics.conformal import (
    DEFAULT_COVERAGE,
    ConformalLimits,
    fit_conformal,
    measure_answers,
)
from featurecache.metrics.delong import measure_delong
from featurecache.metrics.familiarity import FamiliarityScores
from featurecache.metrics.metrics import (
    ClassIntervals,
    ClassScores,
    Control,
    Headline,
    Metrics,
    SeedSpread,
    Spread,
    TextGain,
    format_with_interval,
)
from featurecache.metrics.platt_scaling import PlattScaling, fit_platt_where_it_helps, log_odds
from featurecache.metrics.predictive_values import (
    PredictiveValues,
    Prevalence,
    predictive_values,
    resolve_prevalence,
)
from featurecache.metrics.sampled_metrics import Estimate, MeanMetrics, SampledMetrics
from featurecache.metrics.thresholds import (
    F1,
    NOT_CHOSEN,
    ChosenThresholds,
    OperatingPoint,
    choose_thresholds,
)
from featurecache.wording import count_noun, pluralize


def evaluate(
    data: SplitData,
    probability: NDArray[np.floating],
    *,
    operating_point: OperatingPoint = F1,
    thresholds: NDArray[np.float64] | None = None,
    platt: PlattScaling | None = None,
    limits: ConformalLimits | None = None,
    coverage: float = DEFAULT_COVERAGE,
    ranking: NDArray[np.floating] | None = None,
    any_finding: NDArray[np.floating] | None = None,
    trials: Sequence[Trial] = (),
    seeds: SeedSpread | None = None,
    controls: Mapping[str, Control | None] | None = None,
    text_gain: TextGain | None = None,
    familiarity: FamiliarityScores | None = None,
    prevalence: Prevalence | None = None,
    negatives: str = "all",
    warnings: Sequence[str] = (),
    n_bootstrap: int = 1000,
) -> Metrics:
    """Compute the metrics of predictions on the test split.

    Thresholds are chosen on the validation split; a label without validation positives gets 0.5,
    and ``threshold_source`` says which it is. Without a test split, the validation split is scored
    at a threshold of 0.5.

    Args:
        data: Labels, patients and splits.
        probability: Probabilities of shape (N, C) in [0, 1].
        operating_point: The rule by which thresholds are chosen, here or in training.
        thresholds: Thresholds of shape (C,) that were chosen on another data set, in training; NaN
            for a label for which none could be. Nothing is then chosen or calibrated here. None to
            choose them on validation.
        platt: Platt scaling that was fitted with these thresholds.
        limits: Limits of split-conformal answers that were chosen with these thresholds.
        coverage: Share of each class that the limits are to cover where they are chosen here.
        ranking: Scores of shape (N, C) for AUROC and AUPRC, where probabilities saturate; None for
            the probabilities.
        any_finding: Scores of shape (N, C) that only tell abnormal images from normal ones, for the
            control of this name; None for no such control.
        trials: All trainings of the run, where there are several; its gain over ``any_finding`` is
            their mean.
        seeds: Their metrics, where they are of several seeds.
        controls: Further controls, by name. The prevalence of the labels, the answer "normal" for
            every image, and the view position alone are always added.
        text_gain: What the label texts contribute.
        familiarity: How familiar the scored images are to a trained model.
        prevalence: Share of positives, above 0 and below 1, of all labels or by label, for which
            predictive values are stated.
        negatives: Which negatives are known in ``data``: "all", "healthy" or "diseased". For some
            of them, metrics of whole images are undefined: exact match, Hamming loss and classes.
        warnings: What a reader of the metrics has to know.
        n_bootstrap: Number of bootstrap samples over patients; 0 for no intervals.

    Returns:
        The metrics.

    Raises:
        UsageError: No label was learned, there are neither test nor validation rows, or a
            prevalence is out of range or of no label.
    """
    stated = None if prevalence is None else resolve_prevalence(prevalence, data.label_names)
    split, rows = data.scored
    data.require_scorable()
    resamples = resample_patients(data.patient[rows], n_bootstrap=n_bootstrap, seed=0)
    carried = thresholds is not None
    unreached: Mapping[int, str] = {}
    if thresholds is None:
        chosen = _choose_thresholds(data, probability, operating_point)
        thresholds, unreached = chosen.values, chosen.unreached
        if split == "test" and len(data.val):
            # Of the log odds of the probabilities, which are what predictions.csv holds, even where
            # the ranking is finer.
            platt = fit_platt_where_it_helps(
                data.truth[data.val],
                log_odds(probability[data.val]),
                data.patient[data.val],
                learned=data.learned,
            )
            limits = fit_conformal(
                data.truth[data.val],
                probability[data.val],
                data.patient[data.val],
                coverage=coverage,
                learned=data.learned,
            )
    if platt is None or limits is None:
        reason = "there is no validation split"
        if split == "val":
            reason = "there is no test split, and the validation split is scored"
        elif carried:
            reason = "the training run has none"
        n_labels = len(data.label_names)
        platt = platt or PlattScaling.none(n_labels, reason)
        limits = limits or ConformalLimits.none(n_labels, reason, coverage=coverage)
    calibration = measure_calibration(
        data.truth[rows],
        probability[rows],
        platt,
        label_names=data.label_names,
        patients=data.patient[rows],
        learned=data.learned,
        intervals=n_bootstrap > 0,
    )
    chosen_on = "validation of the training run" if carried else "validation"
    source = f"{operating_point} on {chosen_on}"
    sources = [NOT_CHOSEN if np.isnan(value) else source for value in thresholds]
    thresholds = np.where(np.isnan(thresholds), 0.5, thresholds)
    score_at = partial(
        score_predictions,
        data.truth[rows],
        probability[rows],
        label_names=data.label_names,
        ranking=None if ranking is None else ranking[rows],
        learned=data.learned,
    )
    result = score_at(thresholds=thresholds, threshold_sources=sources, resamples=resamples)
    no_samples = replace(resamples, counts=resamples.counts[:0])
    at_half = score_at(thresholds=np.full_like(thresholds, 0.5), resamples=no_samples)
    scores = probability if ranking is None else ranking
    measure = partial(measure_control, data, rows=rows, resamples=resamples)
    ill_or_not = measure(any_finding, run=trials or [Trial(data, scores)])
    all_normal = always_negative(data, rows, resamples) if negatives == "all" else None
    metrics = Metrics.model_validate(
        {
            **result.scores.to_json(),
            "ci95": result.intervals,
            "n": len(rows),
            "level": data.level,
            "n_patients": result.n_patients,
            "split": split,
            "macro_labels": result.macro_labels,
            "n_bootstrap": result.n_bootstrap,
            "at_half": at_half.scores,
            **rank_parts(data, scores, rows, resamples, overall=result.sampled),
            "controls": {
                "any_finding": ill_or_not,
                "prevalence": measure(simple_predictors.prevalence(data), with_parts=False),
                "always_negative": all_normal,
                "view_only": measure(simple_predictors.view_only(data)),
                **(controls or {}),
            },
            "calibration": calibration,
            "at_prevalence": None if stated is None else _at_prevalence(result, stated),
            "delong": measure_delong(
                data.truth[rows],
                scores[rows],
                label_names=data.label_names,
                patients=data.patient[rows],
                learned=data.learned,
                patients_known=data.patients_known,
            ),
            "answers": measure_answers(
                data.truth[rows],
                probability[rows],
                limits,
                label_names=data.label_names,
                patients=data.patient[rows],
            ),
            "classes": _class_scores(trials or [Trial(data, scores)], rows, resamples),
            "text_gain": text_gain,
            "familiarity": familiarity,
            "seeds": seeds,
            "negatives": negatives,
        }
    )
    if negatives != "all":
        metrics = _without_whole_images(metrics)
    headline = metrics.headline
    all_warnings = [
        *dict.fromkeys(warnings),
        *_all_undefined(metrics),
        *_no_better_than_any_finding(headline, ill_or_not),
        *_worse_than_normal(headline, all_normal, operating_point),
        *_unreached(data.label_names, unreached, operating_point),
        *_missed_targets(metrics, operating_point),
        *([familiarity.warning] if familiarity is not None and familiarity.warning else []),
    ]
    return metrics.model_copy(update={"warnings": all_warnings})  # without validation


def _without_whole_images(metrics: Metrics) -> Metrics:
    """Return metrics without those of whole images, of which some labels are left out."""
    undefined = {"exact_match": None, "hamming_loss": None}
    return metrics.replace(
        **undefined,
        ci95=metrics.ci95.model_copy(update=undefined),
        at_half=metrics.at_half.model_copy(update=undefined),
        classes=None,
    )


def _class_scores(
    trials: Sequence[Trial], rows: NDArray[np.intp], resamples: PatientResamples
) -> ClassScores | None:
    """Return the scores of exclusive classes, as means over trainings; None for other labels."""
    data = trials[0].data
    if not are_exclusive(data.truth):
        return None
    result = measure_classes(
        data.truth[rows],
        [predicted_classes(trial.score[rows], trial.data.learned) for trial in trials],
        resamples,
    )
    return ClassScores(
        labels=list(data.label_names),
        accuracy=result.accuracy.value,
        balanced_accuracy=result.balanced_accuracy.value,
        confusion=result.confusion.tolist(),
        ci95=ClassIntervals(
            accuracy=result.accuracy.ci95, balanced_accuracy=result.balanced_accuracy.ci95
        ),
    )


def _at_prevalence(
    scored: ScoredPredictions, prevalence: Mapping[str, float]
) -> dict[str, PredictiveValues]:
    """Return the predictive values of each label that has a stated prevalence."""
    values = {}
    for label, share in prevalence.items():
        scores, intervals = scored.scores.per_label[label], scored.intervals.per_label[label]
        values[label] = predictive_values(
            scores.recall,
            scores.specificity,
            share,
            sensitivity_ci=intervals.recall,
            specificity_ci=intervals.specificity,
        )
    return values


def _all_undefined(metrics: Metrics) -> list[str]:
    """Return a warning if no label can be ranked; or no warning."""
    if metrics.macro_labels:
        return []
    return [
        "AUROC and AUPRC are undefined: no label that was learned has positives and negatives "
        f"among the scored {pluralize(metrics.level)}"
    ]


def _no_better_than_any_finding(scores: Headline, control: Control | None) -> list[str]:
    """Return a warning if one score for all labels ranks as well; or no warning."""
    if control is None:
        return []
    lost = []
    if control.gain is not None:
        auroc = control.gain.macro.auroc
        low = auroc.difference if auroc.ci95 is None else auroc.ci95[0]
        if low is not None and low <= 0:
            lost.append(
                f"over the {count_noun(len(control.gain.labels), 'label')} with enough patients "
                f"its gain is {format_with_interval(auroc.difference, auroc.ci95)}"
            )
    macro, baseline = scores.macro.auroc, control.macro.auroc
    if macro is not None and baseline is not None and macro <= baseline:
        lost.append(f"over all labels it is {_with_note(macro, scores)}, against {baseline:.3f}")
    if not lost:
        return []
    return [
        "macro AUROC is not clearly above that of one score for all labels, how abnormal the image "
        f"is: {', and '.join(lost)}. So the model may know that a patient is ill, but not which "
        "finding it is"
    ]


def spread_over_seeds(
    trainings: Sequence[Trial],
    seeds: Sequence[int],
    *,
    operating_point: OperatingPoint = F1,
    n_bootstrap: int = 1000,
) -> SeedSpread:
    """Compute means over seeds, with intervals over patients and seeds.

    The variance of a mean is that over patients, from bootstrap samples that all seeds share, plus
    the variance between seeds divided by their number.

    Args:
        trainings: The probabilities of each seed's training; thresholds are those of `evaluate`.
        seeds: The seeds.
        operating_point: The rule by which thresholds are chosen.
        n_bootstrap: Number of bootstrap samples over patients; 0 for no intervals.

    Returns:
        The means over the labels that every seed learned.

    Raises:
        UsageError: There is no such label.
    """
    _, rows = trainings[0].data.scored
    resamples = resample_patients(trainings[0].data.patient[rows], n_bootstrap=n_bootstrap, seed=0)
    learned = np.logical_and.reduce([training.data.learned for training in trainings])
    if not learned.any():
        raise UsageError(
            "no label was learned with every seed, so there is no mean over seeds: train on more "
            "images, or with a single seed"
        )

    def sampled(training: Trial) -> SampledMetrics:
        thresholds = _choose_thresholds(training.data, training.score, operating_point).values
        return score_predictions(
            training.data.truth[rows],
            training.score[rows],
            label_names=training.data.label_names,
            thresholds=np.where(np.isnan(thresholds), 0.5, thresholds),
            resamples=resamples,
            learned=learned,
        ).sampled

    samples = [sampled(training) for training in trainings]
    mean = MeanMetrics(samples)
    supported = mean.macro_labels & mean.support.enough
    mean_supported = MeanMetrics([training.over(supported) for training in samples])

    def spread(estimate: Estimate) -> Spread:
        values = [value for value in estimate.trainings if value is not None]
        return Spread(
            mean=estimate.value,
            sd=None if estimate.value is None else float(np.std(values, ddof=1)),
            ci95=estimate.ci95,
            values=estimate.trainings,
        )

    return SeedSpread(
        seeds=list(seeds),
        learned=np.array(trainings[0].data.label_names)[learned].tolist(),
        macro={name: spread(estimate) for name, estimate in mean.macro_metrics().items()},
        supported={name: spread(mean_supported.macro(name)) for name in RANKING_METRICS}
        if supported.any()
        else None,
        micro={name: spread(estimate) for name, estimate in mean.micro_metrics().items()},
        exact_match=spread(mean.exact_match),
        hamming_loss=spread(mean.hamming_loss),
    )


def _choose_thresholds(
    data: SplitData, probability: NDArray[np.floating], operating_point: OperatingPoint
) -> ChosenThresholds:
    """Choose thresholds on validation; there are none where it is scored, or missing."""
    if data.scored[0] != "test" or len(data.val) == 0:
        return ChosenThresholds.none(len(data.label_names))
    return choose_thresholds(data.truth[data.val], probability[data.val], operating_point)


def _unreached(
    label_names: Sequence[str], reasons: Mapping[int, str], operating_point: OperatingPoint
) -> list[str]:
    """Return a warning for each reason why thresholds are of no use."""
    labels: dict[str, list[str]] = {}
    for column, reason in reasons.items():
        labels.setdefault(reason, []).append(label_names[column])
    return [
        f"on validation, {operating_point.description} {reason}: {', '.join(names)}"
        for reason, names in labels.items()
    ]


def _missed_targets(metrics: Metrics, operating_point: OperatingPoint) -> list[str]:
    """Return a warning if the sensitivity or specificity is below its target, with its interval."""
    target = operating_point.target
    if target is None:
        return []
    metric = "recall" if operating_point.rule == "sensitivity" else operating_point.rule
    missed = [
        f"{label} {format_with_interval(getattr(scores, metric), interval)}"
        for label, scores in metrics.per_label.items()
        if scores.threshold_chosen
        and (interval := scores.interval(metric)) is not None
        and interval[1] < target
    ]
    if not missed:
        return []
    return [
        f"thresholds were chosen for {operating_point.description}, but among the scored "
        f"{pluralize(metrics.level)} it is lower: {', '.join(missed)}"
    ]


def _worse_than_normal(
    scores: Headline, all_normal: Control | None, operating_point: OperatingPoint
) -> list[str]:
    """Return a warning if calling every image normal makes fewer errors; or no warning."""
    if all_normal is None:
        return []
    worse = [
        f"{name} {_with_note(score, scores)} is worse than the {baseline:.3f}"
        for name, score, baseline, sign in (
            ("exact match", scores.exact_match, all_normal.exact_match, 1),
            ("Hamming loss", scores.hamming_loss, all_normal.hamming_loss, -1),
        )
        if score is not None and baseline is not None and sign * score < sign * baseline
    ]
    if not worse:
        return []
    return [
        f"{' and '.join(worse)} of calling every image normal: the thresholds have "
        f"{operating_point.description} on validation, which accepts many false positives"
    ]


def _with_note(score: float, scores: Headline) -> str:
    return f"{score:.3f} ({scores.note})" if scores.note else f"{score:.3f}"


def caveats(
    *,
    model: str,
    dataset: str,
    exposed: bool,
    imported: Collection[str] = (),
    image_level_split: bool,
    has_test: bool,
    patients_known: bool,
    shared_patients: int,
) -> list[str]:
    """Return what a reader of the metrics has to know about the images and the encoder.

    Args:
        model: Name of the encoder.
        dataset: Name of the data set.
        exposed: Whether the encoder may have been trained on the images.
        imported: Files that the embeddings were imported from, if they were.
        image_level_split: Whether images of one patient may be in two splits.
        has_test: Whether there is a test split.
        patients_known: Whether patients are known.
        shared_patients: Number of patients with images in several splits.
    """
    sharing = count_noun(shared_patients, "patient has", "patients have")
    exposure = (
        f"its embeddings were imported from {' and '.join(imported)}, without a list of the images "
        f"that {model} was trained on"
        if imported
        else f"{model} may have been trained on this data set"
    )
    warnings = {
        f"possible {dataset.upper()} exposure: {exposure}, so the metrics may not be those of "
        "unseen images": exposed,
        "the split is by image: one patient may be in training and test, so the metrics are "
        "optimistic": image_level_split,
        f"{sharing} images in several splits, although the split is not declared to be by image: "
        "the metrics are optimistic": shared_patients > 0 and not image_level_split,
        "patients are unknown, so each image counts as its own patient: images of one person may "
        "be in training and test, and the intervals are those of images": not patients_known,
        "there is no test split: the metrics are those of the validation split": not has_test,
    }
    return [warning for warning, applies in warnings.items() if applies]
