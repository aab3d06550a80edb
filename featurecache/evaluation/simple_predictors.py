"""Trivial baselines: predictors that cannot tell one finding from another."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.evaluation.split_data import SplitData
from featurecache.label_cells import means_no_finding
from featurecache.metrics.label_support import patient_support
from featurecache.metrics.ranking import AnyFloats, Floats, ratio

STRENGTHS: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates for scikit-learn's ``C``, on standardized embeddings."""

N_FOLDS: Final = 5

MAX_TUNING_IMAGES: Final = 4000
"""``C`` is the variance of a Gaussian prior on the weights, so more images hardly change it."""


def is_finding(label_names: Sequence[str]) -> NDArray[np.bool_]:
    """Return for each of C labels whether it is a finding, and not a name for a normal image."""
    return np.array([not means_no_finding(name) for name in label_names], dtype=np.bool_)


def abnormality(truth: NDArray[np.int8], label_names: Sequence[str]) -> NDArray[np.int8]:
    """Return which images have any finding.

    Args:
        truth: Labels of shape (N, C): 1, 0, or -1 for unknown.
        label_names: The C label names.

    Returns:
        Shape (N,): 1 where any finding is positive, else 0 where all are negative or a label such
        as "No Finding" is positive, else -1 for unknown.
    """
    finding = is_finding(label_names)
    findings, normals = truth[:, finding], truth[:, ~finding]
    normal = (findings == 0).all(axis=1) | (normals == 1).any(axis=1)
    return np.where((findings == 1).any(axis=1), 1, np.where(normal, 0, -1)).astype(np.int8)


def any_finding_from_embeddings(data: SplitData, embedding: AnyFloats) -> Floats | None:
    """Predict from embeddings whether an image has any finding, and score every label by that.

    The predictor is a logistic regression on the standardized embeddings of the training images.
    The strength of its penalty has the lowest log loss in a cross-validation over their patients.

    Args:
        data: Labels, patients and splits.
        embedding: Embeddings of shape (N, D).

    Returns:
        Scores of shape (N, C), 0 in rows that are not scored; None with fewer than two learned
        findings, where the control would be the label itself, or with too few abnormal or normal
        training patients.
    """
    if not _has_several_findings(data):
        return None
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    abnormal = abnormality(data.truth, data.label_names)
    train = data.train[abnormal[data.train] >= 0]
    tuning = _whole_patients(train, data.patient, MAX_TUNING_IMAGES)
    target, (_, patient) = abnormal[tuning], np.unique(data.patient[tuning], return_inverse=True)
    if not patient_support(target[:, np.newaxis], patient).enough.all():
        return None

    # Looser than the default 1e-4: five times as fast on 20,000 images, with the same ranking.
    model = partial(LogisticRegression, tol=1e-3, max_iter=1000)
    features = embedding[tuning].astype(np.float32)
    folds = []
    for fitted, held_out in StratifiedGroupKFold(N_FOLDS).split(features, target, patient):
        scale = StandardScaler().fit(features[fitted]).transform
        folds.append((held_out, scale(features[held_out]), scale(features[fitted]), target[fitted]))

    def held_out_loss(strength: float) -> float:
        probability = np.empty(len(target))
        for held_out, new_features, known_features, known_target in folds:
            fold_model = model(C=strength).fit(known_features, known_target)
            probability[held_out] = fold_model.predict_proba(new_features)[:, 1]
        return float(log_loss(target, probability))

    best = make_pipeline(StandardScaler(), model(C=min(STRENGTHS, key=held_out_loss)))
    best.fit(embedding[train].astype(np.float32), abnormal[train])
    _, rows = data.scored
    score = np.zeros(len(data.truth))
    score[rows] = best.decision_function(embedding[rows].astype(np.float32))
    return _for_every_label(score, data.label_names)


def any_finding_from_scores(data: SplitData, score: AnyFloats) -> Floats | None:
    """Score every label by the mean of a model's log-odds over the learned labels.

    This is the control of a model whose training images are not embedded here: of zero-shot, which
    has none, of a fine-tuned encoder, and of external validation.

    Args:
        data: Labels, patients and splits.
        score: The model's log-odds, shape (N, C).

    Returns:
        Scores of shape (N, C); None with fewer than two learned findings.
    """
    if not _has_several_findings(data):
        return None
    sign = np.where(is_finding(data.label_names), 1.0, -1.0)
    return _for_every_label((score * sign)[:, data.learned].mean(axis=1), data.label_names)


def prevalence(data: SplitData) -> Floats | None:
    """Score every image by the prevalence of each label, without looking at the image.

    The prevalence is that of the training images, or, where nothing was trained, of the validation
    images that thresholds are chosen on.

    Returns:
        Scores of shape (N, C), 0 for a label that is never known; None without such images.
    """
    split, _ = data.scored
    source = data.train if len(data.train) or split == "val" else data.val
    if len(source) == 0:
        return None
    return np.tile(np.nan_to_num(_prevalence(data.truth[source])), (len(data.truth), 1))


def view_only(data: SplitData) -> Floats | None:
    """Score the scored rows by their view position alone.

    Returns:
        Scores of shape (N, C); None where views or training rows are missing.
    """
    _, rows = data.scored
    has_view = data.view != ""
    if not has_view[rows].any() or not has_view[data.train].any():
        return None
    probability = np.zeros(data.truth.shape)
    probability[rows] = np.nan_to_num(
        view_only_probabilities(data.view[data.train], data.truth[data.train], data.view[rows])
    )
    return probability


def view_only_probabilities(
    train_views: NDArray[np.str_],
    train_labels: NDArray[np.int8],
    views: NDArray[np.str_],
) -> NDArray[np.float64]:
    """Predict each label from the view position (AP, PA) alone.

    The probability of a label is its prevalence among the training images of that view, or among
    all training images for a view that training does not have. On ChestX-ray14 this alone reaches
    a macro AUROC of about 0.59.

    Args:
        train_views: View of each training image, shape (N,).
        train_labels: Labels of shape (N, C): 1, 0, or -1 for unknown.
        views: View of each image to predict, shape (M,).

    Returns:
        Probabilities of shape (M, C); NaN for a label that no training image has a value for.
    """
    overall = _prevalence(train_labels)
    result = np.tile(overall, (len(views), 1))
    for view in np.unique(views):
        prevalence = _prevalence(train_labels[train_views == view])
        result[views == view] = np.where(np.isnan(prevalence), overall, prevalence)
    return result


def _prevalence(labels: NDArray[np.int8]) -> Floats:
    return ratio((labels == 1).sum(axis=0), (labels >= 0).sum(axis=0))


def _has_several_findings(data: SplitData) -> bool:
    return int((is_finding(data.label_names) & data.learned).sum()) > 1


def _for_every_label(score: Floats, label_names: Sequence[str]) -> Floats:
    """Return a score of abnormality (N,) as one for each label, (N, C), negated for "normal"."""
    return score[:, np.newaxis] * np.where(is_finding(label_names), 1.0, -1.0)


def _whole_patients(
    rows: NDArray[np.intp], patient: NDArray[np.str_], limit: int
) -> NDArray[np.intp]:
    """Return the rows of random patients, up to a number of rows; all rows if there are fewer."""
    if len(rows) <= limit:
        return rows
    names, index, counts = np.unique(patient[rows], return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(names))
    chosen = order[np.cumsum(counts[order]) <= limit]
    return rows[np.isin(index, chosen)]
