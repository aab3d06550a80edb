"""Combinations of levels, views and ways to make studies."""

import pytest

from featurecache.errors import UnknownNameError, UsageError
from featurecache.units import Units, require_same_level, require_same_units

SIDE_BY_SIDE = Units(level="study", study_features="frontal+lateral")


def test_each_way_to_make_studies_replaces_the_other() -> None:
    assert Units(level="study") == Units(level="study", study_scores="mean")
    assert SIDE_BY_SIDE.override(study_scores="max").study_features is None
    assert SIDE_BY_SIDE.override(level="image") == Units()
    assert SIDE_BY_SIDE.override(views="all", level=None) == SIDE_BY_SIDE
    assert Units().override(level="study", views="frontal").chosen == {
        "level": "study",
        "views": "frontal",
        "study_scores": "mean",
    }
    assert Units().to_config() == {"level": "image", "views": "all"}


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"level": "patient"}, UnknownNameError, "`level`"),
        ({"level": "study", "views": "oblique"}, UnknownNameError, "frontal, lateral"),
        ({"level": "study", "study_scores": "median"}, UnknownNameError, "`study_scores`"),
        ({"study_scores": "mean"}, UsageError, "give `level` study"),
        (
            {"level": "study", "study_scores": "max", "study_features": "mean"},
            UsageError,
            "not both",
        ),
    ],
)
def test_contradictions_are_refused(values, error, message) -> None:
    with pytest.raises(error, match=message):
        Units(**values)


def test_evaluation_needs_the_same_units_and_comparison_the_same_level() -> None:
    frontal = Units(level="study", views="frontal")
    require_same_level(SIDE_BY_SIDE, frontal, names=("a", "b"))
    with pytest.raises(UsageError, match="`views` is 'all' for a and 'frontal' for b"):
        require_same_units(SIDE_BY_SIDE, frontal, names=("a", "b"))
    with pytest.raises(UsageError, match="`study_scores` is not given for a and 'mean' for b"):
        require_same_units(SIDE_BY_SIDE, Units(level="study"), names=("a", "b"))
    for other, field in ((Units(views="lateral"), "views"), (frontal, "level")):
        with pytest.raises(UsageError, match=f"`{field}` is"):
            require_same_level(Units(), other, names=("a", "b"))
