"""Compare the patient bootstrap with scikit-learn on repeated rows."""

import numpy as np
import pytest
import sklearn.metrics as reference

from featurecache.metrics import bootstrap
from featurecache.metrics.bootstrap import bootstrap_metrics, interval, resample_patients


@pytest.fixture
def problem():
    """Patients with 1 to 4 images; common, rare, one-class and unknown labels; tied scores."""
    rng = np.random.default_rng(5)
    patients = np.repeat([f"p{i}" for i in range(25)], rng.integers(1, 5, size=25))
    n = len(patients)
    truth = (rng.random((n, 5)) < [0.5, 0.2, 0.04, 0.0, 1.0]).astype(np.int8)
    truth[rng.random((n, 5)) < 0.1] = -1
    score = np.round(rng.random((n, 5)) * 0.7 + 0.3 * (truth == 1), 1)
    return truth, score, patients


def nan_unless(condition, metric, *args):
    return metric(*args) if condition else np.nan


def sklearn_metrics(t, p, s):
    """Every metric of one label on its known entries."""
    has_positive, has_negative, has_prediction = (t == 1).any(), (t == 0).any(), p.any()
    return {
        "precision": nan_unless(has_prediction, reference.precision_score, t, p),
        "recall": nan_unless(has_positive, reference.recall_score, t, p),
        "f1": nan_unless(has_positive or has_prediction, reference.f1_score, t, p),
        "accuracy": nan_unless(len(t), reference.accuracy_score, t, p),
        "auroc": nan_unless(has_positive and has_negative, reference.roc_auc_score, t, s),
        "auprc": nan_unless(has_positive and has_negative, reference.average_precision_score, t, s),
    }


@pytest.mark.parametrize(
    ("block_size", "samples_per_chunk"),
    [(2**16, 512), (3 * 9 * 7, 7)],
    ids=["one block", "many blocks"],
)
def test_metrics_equal_those_of_repeated_rows(problem, monkeypatch, block_size, samples_per_chunk):
    monkeypatch.setattr(bootstrap, "_BLOCK_SIZE", block_size)
    monkeypatch.setattr(bootstrap, "_SAMPLES_PER_CHUNK", samples_per_chunk)
    truth, score, patients = problem
    predicted = score >= 0.5
    resamples = resample_patients(patients, n_bootstrap=20, seed=1)
    metrics = bootstrap_metrics(truth, predicted, score, resamples)
    for sample, row_counts in enumerate(resamples.row_counts()):
        rows = np.repeat(np.arange(len(truth)), row_counts)
        t, p, s = truth[rows], predicted[rows], score[rows]
        valid = t >= 0
        columns = [
            sklearn_metrics(*(a[valid[:, c], c] for a in (t, p, s))) for c in range(truth.shape[1])
        ]
        pooled = sklearn_metrics(t[valid], p[valid], s[valid])
        for name, value in pooled.items():
            expected = [column[name] for column in columns]
            np.testing.assert_allclose(metrics.per_label[name][sample], expected, atol=1e-9)
            np.testing.assert_allclose(metrics.macro[name][sample], np.nanmean(expected), atol=1e-9)
            np.testing.assert_allclose(metrics.micro[name][sample], value, atol=1e-9)
        complete = valid.all(axis=1)
        assert metrics.exact_match[sample] == pytest.approx(
            (t == p)[complete].all(axis=1).mean(), abs=1e-9
        )
        assert metrics.hamming_loss[sample] == pytest.approx((t != p)[valid].mean(), abs=1e-9)


def test_sample_holds_as_many_patients_as_the_data_with_all_their_images(problem):
    *_, patients = problem
    resamples = resample_patients(patients, n_bootstrap=50, seed=2)
    assert (resamples.counts.sum(axis=1) == len(set(patients))).all()
    for name in set(patients):
        counts = resamples.row_counts()[:, patients == name]
        assert (counts == counts[:, :1]).all()
    # Each of P patients is missing from a sample with probability (1 - 1/P)^P.
    assert (resamples.counts == 0).mean() == pytest.approx((1 - 1 / 25) ** 25, abs=0.03)


def test_samples_depend_on_seed_and_patients_but_not_on_row_order(problem):
    truth, score, patients = problem
    order = np.random.default_rng(0).permutation(len(patients))
    resamples = resample_patients(patients, n_bootstrap=10, seed=3)
    shuffled = resample_patients(patients[order].tolist(), n_bootstrap=10, seed=3)
    np.testing.assert_array_equal(resamples.row_counts()[:, order], shuffled.row_counts())
    a = bootstrap_metrics(truth, score >= 0.5, score, resamples)
    b = bootstrap_metrics(truth[order], score[order] >= 0.5, score[order], shuffled)
    np.testing.assert_allclose(a.micro["auprc"], b.micro["auprc"], atol=1e-12)
    np.testing.assert_allclose(a.per_label["auroc"], b.per_label["auroc"], atol=1e-12)
    other = resample_patients(patients, n_bootstrap=10, seed=4)
    assert (other.counts != resamples.counts).any()


def test_models_with_equal_rankings_differ_by_zero(problem):
    truth, score, patients = problem
    resamples = resample_patients(patients, n_bootstrap=100, seed=0)
    model = bootstrap_metrics(truth, score >= 0.5, score, resamples)
    same_ranking = bootstrap_metrics(truth, score >= 0.5, 2 * score - 5, resamples)
    difference = model.micro["auroc"] - same_ranking.micro["auroc"]
    assert interval(difference) == (0.0, 0.0)


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_row_without_patient_is_refused(missing):
    with pytest.raises(ValueError, match=r"1 row has no patient \(first: row 1\)"):
        resample_patients(["a", missing, "b"], n_bootstrap=10, seed=0)


def test_samples_of_other_rows_are_refused(problem):
    truth, score, patients = problem
    resamples = resample_patients(patients[:-1], n_bootstrap=5, seed=0)
    with pytest.raises(ValueError, match="bootstrap samples are of"):
        bootstrap_metrics(truth, score >= 0.5, score, resamples)


def test_negative_number_of_samples_is_refused():
    with pytest.raises(ValueError, match="not -1"):
        resample_patients(["a"], n_bootstrap=-1, seed=0)


def test_interval_is_the_central_95_percent():
    values = np.random.default_rng(0).permutation(np.arange(1001) / 1000)
    assert interval(values) == pytest.approx((0.025, 0.975))


def test_undefined_samples_are_ignored_unless_they_are_the_majority():
    half_defined = np.array([0.5, 0.5, np.nan, np.nan])
    assert interval(half_defined) == (0.5, 0.5)
    assert interval(np.append(half_defined, np.nan)) is None
    assert interval(np.array([])) is None
