"""Simple predictors: any finding against scikit-learn, prevalence and "normal" counted by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, hamming_loss, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featurecache.evaluation import simple_predictors
from featurecache.evaluation.controls import always_negative
from featurecache.evaluation.evaluate import evaluate, spread_over_seeds
from featurecache.evaluation.repeated_runs import Trial
from featurecache.evaluation.simple_predictors import (
    STRENGTHS,
    abnormality,
    any_finding_from_embeddings,
    any_finding_from_scores,
    is_finding,
    prevalence,
)
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.bootstrap import resample_patients

NAMES = ("Mass", "Edema", "Effusion")


def split_data(truth, names=NAMES, **changes) -> SplitData:
    n = len(truth)
    rows = np.split(np.arange(n), [n // 2, n * 6 // 10])
    fields = {
        "truth": truth,
        "label_names": names,
        "patient": np.array([f"p{row // 2}" for row in range(n)]),
        "view": np.full(n, ""),
        **dict(zip(("train", "val", "test"), rows, strict=True)),
        "learned": np.ones(len(names), dtype=bool),
    }
    return SplitData(**{**fields, **changes})


@pytest.fixture(autouse=True, scope="module")
def all_candidates():
    """Undo what makes this control quick in other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simple_predictors, "STRENGTHS", STRENGTHS)
        patch.setattr(simple_predictors, "N_FOLDS", 5)
        yield


@pytest.fixture(scope="module")
def ill_or_not():
    """Labels that depend on severity alone, which the embedding shows."""
    rng = np.random.default_rng(0)
    severity = rng.normal(size=1000)
    truth = (rng.random((1000, 3)) < 1 / (1 + np.exp(1.5 - 2 * severity[:, None]))).astype(np.int8)
    embedding = rng.normal(size=(1000, 10)).astype(np.float32)
    embedding[:, 0] += 2 * severity
    return split_data(truth), embedding, severity


def test_any_finding_is_one_logistic_regression_used_for_every_label(ill_or_not):
    data, embedding, _ = ill_or_not
    scaler = StandardScaler().fit(embedding[data.train])
    abnormal = data.truth.any(axis=1)
    found = any_finding_from_embeddings(data, embedding)
    candidates = [
        LogisticRegression(C=strength, tol=1e-3).fit(
            scaler.transform(embedding[data.train]), abnormal[data.train]
        )
        for strength in STRENGTHS
    ]
    matches = [
        np.allclose(
            found[data.test, 0], c.decision_function(scaler.transform(embedding[data.test]))
        )
        for c in candidates
    ]
    losses = [
        log_loss(
            abnormal[data.train],
            cross_val_predict(
                make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-3)),
                embedding[data.train],
                abnormal[data.train],
                groups=data.patient[data.train],
                cv=StratifiedGroupKFold(5),
                method="predict_proba",
            ),
        )
        for strength in STRENGTHS
    ]
    assert matches == [loss == min(losses) for loss in losses]
    assert (found == found[:, :1]).all()
    metrics = evaluate(data, np.full(data.truth.shape, 0.5), any_finding=found, n_bootstrap=0)
    expected = [roc_auc_score(data.truth[data.test, c], found[data.test, 0]) for c in range(3)]
    assert metrics.controls["any_finding"].macro.auroc == pytest.approx(np.mean(expected))
    assert metrics.controls["any_finding"].macro.auroc > 0.75


def test_any_finding_does_not_see_test_or_validation_labels(ill_or_not):
    data, embedding, _ = ill_or_not
    truth = data.truth.copy()
    truth[500:] = 1 - truth[500:]
    other = any_finding_from_embeddings(replace(data, truth=truth), embedding)
    assert (other == any_finding_from_embeddings(data, embedding)).all()


def test_the_strength_is_chosen_on_some_patients_of_a_large_data_set(ill_or_not, monkeypatch):
    data, embedding, severity = ill_or_not
    monkeypatch.setattr(simple_predictors, "MAX_TUNING_IMAGES", 200)
    found = any_finding_from_embeddings(data, embedding)
    assert np.corrcoef(found[data.test, 0], severity[data.test])[0, 1] > 0.85
    rows = simple_predictors._whole_patients(data.train, data.patient, 201)
    assert len(rows) == 200
    assert len(set(data.patient[rows])) == 100


def test_an_image_is_abnormal_with_any_positive_and_unknown_only_without_one():
    truth = np.int8([[0, 0, 0], [0, 1, 0], [-1, 1, -1], [0, -1, 0], [-1, -1, -1]])
    assert abnormality(truth, NAMES).tolist() == [0, 1, 1, -1, -1]


def test_a_label_for_normal_images_is_no_finding():
    names = ("NORMAL", "Edema", "No_Finding", "no-findings", "Abnormal")
    assert is_finding(names).tolist() == [False, True, False, False, True]
    truth = np.int8([[1, 0], [0, 1], [1, -1], [0, -1], [0, 0]])
    assert abnormality(truth, ("Normal", "Edema")).tolist() == [0, 1, 0, -1, 0]


def test_unknown_images_are_not_trained_on(ill_or_not):
    data, embedding, _ = ill_or_not
    truth, garbage = data.truth.copy(), embedding.copy()
    truth[:100] = -1
    garbage[:100] = 50
    found = any_finding_from_embeddings(replace(data, truth=truth), garbage)
    alone = replace(data, truth=truth, train=data.train[100:])
    assert np.allclose(found, any_finding_from_embeddings(alone, garbage))


@pytest.mark.parametrize("case", ["one finding", "beside normal", "all abnormal", "four abnormal"])
def test_any_finding_is_undefined_where_it_would_say_nothing(ill_or_not, case):
    data, embedding, _ = ill_or_not
    truth = data.truth.copy()
    if case == "one finding":
        data = split_data(truth[:, :1], ("Edema",))
    elif case == "beside normal":
        data = split_data(np.stack([1 - truth[:, 0], truth[:, 0]], axis=1), ("NORMAL", "Edema"))
    elif case == "all abnormal":
        truth[:, 0] = 1 - truth[:, 1:].any(axis=1)
        data = replace(data, truth=truth)
    else:
        truth[8:500] = 0
        data = replace(data, truth=truth)
    assert any_finding_from_embeddings(data, embedding) is None


def test_models_without_training_embeddings_are_compared_with_their_mean_log_odds():
    rng = np.random.default_rng(1)
    names = ("Mass", "Normal", "Edema", "Effusion")
    data = split_data(
        (rng.random((40, 4)) < 0.4).astype(np.int8), names, learned=np.array([1, 1, 1, 0], bool)
    )
    score = rng.normal(size=(40, 4))
    found = any_finding_from_scores(data, score)
    mean = (score[:, 0] - score[:, 1] + score[:, 2]) / 3
    assert found == pytest.approx(np.stack([mean, -mean, mean, mean], axis=1))


def test_prevalence_is_that_of_training_or_else_of_validation():
    truth = np.int8(
        [[1, 0], [1, -1], [0, 1], [0, 0], [1, 1], [1, 0], [0, 0], [0, 0], [0, 0], [1, 1]]
    )
    data = split_data(truth, ("Mass", "Edema"))
    assert prevalence(data)[9].tolist() == [3 / 5, 2 / 4]
    nothing = np.empty(0, dtype=np.intp)
    assert prevalence(replace(data, train=nothing))[9].tolist() == [1, 0]
    assert prevalence(replace(data, train=nothing, test=nothing)) is None


def test_a_constant_prevalence_has_a_micro_auroc(ill_or_not):
    data, _, _ = ill_or_not
    truth = data.truth.copy()
    truth[:, 2] &= truth[:, 1] & truth[:, 0]  # rarer than the others
    data = replace(data, truth=truth)
    metrics = evaluate(data, np.full(truth.shape, 0.5), n_bootstrap=20)
    control = metrics.controls["prevalence"]
    constant = np.tile(truth[data.train].mean(axis=0), (len(data.test), 1))
    expected = roc_auc_score(truth[data.test].ravel(), constant.ravel())
    assert control.micro.auroc == pytest.approx(expected)
    assert expected > 0.6
    assert control.macro.auroc == 0.5


def test_calling_every_image_normal_has_an_exact_match_and_a_hamming_loss():
    rng = np.random.default_rng(2)
    truth = (rng.random((60, 3)) < 0.2).astype(np.int8)
    data = split_data(truth, ("Mass", "No Finding", "Edema"))
    resamples = resample_patients(data.patient[data.test], n_bootstrap=100, seed=0)
    found = always_negative(data, data.test, resamples)
    answer = np.tile([0, 1, 0], (len(data.test), 1))
    assert found.exact_match == pytest.approx(accuracy_score(truth[data.test], answer))
    assert found.hamming_loss == pytest.approx(hamming_loss(truth[data.test], answer))
    resampled = [
        hamming_loss(np.repeat(truth[data.test], counts, axis=0), np.repeat(answer, counts, axis=0))
        for counts in resamples.row_counts()
    ]
    loss, n_patients = found.hamming_loss, resamples.counts.shape[1]
    variance = np.var(resampled, ddof=1) * n_patients / (n_patients - 1)
    distance = t.ppf(0.975, n_patients - 1) * np.sqrt(variance / (loss * (1 - loss)))
    # Wilson's bounds are the values that are this many of their own standard errors away.
    bounds = [
        brentq(lambda x: abs(loss - x) - distance * np.sqrt(x * (1 - x)), *bracket)
        for bracket in ((0, loss), (loss, 1))
    ]
    assert found.ci95.hamming_loss == pytest.approx(bounds)
    assert found.macro.auroc is None


def test_unknown_entries_and_labels_that_were_not_learned_do_not_count():
    truth = np.int8([[0, 0, 1]] * 12 + [[0, 0, 1], [0, -1, 1], [1, 0, 0], [0, 0, 1]])
    data = split_data(truth, learned=np.array([True, True, False]), test=np.arange(12, 16))
    resamples = resample_patients(data.patient[data.test], n_bootstrap=0, seed=0)
    found = always_negative(data, data.test, resamples)
    assert found.exact_match == pytest.approx(2 / 3)
    assert found.hamming_loss == pytest.approx(1 / 7)


def test_metrics_within_abnormal_images_are_of_the_images_with_a_finding():
    rng = np.random.default_rng(3)
    truth = (rng.random((200, 3)) < [0.2, 0.3, 0.25]).astype(np.int8)
    data = split_data(truth)
    p = 0.25 * truth + 0.75 * rng.random(truth.shape)
    found = evaluate(data, p, n_bootstrap=50).within_abnormal
    rows = data.test[truth[data.test].any(axis=1)]
    expected = [roc_auc_score(truth[rows, c], p[rows, c]) for c in range(3)]
    assert found.macro.auroc == pytest.approx(np.mean(expected))
    assert found.per_label["Edema"].auroc == pytest.approx(expected[1])
    low, high = found.macro.auroc_ci
    assert low < found.macro.auroc < high


def test_a_label_that_all_abnormal_images_have_is_left_out_within_them():
    truth = np.int8([[1, 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 0]] * 20)
    data = split_data(truth)
    score = np.tile(np.linspace(0, 1, 80)[:, None], (1, 3))
    found = evaluate(data, score, n_bootstrap=0).within_abnormal
    assert found.per_label["Mass"].auroc is None
    rows = data.test[truth[data.test].any(axis=1)]
    expected = [roc_auc_score(truth[rows, c], score[rows, c]) for c in (1, 2)]
    assert found.macro.auroc == pytest.approx(np.mean(expected))
    single = replace(data, learned=np.array([True, False, False]))
    assert evaluate(single, score, n_bootstrap=0).within_abnormal is None


def test_decisions_worse_than_calling_every_image_normal_give_a_warning():
    truth = np.int8([[0, 0, 0]] * 9 + [[1, 0, 1]]).repeat(8, axis=0)
    truth = truth[np.random.default_rng(4).permutation(80)]
    data = split_data(truth, learned=np.array([True, False, True]))
    too_many = evaluate(data, np.full(truth.shape, 0.9), n_bootstrap=0)
    (warning,) = too_many.warnings
    bar = too_many.controls["always_negative"]
    assert warning.startswith(
        f"exact match {too_many.exact_match:.3f} is worse than the {bar.exact_match:.3f} and "
        f"Hamming loss {too_many.hamming_loss:.3f} is worse than the {bar.hamming_loss:.3f} of "
        "calling every image normal"
    )
    right = np.clip(truth, 0.1, 0.9)
    assert evaluate(data, right, n_bootstrap=0).warnings == []
    # With several seeds, it is the mean that is compared: of 0 and 1, not the 0 of the first.
    trials = [Trial(data, np.full(truth.shape, 0.9)), Trial(data, right)]
    seeds = spread_over_seeds(trials, [0, 1], n_bootstrap=0)
    mean = evaluate(data, trials[0].score, trials=trials, seeds=seeds, n_bootstrap=0)
    (warning,) = mean.warnings
    assert mean.headline.exact_match == too_many.exact_match / 2 + 1 / 2
    assert warning.startswith(
        f"exact match {mean.headline.exact_match:.3f} (mean of 2 seeds) is worse than the "
        f"{bar.exact_match:.3f}"
    )


def test_a_constant_has_no_interval_of_the_auroc():
    """It is 0.5 by definition, whatever patients there are; the AUPRC depends on them."""
    truth = (np.random.default_rng(3).random((120, 3)) < 0.4).astype(np.int8)
    controls = evaluate(split_data(truth), truth * 0.5, n_bootstrap=50).controls
    macro = controls["prevalence"].macro
    assert (macro.auroc, macro.auroc_ci) == (0.5, None)
    low, high = macro.auprc_ci
    assert low < macro.auprc < high
    low, high = controls["prevalence"].micro.auroc_ci
    assert low < high


def test_a_run_that_only_knows_who_is_ill_does_not_beat_any_finding(ill_or_not):
    data, embedding, severity = ill_or_not
    rng = np.random.default_rng(5)
    score = severity[:, np.newaxis] + 0.5 * rng.normal(size=data.truth.shape)
    any_finding = any_finding_from_embeddings(data, embedding)
    metrics = evaluate(data, 1 / (1 + np.exp(-score)), any_finding=any_finding)
    gain = metrics.controls["any_finding"].gain
    assert gain.labels == list(NAMES)
    assert gain.macro.auroc.difference == pytest.approx(
        metrics.macro.auroc - metrics.controls["any_finding"].macro.auroc
    )
    low, high = gain.macro.auroc.ci95
    assert low < 0
    assert high < 0.1
    assert metrics.warnings[0].startswith(
        "macro AUROC is not clearly above that of one score for all labels, how abnormal the image "
        "is: over the 3 labels with enough patients its gain is "
        f"{gain.macro.auroc.difference:.3f} [{low:.3f}, {high:.3f}]"
    )


def test_a_run_that_tells_findings_apart_beats_any_finding_overall_and_within_abnormal_images():
    rng = np.random.default_rng(6)
    truth = (rng.random((1000, 3)) < 0.25).astype(np.int8)
    embedding = (3 * truth @ rng.normal(size=(3, 10)) + rng.normal(size=(1000, 10))).astype("f4")
    data = split_data(truth)
    score = truth + 0.6 * rng.normal(size=truth.shape)
    any_finding = any_finding_from_embeddings(data, embedding)
    metrics = evaluate(data, 1 / (1 + np.exp(-score)), any_finding=any_finding)
    control = metrics.controls["any_finding"]
    assert control.gain.macro.auroc.ci95[0] > 0
    assert not any("one score for all labels" in warning for warning in metrics.warnings)
    assert control.within_abnormal.macro.auroc < 0.7 < metrics.within_abnormal.macro.auroc


def test_the_gain_over_any_finding_is_the_mean_over_trainings(ill_or_not):
    data, _, severity = ill_or_not
    rng = np.random.default_rng(7)
    trials = [
        Trial(data, severity[:, np.newaxis] + rng.normal(size=data.truth.shape)) for _ in range(3)
    ]
    any_finding = np.tile(severity[:, np.newaxis], (1, 3))
    probability = 1 / (1 + np.exp(-trials[0].score))
    metrics = evaluate(data, probability, any_finding=any_finding, trials=trials, n_bootstrap=0)
    gain = metrics.controls["any_finding"].gain
    truth = data.truth[data.test]
    means = [
        np.mean([roc_auc_score(truth[:, c], score[data.test, c]) for c in range(3)])
        for score in (*(trial.score for trial in trials), any_finding)
    ]
    assert gain.pairs == 3
    assert gain.macro.auroc.difference == pytest.approx(np.mean(means[:3]) - means[3])


def test_a_loss_over_all_labels_gives_a_warning_even_without_enough_patients():
    truth = np.int8([[1, 0], [1, 1], [0, 0], [0, 0], [0, 1]] * 4)
    data = split_data(truth, ("Mass", "Edema"), test=np.arange(15, 20), train=np.arange(15))
    perfect = np.where(truth == 1, 0.9, 0.1)
    metrics = evaluate(data, 1 - perfect, any_finding=perfect, n_bootstrap=0)
    assert metrics.controls["any_finding"].gain is None
    assert "over all labels it is 0.000, against 1.000" in metrics.warnings[0]
