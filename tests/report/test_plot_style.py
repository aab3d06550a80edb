"""Names in plots."""

import pytest

from featurecache.report.plot_style import display_name

LONG = "kermany-dinov2-minilm-with-a-long-name-{}"


@pytest.mark.parametrize("suffix", ["", ", AUROC 0.903"])
def test_long_names_differ_and_leave_room_for_what_follows(suffix: str) -> None:
    names = [display_name(LONG.format(head), suffix=suffix) for head in ("baseline", "concat")]
    assert len(set(names)) == 2
    assert {len(name) for name in names} == {34}
    assert all(name.endswith(suffix) and name.startswith("kermany-") for name in names)
    assert names[0].removesuffix(suffix).endswith("baseline")


def test_short_names_stay_as_they_are() -> None:
    assert display_name("runs/knn", suffix=", AUROC 0.903") == "runs/knn, AUROC 0.903"
    assert display_name("_a\n") == "a\ufffd"
