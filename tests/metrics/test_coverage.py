import numpy as np
import pytest

from featurecache.metrics.coverage import farthest_first
from featurecache.metrics.similarity import normalize_rows


def unit(n: int, *, seed: int) -> np.ndarray:
    return normalize_rows(np.random.default_rng(seed).normal(size=(n, 4)))


def test_each_row_is_the_farthest_from_all_before() -> None:
    candidates, covered = unit(30, seed=0), unit(300, seed=1)[:5]
    rows, cosines = farthest_first(candidates, np.arange(30), covered, n=30)
    before = list(covered)
    left = set(range(30))
    for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=True):
        nearest = {other: max(candidates[other] @ one for one in before) for other in left}
        assert nearest[row] == pytest.approx(min(nearest.values()), abs=1e-6)
        assert cosine == pytest.approx(nearest[row], abs=1e-6)
        before.append(candidates[row])
        left.remove(row)
    assert not left


def test_no_group_has_a_second_row_before_each_has_one() -> None:
    groups = np.array(["a"] * 8 + ["b"] * 2 + ["c"])
    rows, _ = farthest_first(unit(11, seed=2), groups, unit(0, seed=0), n=11)
    turns = groups[rows]
    assert sorted(turns[:3]) == ["a", "b", "c"]
    assert sorted(turns[3:5]) == ["a", "b"]
    assert sorted(rows) == list(range(11))


def test_first_row_is_preferred_where_nothing_is_covered() -> None:
    rows, cosines = farthest_first(unit(5, seed=3), np.arange(5), unit(0, seed=0), n=2)
    assert rows[0] == 0
    assert np.isnan(cosines[0])
    assert not np.isnan(cosines[1])


def test_many_covered_rows_are_compared_in_blocks() -> None:
    candidates, covered = unit(3, seed=4), unit(600, seed=5)
    _, cosines = farthest_first(candidates, np.arange(3), covered, n=1)
    assert cosines[0] == pytest.approx((candidates @ covered.T).max(axis=1).min())
