"""The learning-rate schedule."""

import pytest

from featurecache.schedule import warmup_cosine


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.25), (3, 1.0), (4, 1.0), (8, 0.5), (12, 0.0), (99, 0.0)]
)
def test_rate_rises_linearly_then_falls_as_half_a_cosine(step, factor):
    assert warmup_cosine(step, warmup=4, total=12) == pytest.approx(factor)


def test_rate_starts_at_its_peak_without_warmup():
    assert warmup_cosine(0, warmup=0, total=10) == 1.0
