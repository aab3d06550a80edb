"""The learning-rate schedule, by hand."""

import pytest

from featurecache.schedule import warmup_cosine


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.25), (3, 1.0), (4, 1.0), (8, 0.5), (12, 0.0), (99, 0.0)]
)
def test_it_rises_then_falls_as_half_a_cosine(step, factor):
    assert warmup_cosine(step, warmup=4, total=12) == pytest.approx(factor)


def test_without_warm_up_it_starts_at_the_top():
    assert warmup_cosine(0, warmup=0, total=10) == 1.0
