"""Compare thresholds with a brute-force search."""

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featurecache.metrics.thresholds import best_f1_thresholds


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
