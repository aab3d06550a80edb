"""Which training rows a head sees."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.errors import UsageError
from featurecache.heads.sampling import balanced_subset, balanced_weights, random_subset

ROWS = np.arange(100, 180)


def test_a_random_subset_has_its_size_and_no_row_twice():
    chosen = random_subset(ROWS, 30, seed=0)
    assert len(set(chosen.tolist())) == 30
    assert set(chosen.tolist()) <= set(ROWS.tolist())
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(random_subset(ROWS, 80, seed=0), ROWS)


def test_a_random_subset_is_decided_by_its_seed():
    assert np.array_equal(random_subset(ROWS, 30, seed=1), random_subset(ROWS, 30, seed=1))
    assert not np.array_equal(random_subset(ROWS, 30, seed=1), random_subset(ROWS, 30, seed=2))


def test_more_rows_than_there_are_cannot_be_taken():
    with pytest.raises(UsageError, match="--train-size 81 is more than the 80 training images"):
        random_subset(ROWS, 81, seed=0)


def exclusive(counts, nothing):
    """Labels of which one at most holds: so many images of each, and so many of none."""
    labels = np.zeros((sum(counts) + nothing, len(counts)), dtype=np.int8)
    labels[np.arange(sum(counts)), np.repeat(np.arange(len(counts)), counts)] = 1
    return labels


def groups_of(labels):
    """(N, C + 1): each label, and "no finding"; written out row by row."""
    return np.array([[*(v == 1 for v in row), all(v == 0 for v in row)] for row in labels])


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_exclusive_labels_and_no_finding_come_up_equally_often(data):
    counts = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    nothing = data.draw(st.integers(0, 12))
    labels = exclusive(counts, nothing)
    size = data.draw(st.integers(1, len(labels)))
    chosen = balanced_subset(labels, np.arange(len(labels)), size=size, seed=7)
    assert len(set(chosen.tolist())) == size
    found = groups_of(labels[chosen]).sum(axis=0)
    whole = groups_of(labels).sum(axis=0)
    # All groups stand at one level, or one below it, but those that ran out before.
    for group, there_were in zip(found, whole, strict=True):
        assert group == there_were or group >= found.max() - 1


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40), c=st.integers(1, 4), data=st.data())
def test_no_group_with_rows_left_is_behind_what_another_was_given(seed, n, c, data):
    rng = np.random.default_rng(seed)
    labels = rng.choice([1, 0, -1], p=[0.35, 0.55, 0.1], size=(n, c)).astype(np.int8)
    groups = groups_of(labels)
    usable = int(groups.any(axis=1).sum())
    if usable == 0:
        return
    size = data.draw(st.integers(1, usable))
    chosen = balanced_subset(labels, np.arange(n), size=size, seed=seed)
    assert len(chosen) == size
    left = np.setdiff1d(np.arange(n), chosen)
    alone = groups[chosen][groups[chosen].sum(axis=1) == 1].sum(axis=0)
    for group in range(c + 1):
        if groups[left, group].any():
            # A row of one group only was chosen for that group, which was then the rarest.
            assert alone.max(initial=0) <= groups[chosen, group].sum() + 1


def test_a_row_with_several_findings_counts_for_each():
    # Ten rows of both A and B, ten of C alone: each row of both stands against one of C.
    labels = np.repeat(np.int8([[1, 1, 0], [0, 0, 1]]), 10, axis=0)
    chosen = balanced_subset(labels, np.arange(20), size=10, seed=0)
    assert labels[chosen].sum(axis=0).tolist() == [5, 5, 5]


def test_only_the_given_rows_are_chosen_and_rows_with_unknowns_only_never():
    labels = exclusive([20, 20], 20)
    labels[5] = [-1, 0]
    labels[45] = [-1, -1]
    rows = np.arange(0, 60, 2) + 1
    chosen = balanced_subset(labels, rows, size=28, seed=0)
    assert set(chosen.tolist()) == set(rows.tolist()) - {5, 45}


def test_without_a_size_the_median_group_decides():
    # Groups of 10, 4, 6 and 30 images: the median is 8, four groups make 32.
    chosen = balanced_subset(exclusive([10, 4, 6], 30), np.arange(50), size=None, seed=0)
    assert len(chosen) == 32


def test_a_label_that_nobody_has_is_no_group():
    labels = np.column_stack([exclusive([6, 6], 6), np.zeros(18, dtype=np.int8)])
    chosen = balanced_subset(labels, np.arange(18), size=9, seed=0)
    assert groups_of(labels[chosen]).sum(axis=0).tolist() == [3, 3, 0, 3]


def test_a_balanced_subset_is_decided_by_its_seed():
    labels, rows = exclusive([20, 20], 20), np.arange(60)
    first, again, other = (balanced_subset(labels, rows, size=9, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_balanced_subset_larger_than_the_data_is_refused():
    labels = exclusive([3, 3], 3)
    labels[0] = -1
    with pytest.raises(UsageError, match="--train-size 9 is more than the 8 training images"):
        balanced_subset(labels, np.arange(9), size=9, seed=0)


@pytest.mark.parametrize("labels", [np.full((4, 2), -1, dtype=np.int8), np.empty((0, 2), np.int8)])
def test_a_balanced_subset_of_nothing_known_is_refused(labels):
    with pytest.raises(UsageError, match="--resample undersample found no training image"):
        balanced_subset(labels, np.arange(len(labels)), size=None, seed=0)


def drawn_shares(labels):
    weights = balanced_weights(labels)
    assert weights.sum() == pytest.approx(1)
    drawn = np.random.default_rng(0).choice(len(labels), size=60_000, p=weights)
    return groups_of(labels)[drawn].mean(axis=0)


def test_draws_give_each_exclusive_group_the_same_share():
    np.testing.assert_allclose(drawn_shares(exclusive([200, 20, 4], 600)), 0.25, atol=0.01)


def test_draws_bring_groups_that_overlap_closer_together():
    rng = np.random.default_rng(2)
    labels = (rng.random((2000, 4)) < [0.4, 0.2, 0.05, 0.01]).astype(np.int8)
    before = groups_of(labels).mean(axis=0)
    after = drawn_shares(labels)
    assert before.max() / before.min() > 30
    assert after.max() / after.min() < 2.5


def test_a_row_is_drawn_by_the_odds_of_its_rarest_label():
    labels = np.int8([[1, 1], [1, 0], [1, 0], [1, 0], [0, 1], [-1, 1], [0, 0], [0, 0]])
    # A has 4 rows, B has 3, two have no finding.
    odds = np.array([1 / 3, 1 / 4, 1 / 4, 1 / 4, 1 / 3, 1 / 3, 1 / 2, 1 / 2])
    np.testing.assert_allclose(balanced_weights(labels), odds / odds.sum())


def test_a_row_in_no_group_is_drawn_as_often_as_a_row_of_the_most_common_group():
    labels = exclusive([8, 2], 4)
    labels = np.vstack([labels, np.int8([[-1, 0]])])
    weights = balanced_weights(labels)
    assert weights[-1] == pytest.approx(weights[0])
    assert weights[0] * 4 == pytest.approx(weights[8])
