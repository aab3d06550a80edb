"""Pointing game and intersection over union, against values computed by hand and by brute force."""

import numpy as np
import pytest

from featurecache.metrics.localization import THRESHOLDS, BoxedLabel, measure_localization

GRID = np.array([[0.1, 0.2, 0.1], [0.3, 0.4, 1.0], [0.1, 0.2, 0.1]])


def boxed(*boxes, area=(0, 0, 90, 60), size=(90, 60), values=GRID, patient="p", label="Mass"):
    return BoxedLabel(label, f"{patient}.png", patient, size, boxes, area, values)


@pytest.mark.parametrize(
    ("area", "box", "hit"),
    [
        ((0, 0, 90, 60), (60, 20, 90, 40), True),  # the highest cell is in columns 60 to 90
        ((0, 0, 90, 60), (76, 20, 90, 40), False),  # its center is at (75, 30)
        ((0, 0, 90, 60), (0, 0, 74, 60), False),
        ((0, 0, 90, 60), (0, 0, 74.999, 60), True),  # the edge is rounded
        ((15, 0, 75, 60), (64, 29, 66, 31), True),  # a crop moves it to (65, 30)
        ((-45, -60, 135, 120), (104, 29, 106, 31), True),  # padding to (105, 30)
    ],
)
def test_pointing_game_is_about_the_center_of_the_highest_cell(area, box, hit):
    assert boxed(box, area=area).points_at_box() is hit


def test_any_box_counts_and_the_center_is_that_of_the_image():
    one = boxed((0, 0, 10, 10), (70, 25, 80, 35), area=(0, 0, 60, 60))
    assert not one.points_at_box()
    assert not one.center_in_box()
    assert boxed((0, 0, 10, 10), (40, 25, 50, 35)).center_in_box()


@pytest.mark.parametrize("area", [(0, 0, 90, 60), (15, 0, 75, 60), (-45, -60, 135, 120)])
def test_iou_equals_that_of_points_interpolated_one_by_one(area):
    """Random points in the image, each by the definition of bilinear interpolation."""
    boxes = ((50, 10, 85, 45), (20, 20, 55, 30))
    one = boxed(*boxes, area=area)
    x, y = np.random.default_rng(0).random((2, 60_000)) * [[90], [60]]
    truth = np.zeros(len(x), dtype=bool)
    for left, top, right, bottom in boxes:
        truth |= (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    u, v = (x - area[0]) / (area[2] - area[0]) * 3, (y - area[1]) / (area[3] - area[1]) * 3
    column, row = np.clip(u - 0.5, 0, 2), np.clip(v - 0.5, 0, 2)
    i, j = np.minimum(row.astype(int), 1), np.minimum(column.astype(int), 1)
    a, b = row - i, column - j
    value = (1 - a) * (1 - b) * GRID[i, j] + (1 - a) * b * GRID[i, j + 1]
    value += a * (1 - b) * GRID[i + 1, j] + a * b * GRID[i + 1, j + 1]
    value[(u < 0) | (u > 3) | (v < 0) | (v > 3)] = 0
    expected = [
        (truth & (value >= threshold)).sum() / (truth | (value >= threshold)).sum()
        for threshold in THRESHOLDS
    ]
    np.testing.assert_allclose(one.ious(), expected, atol=0.012)


def test_center_map_is_a_disc_around_the_center():
    # Half of its height is reached at a distance of a quarter of the diagonal.
    one = boxed((0, 0, 100, 100), size=(100, 100))
    at_half = one.center_ious()[np.flatnonzero(THRESHOLDS == 0.5)[0]]
    assert at_half == pytest.approx(np.pi * 0.25**2 * 2, abs=0.01)


def test_scores_are_means_over_pairs_with_intervals_over_patients():
    hit, miss = (60, 20, 90, 40), (0, 0, 30, 20)
    scored = [boxed(hit if n % 3 else miss, patient=f"p{n // 2}") for n in range(24)]
    scored += [boxed((40, 25, 50, 35), label="Hernia", patient="p0")]
    result = measure_localization(scored, scored[:6], n_bootstrap=400)
    assert (result.n, result.n_images, result.n_patients, result.n_validation) == (25, 12, 12, 6)
    assert result.maps.pointing_game == pytest.approx(16 / 25)
    assert result.center.pointing_game == pytest.approx(1 / 25)
    assert result.gain.pointing_game.difference == pytest.approx(15 / 25)
    low, high = result.maps.ci95.pointing_game
    assert low < 16 / 25 < high
    # The threshold is best for the validation pairs.
    ious = np.array([one.ious() for one in scored])
    best = ious[:6].mean(axis=0).argmax()
    assert result.threshold == THRESHOLDS[best]
    assert result.maps.iou == pytest.approx(ious[:, best].mean())
    assert result.per_label["Hernia"].maps.pointing_game == 0
    assert result.per_label["Hernia"].center.pointing_game == 1
    assert result.per_label["Hernia"].maps.ci95.pointing_game is None
    assert result.per_label["Mass"].maps.pointing_game == pytest.approx(16 / 24)


def test_bootstrap_samples_take_all_pairs_of_a_patient():
    """Two patients of one pair and eight of nine: the ratio of resampled sums, by brute force."""
    sizes = [1, 1, *[9] * 8]
    hit, miss = (60, 20, 90, 40), (0, 0, 30, 20)
    scored = [
        boxed(hit if patient < 6 else miss, patient=f"p{patient}")
        for patient, size in enumerate(sizes)
        for _ in range(size)
    ]
    result = measure_localization(scored, [], n_bootstrap=4000)
    rng, means = np.random.default_rng(9), []
    for _ in range(4000):
        drawn = rng.integers(10, size=10)
        weights = np.array(sizes)[drawn]
        means.append(weights[drawn < 6].sum() / weights.sum())
    assert result.maps.ci95.pointing_game == pytest.approx(
        tuple(np.quantile(means, [0.025, 0.975])), abs=0.04
    )


def test_without_validation_pairs_there_is_no_iou():
    result = measure_localization([boxed((60, 20, 90, 40))], [], n_bootstrap=10)
    assert result.threshold is None
    assert result.maps.iou is None
    assert result.gain.iou.difference is None
    assert result.maps.pointing_game == 1
