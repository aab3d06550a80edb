"""Metrics of groups against scikit-learn, and gaps against simulations with known truth."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from featurecache.metrics.subgroups import Subgroups, measure_subgroups


def simulate(rng, shifts, *, n_patients=70):
    """Two images per patient, whose scores have the AUROC Phi(shift / sqrt 2) in each group."""
    group = np.repeat([f"group {k}" for k in range(len(shifts))], 2 * n_patients)
    patient = np.repeat(np.arange(n_patients * len(shifts)), 2)
    truth = (rng.random(patient.max() + 1) < 0.4)[patient].astype(np.int8)
    own = rng.normal(size=patient.max() + 1)[patient]
    score = (own + rng.normal(size=len(patient))) / np.sqrt(2)
    return truth, score + truth * np.repeat(shifts, 2 * n_patients), patient, group


def measure(truth, score, patient, group, *, threshold=1.0) -> Subgroups:
    truth, score = np.reshape(truth, (len(group), -1)), np.reshape(score, (len(group), -1))
    return measure_subgroups(
        truth,
        score >= threshold,
        score,
        label_names=["Mass", *map(str, range(1, truth.shape[1]))],
        patients=patient,
        groups=group,
    )


def test_scores_of_groups_are_those_of_their_images():
    rng = np.random.default_rng(1)
    truth, score, patient, group = simulate(rng, [1.5, 1.0, 0.5])
    group[:40] = ""
    truth[rng.random(len(truth)) < 0.1] = -1
    found = measure(truth, score, patient, group)
    assert (found.n_images, found.n_unknown) == (
        {"group 0": 100, "group 1": 140, "group 2": 140},
        40,
    )
    groups = found.per_label["Mass"].groups
    y, decided = truth == 1, score >= 1
    rates_of = {
        "auroc": lambda rows: roc_auc_score(y[rows], score[rows]),
        "tpr": lambda rows: decided[rows & y].mean(),
        "fpr": lambda rows: decided[rows & ~y].mean(),
    }
    for name, scores in groups.items():
        inside = (group == name) & (truth >= 0)
        others = (group != name) & (group != "") & (truth >= 0)
        assert scores.n == inside.sum()
        assert scores.n_positive == (inside & y).sum()
        for metric, of_rows in rates_of.items():
            measured, value = getattr(scores, metric), of_rows(inside)
            assert measured.value == pytest.approx(value)
            assert measured.difference == pytest.approx(value - of_rows(others))
            assert measured.ci95[0] < value < measured.ci95[1]
            low, high = measured.difference_ci95
            assert (measured.p < 0.05) == (not low <= 0 <= high)
            assert measured.p <= measured.p_holm <= min(3 * measured.p, 1) + 1e-12
    gap = found.per_label["Mass"].largest_gap["tpr"]
    rates = {name: scores.tpr.value for name, scores in groups.items()}
    assert gap.difference == pytest.approx(max(rates.values()) - min(rates.values()))
    assert (rates[gap.highest], rates[gap.lowest]) == (max(rates.values()), min(rates.values()))
    worst = found.per_label["Mass"].worst_group
    assert worst["tpr"].group == gap.lowest
    assert worst["fpr"].value == max(scores.fpr.value for scores in groups.values())


def test_small_groups_have_no_scores_but_a_reason():
    truth, score, patient, group = simulate(np.random.default_rng(2), [1.0, 1.0, 1.0])
    few, only = group == "group 1", np.flatnonzero((group == "group 2") & (truth == 1))
    truth[few] = 0
    truth[np.flatnonzero(few)[:9]] = 1
    patient[only] = patient[only[0]]  # all positives are of one patient
    label = measure(truth, score, patient, group).per_label["Mass"]
    reasons = [scores.reason for scores in label.groups.values()]
    assert reasons[0] is None
    assert reasons[1] == "only 9 positive images, and at least 10 are needed"
    assert reasons[2].startswith("only 1 patient has a positive image")
    small = label.groups["group 1"]
    assert (small.n, small.n_positive, small.auroc, small.tpr, small.fpr) == (
        *(140, 9, None, None),
        None,
    )
    # One group is left: nothing to compare it with.
    assert (label.largest_gap, label.worst_group) == ({}, {})


def test_two_groups_are_one_test():
    truth, score, patient, group = simulate(np.random.default_rng(3), [1.5, 0.8])
    found = measure(truth, score, patient, group)
    first, second = (scores.auroc for scores in found.per_label["Mass"].groups.values())
    assert found.n_tests == {"auroc": 1, "tpr": 1, "fpr": 1}
    assert first.p == first.p_holm == pytest.approx(second.p)
    assert first.difference == pytest.approx(-second.difference)


def test_groups_that_share_patients_are_compared_with_their_correlation():
    """Of patients with an image in either group, differences vary less than of others."""
    rng = np.random.default_rng(4)
    truth, score, patient, _ = simulate(rng, [1.0], n_patients=140)
    score = score + 3 * rng.normal(size=140)[patient]
    views = np.tile(["AP", "PA"], 140)
    widths = []
    for patients in (patient, np.arange(280)):
        auroc = measure(truth, score, patients, views).per_label["Mass"].groups["AP"].auroc
        widths.append(np.ptp(auroc.difference_ci95))
    assert widths[0] < 0.8 * widths[1]


def test_known_gaps_are_covered_and_equal_groups_are_seldom_called_different():
    """Each label is a simulation of its own."""
    rng = np.random.default_rng(5)

    def simulations(shifts: list[float], number: int = 100) -> Subgroups:
        draws = [simulate(rng, shifts, n_patients=60) for _ in range(number)]
        truth, score = (np.stack([draw[i] for draw in draws], axis=1) for i in (0, 1))
        return measure(truth, score, draws[0][2], draws[0][3])

    covered = []
    for label in simulations([1.5, 1.0, 1.0]).per_label.values():
        for bounds, truth in (
            (label.largest_gap["auroc"].ci95, 0.0953),
            (label.largest_gap["tpr"].ci95, 0.1915),
            (label.worst_group["auroc"].ci95, 0.7602),
            (label.worst_group["tpr"].ci95, 0.5),
            (label.worst_group["fpr"].ci95, 0.1587),
        ):
            covered.append(bounds[0] <= truth <= bounds[1])
    equal = simulations([1.0, 1.0, 1.0]).per_label.values()
    p = [scores.auroc.p for label in equal for scores in label.groups.values()]
    # At least 0.95 with a standard error of about 0.015, and 0.05 with one of about 0.018.
    assert np.mean(covered) > 0.92
    assert np.mean(np.array(p) < 0.05) < 0.09
