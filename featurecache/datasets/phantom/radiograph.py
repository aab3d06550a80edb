"""Taking and developing one film."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom.anatomy import Patient, build, in_view
from featurecache.datasets.phantom.chest import Chest, lay_out
from featurecache.datasets.phantom.findings import PAINTED, RESHAPING
from featurecache.datasets.phantom.randomness import Part, stream
from featurecache.datasets.phantom.shapes import Field, Plane, smooth, threads
from featurecache.errors import UnknownNameError, UsageError

VIEWS = ("PA", "AP")


@dataclass(frozen=True)
class _Technique:
    """How films of one view are taken.

    Attributes:
        rotation: Standard deviation, in radians.
        gain: Of the film; more is whiter.
        haze: Share of the light that is scatter, the same everywhere.
        grain: Standard deviation of the noise.
        leads: Most leads of a monitor that lie on the chest.
    """

    rotation: float
    gain: float
    haze: float
    grain: float
    leads: int


_TECHNIQUES = {
    "PA": _Technique(rotation=0.025, gain=1.75, haze=0.02, grain=0.008, leads=0),
    # In bed: skew, short exposure, no grid against scatter, and a monitor's leads.
    "AP": _Technique(rotation=0.05, gain=1.60, haze=0.07, grain=0.014, leads=2),
}


def draw_film(
    patient: Patient, findings: Mapping[str, float], *, view: str, seed: int, size: int = 224
) -> npt.NDArray[np.uint8]:
    """Draw one frontal film of one patient.

    The same arguments give the same pixels. A finding of severity 0 is no finding, and a finding
    that is there moves nothing else.

    Args:
        patient: Who is filmed.
        findings: Severities, from 0 to 1, by the names of ``nih.LABELS``.
        view: "PA", or "AP" for a film in bed.
        seed: Decides pose, exposure, and where the findings are.
        size: Height and width in pixels.

    Returns:
        (size, size) uint8, bone white and air black.

    Raises:
        UnknownNameError: there is no such finding or view.
        UsageError: a severity is not from 0 to 1, or the size is less than 32 pixels.
    """
    _check(findings, view, size)
    present = {name: severity for name, severity in findings.items() if severity > 0}
    anatomy = in_view(build(patient), view)
    for name, reshape in RESHAPING.items():
        if name in present:
            anatomy = reshape(anatomy, present[name])
    chest = lay_out(anatomy, _pose(_TECHNIQUES[view], seed, size), seed=patient.seed)
    for name, paint in PAINTED.items():
        if name in present:
            rng = stream(seed, Part.FINDINGS + LABELS.index(name))
            paint(chest, present[name], rng)
    return _develop(chest, _TECHNIQUES[view], seed)


def _check(findings: Mapping[str, float], view: str, size: int) -> None:
    if view not in VIEWS:
        raise UnknownNameError("view", view, VIEWS)
    for name, severity in findings.items():
        if name not in LABELS:
            raise UnknownNameError("finding", name, LABELS)
        if not 0 <= severity <= 1:
            raise UsageError(f"severity {severity} of {name} is not from 0 to 1")
    if size < 32:
        raise UsageError(f"a film of {size} pixels shows nothing: draw 32 or more")


def _pose(technique: _Technique, seed: int, size: int) -> Plane:
    rng = stream(seed, Part.POSE)
    return Plane.posed(
        size,
        rotation=rng.normal(0, technique.rotation),
        scale=rng.uniform(0.92, 1.06),
        shift=(rng.normal(0, 0.015), rng.normal(0, 0.015)),
    )


def _develop(chest: Chest, technique: _Technique, seed: int) -> npt.NDArray[np.uint8]:
    """Let light through the layers, add what else is on a film, and measure it in 8 bits."""
    rng = stream(seed, Part.EXPOSURE)
    gain = technique.gain * np.exp(rng.normal(0, 0.07))
    through = np.exp(-gain * (chest.attenuation() + _metal(chest.plane, technique, seed)))
    white = (1 - through) * (1 - technique.haze) + technique.haze * smooth(chest.trunk, 0.3)
    grain = stream(seed, Part.GRAIN).standard_normal(white.shape)
    white = white + technique.grain * grain * np.sqrt(white)
    grey = np.clip(white * rng.uniform(0.92, 1.0), 0, 1)
    pixels: npt.NDArray[np.uint8] = np.rint(255 * grey).astype(np.uint8)
    return pixels


def _metal(plane: Plane, technique: _Technique, seed: int) -> Field:
    """Attenuation of the letter that marks the patient's left, and of a monitor's leads."""
    rng = stream(seed, Part.FURNITURE)
    left, top = rng.uniform(0.36, 0.42), rng.uniform(0.03, 0.10)
    stem = np.maximum(np.abs(plane.x - left) - 0.004, np.abs(plane.y - top) - 0.020)
    foot = np.maximum(np.abs(plane.x - left - 0.008) - 0.012, np.abs(plane.y - top - 0.018) - 0.003)
    total = 1.2 * smooth(-np.minimum(stem, foot), 0.005)
    for _ in range(rng.integers(0, technique.leads, endpoint=True)):
        t = np.linspace(0, 1, 400)
        start, sag = rng.uniform((-0.3, 0.2), (0.3, 0.5)), rng.uniform(-0.15, 0.15)
        end = (rng.choice((-0.5, 0.5)), rng.uniform(0.0, 0.9))
        x = start[0] + (end[0] - start[0]) * t + sag * t * (1 - t)
        y = start[1] + (end[1] - start[1]) * t + 0.6 * abs(sag) * t * (1 - t)
        total += 0.35 * np.clip(threads(plane, x, y, np.ones_like(t), 0.0022), 0, 1)
        total += 0.30 * smooth(0.014 - np.hypot(plane.x - start[0], plane.y - start[1]), 0.006)
    return total
