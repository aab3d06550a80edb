"""The bootstrap against rows copied by hand, and against the truth of a simulation."""

import numpy as np
import pytest
import sklearn.metrics as reference

from featurecache.metrics import bootstrap
from featurecache.metrics.bootstrap import bootstrap_metrics, interval, resample_patients


@pytest.fixture
def problem():
    """Patients of 1 to 4 images, labels common, rare, one-class and unknown, scores with ties."""
    rng = np.random.default_rng(5)
    patients = np.repeat([f"p{i}" for i in range(25)], rng.integers(1, 5, size=25))
    n = len(patients)
    truth = (rng.random((n, 5)) < [0.5, 0.2, 0.04, 0.0, 1.0]).astype(np.int8)
    truth[rng.random((n, 5)) < 0.1] = -1
    score = np.round(rng.random((n, 5)) * 0.7 + 0.3 * (truth == 1), 1)
    return truth, score, patients


def undefined_unless(condition, metric, *args):
    return metric(*args) if condition else np.nan


def label_by_scikit_learn(t, p, s):
    """Every metric of one label's known entries, rows copied as often as they were drawn."""
    one, zero, called = (t == 1).any(), (t == 0).any(), p.any()
    return {
        "precision": undefined_unless(called, reference.precision_score, t, p),
        "recall": undefined_unless(one, reference.recall_score, t, p),
        "f1": undefined_unless(one or called, reference.f1_score, t, p),
        "accuracy": undefined_unless(len(t), reference.accuracy_score, t, p),
        "auroc": undefined_unless(one and zero, reference.roc_auc_score, t, s),
        "auprc": undefined_unless(one and zero, reference.average_precision_score, t, s),
    }


@pytest.mark.parametrize(
    ("block", "draws_at_once"), [(2**16, 512), (3 * 9 * 7, 7)], ids=["one block", "many blocks"]
)
def test_draws_are_measured_as_if_rows_were_copied(problem, monkeypatch, block, draws_at_once):
    monkeypatch.setattr(bootstrap, "_BLOCK", block)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", draws_at_once)
    truth, score, patients = problem
    predicted = score >= 0.5
    n_bootstrap = resample_patients(patients, n_bootstrap=20, seed=1)
    found = bootstrap_metrics(truth, predicted, score, n_bootstrap)
    for draw, row_counts in enumerate(n_bootstrap.row_counts()):
        rows = np.repeat(np.arange(len(truth)), row_counts)
        t, p, s = truth[rows], predicted[rows], score[rows]
        known = t >= 0
        columns = [
            label_by_scikit_learn(*(a[known[:, c], c] for a in (t, p, s)))
            for c in range(truth.shape[1])
        ]
        pooled = label_by_scikit_learn(t[known], p[known], s[known])
        for name, value in pooled.items():
            expected = [column[name] for column in columns]
            np.testing.assert_allclose(found.per_label[name][draw], expected, atol=1e-9)
            np.testing.assert_allclose(found.macro[name][draw], np.nanmean(expected), atol=1e-9)
            np.testing.assert_allclose(found.micro[name][draw], value, atol=1e-9)
        complete = known.all(axis=1)
        assert found.exact_match[draw] == pytest.approx(
            (t == p)[complete].all(axis=1).mean(), abs=1e-9
        )
        assert found.hamming_loss[draw] == pytest.approx((t != p)[known].mean(), abs=1e-9)


def test_a_draw_has_as_many_patients_as_there_are_and_takes_all_their_images(problem):
    *_, patients = problem
    n_bootstrap = resample_patients(patients, n_bootstrap=50, seed=2)
    assert (n_bootstrap.counts.sum(axis=1) == len(set(patients))).all()
    for name in set(patients):
        counts = n_bootstrap.row_counts()[:, patients == name]
        assert (counts == counts[:, :1]).all()
    # Each of P patients is left out of a draw with probability (1 - 1/P)^P.
    assert (n_bootstrap.counts == 0).mean() == pytest.approx((1 - 1 / 25) ** 25, abs=0.03)


def test_the_same_seed_and_patients_give_the_same_draws_in_any_row_order(problem):
    truth, score, patients = problem
    order = np.random.default_rng(0).permutation(len(patients))
    n_bootstrap = resample_patients(patients, n_bootstrap=10, seed=3)
    shuffled = resample_patients(patients[order].tolist(), n_bootstrap=10, seed=3)
    np.testing.assert_array_equal(n_bootstrap.row_counts()[:, order], shuffled.row_counts())
    a = bootstrap_metrics(truth, score >= 0.5, score, n_bootstrap)
    b = bootstrap_metrics(truth[order], score[order] >= 0.5, score[order], shuffled)
    np.testing.assert_allclose(a.micro["auprc"], b.micro["auprc"], atol=1e-12)
    np.testing.assert_allclose(a.per_label["auroc"], b.per_label["auroc"], atol=1e-12)
    other = resample_patients(patients, n_bootstrap=10, seed=4)
    assert (other.counts != n_bootstrap.counts).any()


def test_two_models_meet_on_the_same_draws(problem):
    truth, score, patients = problem
    n_bootstrap = resample_patients(patients, n_bootstrap=100, seed=0)
    model = bootstrap_metrics(truth, score >= 0.5, score, n_bootstrap)
    same_ranking = bootstrap_metrics(truth, score >= 0.5, 2 * score - 5, n_bootstrap)
    difference = model.micro["auroc"] - same_ranking.micro["auroc"]
    assert interval(difference) == (0.0, 0.0)


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_a_row_without_patient_is_refused(missing):
    with pytest.raises(ValueError, match="1 rows have no patient, row 1 the first"):
        resample_patients(["a", missing, "b"], n_bootstrap=10, seed=0)


def test_draws_of_other_rows_are_refused(problem):
    truth, score, patients = problem
    n_bootstrap = resample_patients(patients[:-1], n_bootstrap=5, seed=0)
    with pytest.raises(ValueError, match="resamples are of"):
        bootstrap_metrics(truth, score >= 0.5, score, n_bootstrap)


def test_a_negative_number_of_draws_is_refused():
    with pytest.raises(ValueError, match="not -1"):
        resample_patients(["a"], n_bootstrap=-1, seed=0)


def test_the_interval_holds_the_middle_95_percent():
    values = np.random.default_rng(0).permutation(np.arange(1001) / 1000)
    assert interval(values) == pytest.approx((0.025, 0.975))


def test_undefined_draws_are_left_out_until_they_are_the_majority():
    half = np.array([0.5, 0.5, np.nan, np.nan])
    assert interval(half) == (0.5, 0.5)
    assert interval(np.append(half, np.nan)) is None
    assert interval(np.array([])) is None


def test_the_interval_covers_where_images_of_a_patient_resemble_each_other():
    """Ten images a patient share their label and most of their score; the true AUROC is 0.76.

    The score is 1 for a positive patient plus unit normal noise, so AUROC = Phi(1 / sqrt(2)).
    """
    rng = np.random.default_rng(11)
    auroc, trials, covered = 0.7602499389065233, 150, {"patient": 0, "image": 0}
    for seed in range(trials):
        labels = np.repeat(np.arange(60) % 2, 10)
        noise = np.repeat(rng.normal(size=60), 10) * 0.95**0.5 + rng.normal(size=600) * 0.05**0.5
        truth, score = labels[:, None].astype(np.int8), (labels + noise)[:, None]
        for unit, names in (("patient", np.repeat(np.arange(60), 10)), ("image", np.arange(600))):
            n_bootstrap = resample_patients(names, n_bootstrap=200, seed=seed)
            low, high = interval(
                bootstrap_metrics(truth, score > 0.5, score, n_bootstrap).micro["auroc"]
            )
            covered[unit] += low <= auroc <= high
    # Binomial noise of 150 trials at 0.95 is 0.018.
    assert covered["patient"] / trials > 0.88
    assert covered["image"] / trials < 0.6
