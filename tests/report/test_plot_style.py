"""Names in plots."""

import numpy as np
import pytest

from featurecache.report.plot_style import display_name
from featurecache.report.plots import loss_plot

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


def test_best_epoch_is_named_in_the_legend() -> None:
    losses = {"training": (np.arange(1, 4), np.array([0.3, 0.2, 0.1]))}
    (legend,) = loss_plot(losses, best_epoch=2).legends
    assert [text.get_text() for text in legend.get_texts()] == ["training", "best epoch, 2"]
