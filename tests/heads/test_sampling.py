"""Choice of training rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.errors import UsageError
from featurecache.heads.sampling import balanced_subset, balanced_weights, random_subset

ROWS = np.arange(100, 180)


def test_random_subset_has_the_requested_size_and_no_duplicates():
    chosen = random_subset(ROWS, 30, seed=0)
    assert len(set(chosen.tolist())) == 30
    assert set(chosen.tolist()) <= set(ROWS.tolist())
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(random_subset(ROWS, 80, seed=0), ROWS)


def test_random_subset_depends_on_the_seed_only():
    assert np.array_equal(random_subset(ROWS, 30, seed=1), random_subset(ROWS, 30, seed=1))
    assert not np.array_equal(random_subset(ROWS, 30, seed=1), random_subset(ROWS, 30, seed=2))


def test_random_subset_larger_than_the_data_is_refused():
    with pytest.raises(
        UsageError, match="`train_size` is 81, but there are only 80 training images"
    ):
        random_subset(ROWS, 81, seed=0)


def exclusive(counts, nothing):
    """Return labels with at most one positive per image, and ``nothing`` images without any."""
    labels = np.zeros((sum(counts) + nothing, len(counts)), dtype=np.int8)
    labels[np.arange(sum(counts)), np.repeat(np.arange(len(counts)), counts)] = 1
    return labels


def groups_of(labels):
    """Return membership (N, C + 1) of each label and of "no finding", computed row by row."""
    return np.array([[*(v == 1 for v in row), all(v == 0 for v in row)] for row in labels])


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_exclusive_labels_and_no_finding_are_equally_frequent(data):
    counts = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    nothing = data.draw(st.integers(0, 12))
    labels = exclusive(counts, nothing)
    size = data.draw(st.integers(1, len(labels)))
    chosen = balanced_subset(labels, np.arange(len(labels)), size=size, seed=7)
    assert len(set(chosen.tolist())) == size
    chosen_counts = groups_of(labels[chosen]).sum(axis=0)
    all_counts = groups_of(labels).sum(axis=0)
    # All counts differ by at most one, except those of groups that ran out.
    for count, available in zip(chosen_counts, all_counts, strict=True):
        assert count == available or count >= chosen_counts.max() - 1


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40), c=st.integers(1, 4), data=st.data())
def test_group_with_rows_left_is_never_the_rarest_by_more_than_one(seed, n, c, data):
    rng = np.random.default_rng(seed)
    labels = rng.choice([1, 0, -1], p=[0.35, 0.55, 0.1], size=(n, c)).astype(np.int8)
    groups = groups_of(labels)
    usable = int(groups.any(axis=1).sum())
    if usable == 0:
        return
    size = data.draw(st.integers(1, usable))
    chosen = balanced_subset(labels, np.arange(n), size=size, seed=seed)
    assert len(chosen) == size
    remaining = np.setdiff1d(np.arange(n), chosen)
    alone = groups[chosen][groups[chosen].sum(axis=1) == 1].sum(axis=0)
    for group in range(c + 1):
        if groups[remaining, group].any():
            # A row of a single group was chosen when that group was the rarest.
            assert alone.max(initial=0) <= groups[chosen, group].sum() + 1


def test_row_with_several_findings_counts_for_each():
    # Ten rows of both A and B, ten of C alone: a row of both balances one of C.
    labels = np.repeat(np.int8([[1, 1, 0], [0, 0, 1]]), 10, axis=0)
    chosen = balanced_subset(labels, np.arange(20), size=10, seed=0)
    assert labels[chosen].sum(axis=0).tolist() == [5, 5, 5]


def test_only_given_rows_with_known_labels_are_chosen():
    labels = exclusive([20, 20], 20)
    labels[5] = [-1, 0]
    labels[45] = [-1, -1]
    rows = np.arange(0, 60, 2) + 1
    chosen = balanced_subset(labels, rows, size=28, seed=0)
    assert set(chosen.tolist()) == set(rows.tolist()) - {5, 45}


def test_default_size_follows_from_the_median_group():
    # Groups of 10, 4, 6 and 30 images: the median is 8, four groups make 32.
    chosen = balanced_subset(exclusive([10, 4, 6], 30), np.arange(50), size=None, seed=0)
    assert len(chosen) == 32


def test_label_without_positives_is_not_a_group():
    labels = np.column_stack([exclusive([6, 6], 6), np.zeros(18, dtype=np.int8)])
    chosen = balanced_subset(labels, np.arange(18), size=9, seed=0)
    assert groups_of(labels[chosen]).sum(axis=0).tolist() == [3, 3, 0, 3]


def test_balanced_subset_depends_on_the_seed_only():
    labels, rows = exclusive([20, 20], 20), np.arange(60)
    first, again, other = (balanced_subset(labels, rows, size=9, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_balanced_subset_larger_than_the_data_is_refused():
    labels = exclusive([3, 3], 3)
    labels[0] = -1
    with pytest.raises(UsageError, match="`train_size` is 9, but there are only 8 training images"):
        balanced_subset(labels, np.arange(9), size=9, seed=0)


@pytest.mark.parametrize("labels", [np.full((4, 2), -1, dtype=np.int8), np.empty((0, 2), np.int8)])
def test_balanced_subset_of_unknown_labels_is_refused(labels):
    with pytest.raises(UsageError, match="`resample` is undersample, but no training image"):
        balanced_subset(labels, np.arange(len(labels)), size=None, seed=0)


def sampled_frequencies(labels):
    weights = balanced_weights(labels)
    assert weights.sum() == pytest.approx(1)
    sampled = np.random.default_rng(0).choice(len(labels), size=60_000, p=weights)
    return groups_of(labels)[sampled].mean(axis=0)


def test_weights_make_exclusive_groups_equally_frequent():
    np.testing.assert_allclose(sampled_frequencies(exclusive([200, 20, 4], 600)), 0.25, atol=0.01)


def test_weights_bring_frequencies_of_overlapping_groups_closer():
    rng = np.random.default_rng(2)
    labels = (rng.random((2000, 4)) < [0.4, 0.2, 0.05, 0.01]).astype(np.int8)
    before = groups_of(labels).mean(axis=0)
    after = sampled_frequencies(labels)
    assert before.max() / before.min() > 30
    assert after.max() / after.min() < 2.5


def test_weight_of_a_row_is_that_of_its_rarest_label():
    labels = np.int8([[1, 1], [1, 0], [1, 0], [1, 0], [0, 1], [-1, 1], [0, 0], [0, 0]])
    # A has 4 rows, B has 3, two have no finding.
    weights = np.array([1 / 3, 1 / 4, 1 / 4, 1 / 4, 1 / 3, 1 / 3, 1 / 2, 1 / 2])
    np.testing.assert_allclose(balanced_weights(labels), weights / weights.sum())


def test_row_without_group_has_the_weight_of_the_most_common_group():
    labels = exclusive([8, 2], 4)
    labels = np.vstack([labels, np.int8([[-1, 0]])])
    weights = balanced_weights(labels)
    assert weights[-1] == pytest.approx(weights[0])
    assert weights[0] * 4 == pytest.approx(weights[8])
