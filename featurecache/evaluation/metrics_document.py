"""The metrics.json document: every metric with its interval, as plain Python values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featurecache.metrics.bootstrap import (
    bootstrap_metrics,
    ci_or_none,
    none_if_nan,
    resample_patients,
)
from featurecache.metrics.multilabel import MetricArrays, compute_metrics
from featurecache.metrics.ranking import AnyFloats, Floats, Labels, confusion


def metrics_document(
    truth: Labels,
    probability: AnyFloats,
    *,
    label_names: Sequence[str],
    thresholds: AnyFloats,
    patients: Sequence[Any] | npt.NDArray[Any],
    split: str,
    ranking: AnyFloats | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score predictions, with 95 % intervals from a bootstrap over patients.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown, left out).
        probability: (N, C) in 0 to 1; a label is predicted where ``probability >= threshold``.
        label_names: C different names.
        thresholds: (C,) in 0 to 1. Where `thresholds.best_f1_thresholds` gave NaN, the caller puts
            its fallback; the document says which threshold each label got.
        patients: (N,) the patient of each row, as text or numbers.
        split: what was scored, such as "test".
        ranking: (N, C) scores for AUROC and AUPRC in place of the probabilities. Give the logits
            of zero-shot scores: their probabilities saturate and tie.
        n_bootstrap: bootstrap samples; 0 for no intervals.
        seed: of the bootstrap.

    Returns:
        The document, ready for ``json.dumps(..., allow_nan=False)``. Undefined is None. ``ci95``
        mirrors the paths of the metrics, each [low, high] or None. Images of a single patient say
        nothing of other patients: there, no draws are made and ``n_bootstrap`` is 0.

    Raises:
        ValueError: there are no rows, shapes or names do not fit, a probability or threshold is NaN
            or outside 0 to 1, a ranking score is NaN, a label is none of 1, 0 and -1, or a row has
            no patient.
    """
    _check(truth, probability, label_names=label_names, thresholds=thresholds, patients=patients)
    if ranking is not None and ranking.shape != truth.shape:
        raise ValueError(f"the ranking has shape {ranking.shape}, but the labels {truth.shape}")
    probability, thresholds = probability.astype(np.float64), thresholds.astype(np.float64)
    ranking = probability if ranking is None else ranking
    predicted: npt.NDArray[np.bool_] = probability >= thresholds
    samples = resample_patients(patients, n_bootstrap=n_bootstrap, seed=seed)
    n_patients = samples.counts.shape[1]
    if n_patients == 1:
        samples = resample_patients(patients, n_bootstrap=0, seed=seed)

    document = _render_document(
        compute_metrics(truth, predicted, ranking), label_names, none_if_nan
    )
    for c, name in enumerate(label_names):
        document["per_label"][name] = {
            "n_positive": int((truth[:, c] == 1).sum()),
            "n_known": int((truth[:, c] >= 0).sum()),
            "threshold": float(thresholds[c]),
            **document["per_label"][name],
            "confusion": confusion(truth[:, c], predicted[:, c]).astype(int).tolist(),
        }
    drawn = bootstrap_metrics(truth, predicted, ranking, samples)
    return {
        **document,
        "ci95": _render_document(drawn, label_names, ci_or_none),
        "n": len(truth),
        "n_patients": n_patients,
        "split": split,
        "n_bootstrap": len(samples.counts),
    }


def _render_document(
    metrics: MetricArrays, label_names: Sequence[str], render: Callable[[Floats], Any]
) -> dict[str, Any]:
    """The metrics under the paths of metrics.json, each rendered to its JSON value."""

    def rendered(values: Mapping[str, Floats]) -> dict[str, Any]:
        return {name: render(value) for name, value in values.items()}

    return {
        "macro": rendered(metrics.macro),
        "micro": rendered(metrics.micro),
        "exact_match": render(metrics.exact_match),
        "hamming_loss": render(metrics.hamming_loss),
        "per_label": {
            label: rendered({name: v[..., c] for name, v in metrics.per_label.items()})
            for c, label in enumerate(label_names)
        },
    }


def _check(
    truth: Labels,
    probability: AnyFloats,
    *,
    label_names: Sequence[str],
    thresholds: AnyFloats,
    patients: Sequence[Any] | npt.NDArray[Any],
) -> None:
    if truth.ndim != 2 or truth.size == 0:
        raise ValueError(f"labels must be (N, C) with rows and labels, not {truth.shape}")
    n, c = truth.shape
    if probability.shape != (n, c):
        raise ValueError(f"probabilities have shape {probability.shape}, but labels {(n, c)}")
    if len(label_names) != c or len(set(label_names)) != c:
        raise ValueError(f"{c} labels need {c} different names, not {list(label_names)}")
    if thresholds.shape != (c,):
        raise ValueError(f"{c} labels need thresholds of shape ({c},), not {thresholds.shape}")
    if len(patients) != n:
        raise ValueError(f"{n} rows need {n} patients, not {len(patients)}")
    for what, values in (("probabilities", probability), ("thresholds", thresholds)):
        if not ((values >= 0) & (values <= 1)).all():  # false for NaN too
            n_bad = int((~((values >= 0) & (values <= 1))).sum())
            raise ValueError(f"{n_bad} of {values.size} {what} are NaN or outside 0 to 1")
