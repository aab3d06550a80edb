"""Names in plots."""

import numpy as np
import pytest

from featurecache.report.plot_style import display_name
from featurecache.report.plots import (
    Estimate,
    embedding_plot,
    label_forest_plot,
    learning_curve_plot,
    loss_plot,
)
from featurecache.report.svg import inline_svg

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


@pytest.mark.parametrize("name", ['No Finding_50% & $x_{1}$ #é "<b>', "W" * 34, "Edema"])
def test_long_names_fit_into_plots_without_warnings(name: str) -> None:
    """Warnings are errors: matplotlib has one where names leave no room for the axes."""
    names = [f"{number}{name}" for number in range(4)]
    estimates = {run: [Estimate(name, 0.7, (0.6, 0.8))] for run in names}
    indices = {run: index for index, run in enumerate(names)}
    curves = {run: estimate * 3 for run, estimate in estimates.items()}
    points, truth = np.eye(3, 2), np.array([-1, 0, 1], np.int8)
    for figure in (
        embedding_plot(points, truth, label=name, explained_variance=np.array([0.5, 0.3])),
        label_forest_plot(estimates, indices, x_label="AUROC"),
        learning_curve_plot([10, 20, 40], curves, y_label="macro AUROC"),
    ):
        inline_svg(figure, title=name, id_prefix="a")
        (legend,) = figure.legends
        assert legend.get_window_extent().x1 <= 1.01 * figure.bbox.x1
