"""Compare thresholds with a brute-force search."""

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featurecache.errors import UsageError
from featurecache.metrics.thresholds import OperatingPoint, choose_thresholds


def best_f1_thresholds(truth: np.ndarray, p: np.ndarray) -> np.ndarray:
    return choose_thresholds(truth, p).values


@settings(deadline=None)
@given(st.data())
def test_no_other_threshold_has_a_higher_f1(data):
    n = data.draw(st.integers(1, 12))
    truth = data.draw(arrays(np.int8, n, elements=st.sampled_from([-1, 0, 1])))
    # Any floats, including subnormal and adjacent ones, and often duplicates.
    pool = data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=6))
    p = data.draw(arrays(np.float64, n, elements=st.sampled_from(pool)))
    (threshold,) = best_f1_thresholds(truth[:, None], p[:, None])
    valid = truth >= 0
    if not (truth == 1).any():
        assert np.isnan(threshold)
        return
    brute = max(reference.f1_score(truth[valid], p[valid] >= cut) for cut in set(p[valid]))
    assert reference.f1_score(truth[valid], p[valid] >= threshold) == pytest.approx(brute)


def test_threshold_lies_midway_between_adjacent_scores():
    truth = np.array([[1], [1], [0], [0]])
    p = np.array([[0.9], [0.7], [0.3], [0.1]])
    assert best_f1_thresholds(truth, p) == pytest.approx([0.5])


def test_highest_of_equally_good_thresholds_is_chosen():
    # F1 is 2/3 with only the first row predicted positive, and with all four.
    truth = np.array([[1], [0], [0], [1]])
    p = np.array([[0.8], [0.6], [0.4], [0.2]])
    assert best_f1_thresholds(truth, p) == pytest.approx([0.7])


def test_labels_are_independent_and_one_without_positives_has_no_threshold():
    truth = np.array([[1, 0, 1], [0, 0, 1], [-1, 1, -1], [0, -1, -1]])
    p = np.array([[0.6, 0.1, 0.5], [0.2, 0.1, 0.3], [0.9, 0.9, 0.1], [0.4, 0.8, 0.9]])
    np.testing.assert_allclose(best_f1_thresholds(truth, p), [0.5, 0.5, 0.15])
    truth[:, 1] = [0, 0, -1, -1]
    assert np.isnan(best_f1_thresholds(truth, p)).tolist() == [False, True, False]


def test_single_precision_probabilities_keep_their_side_of_the_threshold():
    low = np.float32(0.3)
    p = np.array([[low], [np.nextafter(low, np.float32(1))]], dtype=np.float32)
    (threshold,) = best_f1_thresholds(np.array([[0], [1]]), p)
    assert (p.astype(np.float64)[:, 0] >= threshold).tolist() == [False, True]


@pytest.mark.parametrize("low", [0.0, 0.25, np.nextafter(0.25, 1)])
def test_adjacent_floats_are_separated(low):
    p = np.array([[low], [np.nextafter(low, 1)]])
    (threshold,) = best_f1_thresholds(np.array([[0], [1]]), p)
    assert (p[:, 0] >= threshold).tolist() == [False, True]


def test_logits_are_refused():
    with pytest.raises(ValueError, match=r"range from -2\.0 to 0\.5"):
        best_f1_thresholds(np.array([[0], [1]]), np.array([[-2.0], [0.5]]))


RULES = ["youden", "sensitivity=0.6", "sensitivity=1", "specificity=0.75", "specificity=1"]


@pytest.mark.parametrize("text", RULES)
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_other_threshold_serves_the_rule_better(text, data):
    n = data.draw(st.integers(2, 12))
    truth = np.array([0, 1, *data.draw(arrays(np.int8, n - 2, elements=st.integers(-1, 1)))])
    pool = data.draw(st.lists(st.floats(0, 0.999), min_size=1, max_size=6))
    p = data.draw(arrays(np.float64, n, elements=st.sampled_from(pool)))
    point = OperatingPoint.parse(text)
    target = point.target or 0.0
    (threshold,) = choose_thresholds(truth[:, None], p[:, None], point).values

    def rates(cut: float) -> tuple[float, float]:
        return (p[truth == 1] >= cut).mean(), (p[truth == 0] < cut).mean()

    # All decisions that are possible; brute force, with the first of equally good ones from above.
    cuts = [1.0, *sorted(set(p), reverse=True)]
    goodness = {
        "youden": lambda cut: sum(rates(cut)),
        "sensitivity": lambda cut: (rates(cut)[0] >= target, rates(cut)[1]),
        "specificity": lambda cut: (rates(cut)[1] >= target, rates(cut)[0]),
    }[point.rule]
    best = max(cuts, key=goodness)
    assert goodness(threshold) == pytest.approx(goodness(best))


TRUTH = np.array([[1], [1], [0], [0], [0]])


@pytest.mark.parametrize(
    ("text", "p", "threshold", "reason"),
    [
        ("youden", [0.9, 0.5, 0.6, 0.3, 0.1], 0.4, None),
        ("sensitivity=0.5", [0.9, 0.5, 0.6, 0.3, 0.1], 0.75, None),
        ("specificity=0.66", [0.9, 0.5, 0.6, 0.3, 0.1], 0.4, None),
        # What a target costs, where it costs everything.
        ("sensitivity=0.95", [0.9, 0.0, 0.6, 0.3, 0.1], 0.0, "calling every image positive"),
        ("specificity=1", [0.2, 0.1, 0.6, 0.3, 0.1], 0.8, "without finding a single positive"),
        ("specificity=1", [1.0, 0.1, 1.0, 0.3, 0.1], 1.0, "cannot be reached"),
    ],
)
def test_operating_points_computed_by_hand(text, p, threshold, reason):
    chosen = choose_thresholds(TRUTH, np.array(p)[:, None], OperatingPoint.parse(text))
    assert chosen.values == pytest.approx([threshold])
    assert reason in chosen.unreached[0] if reason else not chosen.unreached


@pytest.mark.parametrize("text", ["youden", "specificity=0.9", "sensitivity=0.9"])
def test_label_without_positives_has_no_operating_point(text):
    chosen = choose_thresholds(
        np.zeros((3, 1), int), np.full((3, 1), 0.2), OperatingPoint.parse(text)
    )
    assert np.isnan(chosen.values).all()
    assert not chosen.unreached


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f2", "did you mean f1"),
        ("youden=0.5", "takes no number"),
        ("sensitivity", "such as sensitivity=0.9"),
        ("specificity=95", "such as specificity=0.9"),
        ("sensitivity=high", "such as sensitivity=0.9"),
    ],
)
def test_invalid_operating_points(text, message):
    with pytest.raises(UsageError, match=message):
        OperatingPoint.parse(text)


@pytest.mark.parametrize("text", ["f1", "youden", "sensitivity=0.95"])
def test_operating_point_as_text(text):
    assert str(OperatingPoint.parse(text)) == text
