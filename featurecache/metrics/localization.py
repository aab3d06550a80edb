"""Localization: whether the map of a label in an image points at the boxes drawn for it.

A map is a grid over the part of the image that a network sees. It is scored by the pointing game
(Zhang et al. 2016, "Top-down neural attention by excitation backprop"): whether its highest cell
lies in a box, and by intersection over union of what lies above a threshold with the boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from featurecache.metrics.bootstrap import interval, resample_patients
from featurecache.metrics.document import Count, Difference, Document, Interval, Score
from featurecache.metrics.label_support import MIN_PATIENTS
from featurecache.metrics.ranking import Floats

RASTER: Final = 256
"""Rows and columns that areas in an image are counted in."""
ROUNDING: Final = 1e-4
"""Share of the image by which a point may miss a box that it is said to lie in."""
THRESHOLDS: Final = np.arange(1, 20) / 20
"""Fractions of the highest value of a map that validation chooses from."""

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels of the image."""


class MapIntervals(Document):
    """Confidence intervals of maps."""

    pointing_game: Interval | None = None
    iou: Interval | None = None


class MapScores(Document):
    """How well maps of labels point at boxes.

    Attributes:
        pointing_game: Share of positive labels whose highest point lies in a box.
        iou: Mean intersection over union of boxes and map, above a threshold; None where no
            threshold could be chosen.
        ci95: Their 95 % intervals, over patients; None with too few of them.
    """

    pointing_game: Score | None
    iou: Score | None
    ci95: MapIntervals = Field(default_factory=MapIntervals)


class MapGain(Document):
    """How much better maps point at boxes than the center of the image, paired by patient."""

    pointing_game: Difference
    iou: Difference


class LabelLocalization(Document):
    """The maps of one label.

    Attributes:
        n: Number of images in which the label is positive and has a box.
        n_patients: Number of their patients.
        maps: Scores of the maps.
        center: Scores of the center of the image.
    """

    n: Count
    n_patients: Count
    maps: MapScores
    center: MapScores


class Localization(Document):
    """Whether the maps of positive labels point at the boxes drawn for them.

    Attributes:
        n: Number of pairs of an image and a positive label with a box.
        n_images: Number of their images.
        n_patients: Number of their patients.
        n_validation: Number of pairs that the threshold was chosen on.
        threshold: Fraction of a map's highest value from which on it is compared with boxes, one
            for all labels; None without validation pairs.
        maps: Scores of the maps.
        center: Scores of the center of the image, and of a disc around it whose size was chosen in
            the same way, which know nothing of the image.
        gain: The difference between both.
        per_label: Scores by label.
    """

    n: Count
    n_images: Count
    n_patients: Count
    n_validation: Count
    threshold: Score | None
    maps: MapScores
    center: MapScores
    gain: MapGain
    per_label: dict[str, LabelLocalization]


@dataclass(frozen=True, eq=False)
class BoxedLabel:
    """A positive label of an image, with the boxes drawn for it and the map of a model.

    Attributes:
        label: The label.
        image: The image.
        patient: Its patient.
        size: Width and height of the image, in the pixels of the boxes.
        boxes: The boxes; several count as one region.
        area: The part of the image that the map is of, in the same pixels.
        map: (G, G) values of at least 0, by row and column.
    """

    label: str
    image: str
    patient: str
    size: tuple[float, float]
    boxes: Sequence[Box]
    area: Box
    map: NDArray[np.floating]

    def points_at_box(self) -> bool:
        """Return whether the center of the map's highest cell lies in a box."""
        row, column = np.unravel_index(np.argmax(self.map), self.map.shape)
        left, top, right, bottom = self.area
        across, down = ((index + 0.5) / len(self.map) for index in (column, row))
        return self._in_box(left + across * (right - left), top + down * (bottom - top))

    def center_in_box(self) -> bool:
        """Return whether the center of the image lies in a box."""
        return self._in_box(self.size[0] / 2, self.size[1] / 2)

    def _in_box(self, x: float, y: float) -> bool:
        # Cells and boxes may share an edge, and boxes are rounded.
        across, down = (ROUNDING * side for side in self.size)
        return any(
            left - across <= x <= right + across and top - down <= y <= bottom + down
            for left, top, right, bottom in self.boxes
        )

    def ious(self) -> Floats:
        """Return the intersection over union at each threshold, (K,); the map is interpolated."""
        return _ious(self._raster(), self._in_boxes())

    def center_ious(self) -> Floats:
        """Return the same for a map that decreases with the distance from the image's center."""
        return _ious(_CENTER, self._in_boxes())

    def _raster(self) -> Floats:
        """Return the map in the pixels of a raster over the image; 0 where it is not of."""
        (left, top, right, bottom), (width, height) = self.area, self.size
        rows = _interpolation(len(self.map), top / height, bottom / height)
        columns = _interpolation(len(self.map), left / width, right / width)
        raster: Floats = rows @ (self.map / self.map.max()).astype(np.float64) @ columns.T
        return raster

    def _in_boxes(self) -> NDArray[np.bool_]:
        x, y = (_CENTERS * side for side in self.size)
        inside = np.zeros((RASTER, RASTER), dtype=np.bool_)
        for left, top, right, bottom in self.boxes:
            inside |= np.outer((y >= top) & (y <= bottom), (x >= left) & (x <= right))
        return inside


_CENTERS: Final = (np.arange(RASTER) + 0.5) / RASTER
_CENTER: Final = 1 - np.hypot(_CENTERS - 0.5, _CENTERS[:, np.newaxis] - 0.5) * np.sqrt(2)


def _interpolation(size: int, start: float, stop: float) -> Floats:
    """Return linear interpolation of a grid that reaches from start to stop, (RASTER, size).

    Args:
        size: Number of cells.
        start: Where the first cell begins, as a fraction of the image.
        stop: Where the last cell ends.
    """
    position = (_CENTERS - start) / (stop - start) * size - 0.5
    cells = np.clip(position, 0, size - 1)
    weights = np.clip(1 - np.abs(cells[:, np.newaxis] - np.arange(size)), 0, None)
    inside = (position >= -0.5) & (position <= size - 0.5)
    interpolation: Floats = weights * inside[:, np.newaxis]
    return interpolation


def _ious(values: Floats, truth: NDArray[np.bool_]) -> Floats:
    """Return the intersection over union of truth and what reaches each threshold, (K,)."""
    reached = np.searchsorted(THRESHOLDS, values, side="right").ravel()

    def count_above(weights: NDArray[np.bool_] | None) -> Floats:
        counts = np.bincount(reached, weights, minlength=len(THRESHOLDS) + 1).astype(np.float64)
        above: Floats = np.cumsum(counts[:0:-1])[::-1]
        return above

    intersection = count_above(truth.ravel())
    union = count_above(None) + truth.sum() - intersection
    ious: Floats = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return ious


def measure_localization(
    scored: Sequence[BoxedLabel], validation: Sequence[BoxedLabel], *, n_bootstrap: int = 1000
) -> Localization:
    """Score the maps of positive labels, beside the center of the image.

    The threshold of the intersection over union has the highest mean on validation, one for all
    labels.

    Args:
        scored: The labels that are scored, one at least.
        validation: Those that the threshold is chosen on; without any, there is no intersection
            over union.
        n_bootstrap: Number of bootstrap samples over patients.

    Returns:
        The scores, with 95 % intervals where there are enough patients.
    """
    chosen = _best(np.array([one.ious() for one in validation]))
    center_chosen = _best(np.array([one.center_ious() for one in validation]))
    values = {
        "maps": _values(
            [one.points_at_box() for one in scored], [one.ious() for one in scored], chosen
        ),
        "center": _values(
            [one.center_in_box() for one in scored],
            [one.center_ious() for one in scored],
            center_chosen,
        ),
    }
    labels = np.array([one.label for one in scored])
    patients = np.array([one.patient for one in scored])

    def means(rows: NDArray[np.bool_]) -> dict[str, dict[str, "_Mean"]]:
        return {
            source: {
                name: _Mean(column[rows], patients[rows], n_bootstrap)
                for name, column in columns.items()
            }
            for source, columns in values.items()
        }

    overall = means(np.ones(len(scored), dtype=np.bool_))
    per_label = {}
    for label in dict.fromkeys(labels.tolist()):
        rows = labels == label
        of_label = means(rows)
        per_label[label] = LabelLocalization(
            n=int(rows.sum()),
            n_patients=len(np.unique(patients[rows])),
            maps=_scores(of_label["maps"]),
            center=_scores(of_label["center"]),
        )
    return Localization(
        n=len(scored),
        n_images=len({one.image for one in scored}),
        n_patients=len(np.unique(patients)),
        n_validation=len(validation),
        threshold=None if chosen is None else float(THRESHOLDS[chosen]),
        maps=_scores(overall["maps"]),
        center=_scores(overall["center"]),
        gain=MapGain(
            **{
                name: overall["maps"][name].minus(overall["center"][name])
                for name in ("pointing_game", "iou")
            }
        ),
        per_label=per_label,
    )


def _best(ious: Floats) -> int | None:
    """Return the threshold with the highest mean of (N, K) intersections over union."""
    return int(ious.mean(axis=0).argmax()) if len(ious) else None


def _values(hits: Sequence[bool], ious: Sequence[Floats], chosen: int | None) -> dict[str, Floats]:
    at_threshold = np.full(len(hits), np.nan) if chosen is None else np.array(ious)[:, chosen]
    return {"pointing_game": np.array(hits, dtype=np.float64), "iou": at_threshold}


class _Mean:
    """The mean of values, and its means in bootstrap samples of their patients."""

    def __init__(self, values: Floats, patients: NDArray[np.str_], n_bootstrap: int) -> None:
        resamples = resample_patients(patients, n_bootstrap=n_bootstrap, seed=0)
        index, n_patients = resamples.patient_index, resamples.counts.shape[1]
        sums, counts = (
            resamples.counts @ np.bincount(index, weights, n_patients)
            for weights in (values, np.ones_like(values))
        )
        self.value = float(values.mean())
        self.samples: Floats = sums / counts
        self.enough = n_patients >= MIN_PATIENTS

    @property
    def score(self) -> float | None:
        return None if np.isnan(self.value) else self.value

    @property
    def ci95(self) -> tuple[float, float] | None:
        return interval(self.samples) if self.enough else None

    def minus(self, other: "_Mean") -> Difference:
        """Return the paired difference from another mean over the same patients."""
        if self.score is None or other.score is None:
            return Difference(difference=None, ci95=None)
        between = interval(self.samples - other.samples) if self.enough else None
        return Difference(difference=self.score - other.score, ci95=between)


def _scores(means: dict[str, _Mean]) -> MapScores:
    return MapScores(
        **{name: mean.score for name, mean in means.items()},
        ci95=MapIntervals(**{name: mean.ci95 for name, mean in means.items()}),
    )
