import numpy as np
import pytest

from featurecache.metrics.bootstrap import resample_patients
from featurecache.metrics.confident_learning import confident_classes, wrong_share


def share(truth: np.ndarray, probability: np.ndarray) -> float:
    resamples = resample_patients(np.arange(len(truth)), n_bootstrap=0, seed=0).with_data()
    (value,) = wrong_share(truth, probability, resamples)
    return float(value)


def test_small_example_by_hand() -> None:
    # Mean probability of a positive among positives: 0.625; of a negative among negatives: 0.7.
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
    probability = np.array([0.9, 0.8, 0.7, 0.1, 0.9, 0.05, 0.1, 0.2, 0.25])
    assert confident_classes(truth, probability).tolist() == [1, 1, 1, 0, 1, 0, 0, 0, 0]
    # One of four confident positives is a negative, and one of five confident negatives a positive.
    assert share(truth, probability) == pytest.approx((4 / 4 + 5 / 5) / 9)
    # 0.5 is confidently of neither class.
    probability[3] = 0.5
    assert confident_classes(truth, probability)[3] == -1


@pytest.mark.parametrize(
    ("seed", "prevalence", "separation", "issues", "first", "joint"),
    [
        (0, 0.3, 2.0, 15, [262, 244, 50, 45, 90], [[208, 7], [13, 72]]),
        (1, 0.05, 2.0, 20, [295, 100, 235, 195, 252], [[256, 0], [24, 20]]),
        (2, 0.5, 0.3, 88, [135, 147, 204, 25, 11], [[93, 53], [53, 101]]),
        (3, 0.1, 6.0, 35, [272, 185, 244, 51, 147], [[245, 1], [34, 20]]),
    ],
)
def test_results_are_those_of_cleanlab(
    seed: int,
    prevalence: float,
    separation: float,
    issues: int,
    first: list[int],
    joint: list[list[int]],
) -> None:
    """Of cleanlab 2.9.0: ``find_label_issues`` and ``compute_confident_joint``.

    They were called with ``filter_by="confident_learning"``, ``return_indices_ranked_by=
    "self_confidence"`` and ``calibrate=True``, which rounds to whole images.
    """
    rng, n = np.random.default_rng(seed), 300
    clean = rng.random(n) < prevalence
    prior = np.log(prevalence / (1 - prevalence))
    logit = separation * (clean - 0.5) * 2 + rng.normal(size=n) + prior
    probability = 1 / (1 + np.exp(-logit))
    truth = (clean ^ (rng.random(n) < 0.1)).astype(int)
    classes = confident_classes(truth, probability)
    doubtful = np.flatnonzero((classes >= 0) & (classes != truth))
    confidence = np.where(truth == 1, probability, 1 - probability)
    assert len(doubtful) == issues
    assert doubtful[np.argsort(confidence[doubtful])][:5].tolist() == first
    expected = (joint[0][1] + joint[1][0]) / n
    assert share(truth, probability) == pytest.approx(expected, abs=1 / n)


def test_samples_of_patients_equal_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 3)
    probability = rng.random(60)
    truth = (rng.random(60) < probability).astype(int)
    truth[patients > 0] = 0  # all positives are of one patient, whom some samples lack
    truth[0] = 1
    resamples = resample_patients(patients, n_bootstrap=30, seed=0)
    values = wrong_share(truth, probability, resamples)
    for counts, value in zip(resamples.counts, values, strict=True):
        rows = np.repeat(np.arange(60), counts[resamples.patient_index])
        if truth[rows].any():
            assert value == pytest.approx(share(truth[rows], probability[rows]))
        else:
            assert np.isnan(value)
    assert 0 < np.isnan(values).sum() < 30


def test_label_without_a_confident_image_is_not_all_wrong() -> None:
    # No positive reaches its own mean except by being confidently negative as well.
    truth = np.array([1, 0, 0])
    assert share(truth, np.array([0.2, 0.1, 0.1])) == 0
