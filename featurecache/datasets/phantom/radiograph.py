"""Generate one radiograph, and the boxes around its findings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom.anatomy import Patient, anatomy_in_view, build_anatomy
from featurecache.datasets.phantom.chest import build_chest
from featurecache.datasets.phantom.findings import (
    ANATOMY_FINDINGS,
    HEART_FINDING,
    LAYER_FINDINGS,
)
from featurecache.datasets.phantom.lateral import LATERAL_FINDING, lateral_layers
from featurecache.datasets.phantom.randomness import Stream, random_stream
from featurecache.datasets.phantom.shapes import Field, Plane, draw_lines, smoothstep
from featurecache.errors import UnknownNameError, UsageError

LATERAL: Final = "LATERAL"

_BOX_LEVEL: Final = 0.25
"""A box holds the pixels that a finding changes by this fraction of its largest change."""
_BOX_GAP: Final = 0.02
"""Regions that are closer than twice this fraction of the image share a box."""
_BOX_AREA: Final = 0.05
"""Regions of a smaller area, as a fraction of the finding's largest, have no box."""

Box = tuple[str, int, int, int, int]
"""Finding, left and upper edge, width and height in pixels."""


@dataclass(frozen=True)
class _Technique:
    """How images of one view are taken.

    Attributes:
        rotation: Standard deviation of the rotation, in radians.
        gain: Factor of the attenuation; higher is whiter.
        haze: Fraction of uniform scatter.
        grain: Standard deviation of the noise.
        leads: Maximum number of monitor leads on the chest.
    """

    rotation: float
    gain: float
    haze: float
    grain: float
    leads: int


_TECHNIQUES = {
    "PA": _Technique(rotation=0.025, gain=1.75, haze=0.02, grain=0.008, leads=0),
    # In bed: rotated, short exposure, no anti-scatter grid, and monitor leads.
    "AP": _Technique(rotation=0.05, gain=1.60, haze=0.07, grain=0.014, leads=2),
    LATERAL: _Technique(rotation=0.025, gain=1.75, haze=0.04, grain=0.010, leads=0),
}


def draw_radiograph(
    patient: Patient, findings: Mapping[str, float], *, view: str, seed: int, size: int = 224
) -> NDArray[np.uint8]:
    """Generate one radiograph.

    The same arguments give the same pixels. A finding of severity 0 changes nothing, and a finding
    does not move anything else.

    Args:
        patient: The patient.
        findings: Severities from 0 to 1, by the names of ``nih.LABELS``.
        view: "PA", or "AP" for an image taken in bed; or "LATERAL", which shows an effusion only.
        seed: Seed of pose, exposure and location of the findings.
        size: Height and width in pixels.

    Returns:
        (size, size) uint8, bone white and air black.

    Raises:
        UnknownNameError: If there is no such finding or view.
        UsageError: If a severity is not from 0 to 1, or the size is less than 32 pixels.
    """
    return draw_with_boxes(patient, findings, view=view, seed=seed, size=size)[0]


def draw_with_boxes(
    patient: Patient, findings: Mapping[str, float], *, view: str, seed: int, size: int = 224
) -> tuple[NDArray[np.uint8], list[Box]]:
    """Generate one radiograph, and the boxes around what each finding changes in it.

    A finding has a box for each of its regions. An enlarged heart is in one box; emphysema, which
    changes the whole chest, has none, and neither have the findings of a lateral view.

    Args:
        patient: See ``draw_radiograph``.
        findings: See ``draw_radiograph``.
        view: See ``draw_radiograph``.
        seed: See ``draw_radiograph``.
        size: See ``draw_radiograph``.

    Returns:
        The pixels and the boxes.

    Raises:
        FeaturecacheError: See ``draw_radiograph``.
    """
    _check_arguments(findings, view, size)
    present = {name: severity for name, severity in findings.items() if severity > 0}
    technique = _TECHNIQUES[view]
    plane = _pose(technique, seed, size)
    if view == LATERAL:
        effusion = findings.get(LATERAL_FINDING, 0)
        attenuation, trunk = lateral_layers(plane, effusion=effusion, seed=seed)
        return _expose(attenuation, trunk, plane, technique, seed), []
    anatomy = anatomy_in_view(build_anatomy(patient), view)
    for name, change_anatomy in ANATOMY_FINDINGS.items():
        if name in present:
            anatomy = change_anatomy(anatomy, present[name])
    chest = build_chest(anatomy, plane, seed=patient.seed)
    boxes: list[Box] = []
    if HEART_FINDING in present:
        ventricle, atrium = chest.outline.heart()
        boxes += _boxes(HEART_FINDING, np.minimum(ventricle, atrium) < 1)
    attenuation = chest.attenuation()
    for name, change_layers in LAYER_FINDINGS.items():
        if name in present:
            rng = random_stream(seed, Stream.FINDINGS + LABELS.index(name))
            change_layers(chest, present[name], rng)
            before, attenuation = attenuation, chest.attenuation()
            change = np.abs(attenuation - before)
            boxes += _boxes(name, change > _BOX_LEVEL * change.max())
    return _expose(attenuation, chest.trunk, plane, technique, seed), boxes


def _boxes(name: str, mask: NDArray[np.bool_]) -> list[Box]:
    """Return a box for each region of a mask."""
    from scipy.ndimage import binary_dilation, find_objects, label

    grown = binary_dilation(mask, iterations=max(1, round(_BOX_GAP * len(mask))))
    regions = np.where(mask, label(grown)[0], 0)
    areas = np.bincount(regions.ravel())[1:]
    return [
        (name, columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        for area, (rows, columns) in zip(areas, find_objects(regions), strict=True)
        if area >= _BOX_AREA * areas.max()
    ]


def _check_arguments(findings: Mapping[str, float], view: str, size: int) -> None:
    if view not in _TECHNIQUES:
        raise UnknownNameError("view", view, _TECHNIQUES)
    for name, severity in findings.items():
        if name not in LABELS:
            raise UnknownNameError("finding", name, LABELS)
        if not 0 <= severity <= 1:
            raise UsageError(f"the severity of {name} is {severity}: give a number from 0 to 1")
    if size < 32:
        raise UsageError(f"the image size is {size} pixels: give 32 or more")


def _pose(technique: _Technique, seed: int, size: int) -> Plane:
    rng = random_stream(seed, Stream.POSE)
    return Plane.posed(
        size,
        rotation=rng.normal(0, technique.rotation),
        scale=rng.uniform(0.92, 1.06),
        shift=(rng.normal(0, 0.015), rng.normal(0, 0.015)),
    )


def _expose(
    attenuation: Field, trunk: Field, plane: Plane, technique: _Technique, seed: int
) -> NDArray[np.uint8]:
    """Compute the transmission through the layers and convert it to 8-bit gray values."""
    rng = random_stream(seed, Stream.EXPOSURE)
    gain = technique.gain * np.exp(rng.normal(0, 0.07))
    through = np.exp(-gain * (attenuation + _overlays(plane, technique, seed)))
    white = (1 - through) * (1 - technique.haze) + technique.haze * smoothstep(trunk, 0.3)
    grain = random_stream(seed, Stream.GRAIN).standard_normal(white.shape)
    white = white + technique.grain * grain * np.sqrt(white)
    gray = np.clip(white * rng.uniform(0.92, 1.0), 0, 1)
    pixels: NDArray[np.uint8] = np.rint(255 * gray).astype(np.uint8)
    return pixels


def _overlays(plane: Plane, technique: _Technique, seed: int) -> Field:
    """Return the attenuation of the side marker and of the monitor leads."""
    rng = random_stream(seed, Stream.OVERLAYS)
    left, top = rng.uniform(0.36, 0.42), rng.uniform(0.03, 0.10)
    stem = np.maximum(np.abs(plane.x - left) - 0.004, np.abs(plane.y - top) - 0.020)
    foot = np.maximum(np.abs(plane.x - left - 0.008) - 0.012, np.abs(plane.y - top - 0.018) - 0.003)
    total = 1.2 * smoothstep(-np.minimum(stem, foot), 0.005)
    for _ in range(rng.integers(0, technique.leads, endpoint=True)):
        t = np.linspace(0, 1, 400)
        start, sag = rng.uniform((-0.3, 0.2), (0.3, 0.5)), rng.uniform(-0.15, 0.15)
        end = (rng.choice((-0.5, 0.5)), rng.uniform(0.0, 0.9))
        x = start[0] + (end[0] - start[0]) * t + sag * t * (1 - t)
        y = start[1] + (end[1] - start[1]) * t + 0.6 * abs(sag) * t * (1 - t)
        total += 0.35 * np.clip(draw_lines(plane, x, y, np.ones_like(t), 0.0022), 0, 1)
        total += 0.30 * smoothstep(0.014 - np.hypot(plane.x - start[0], plane.y - start[1]), 0.006)
    return total
