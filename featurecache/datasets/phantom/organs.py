"""Findings of whole organs: cardiomegaly, emphysema and hiatal hernia."""

from dataclasses import replace

import numpy as np

from featurecache.datasets.phantom.anatomy import Anatomy
from featurecache.datasets.phantom.chest import Chest
from featurecache.datasets.phantom.shapes import ellipse_radius, smoothstep, sphere_depth


def cardiomegaly(anatomy: Anatomy, severity: float) -> Anatomy:
    """Enlarge the heart to more than half of the width of the chest."""
    return replace(
        anatomy,
        heart=anatomy.heart + 0.07 + 0.13 * severity,
        heart_tilt=anatomy.heart_tilt - 0.15 * severity,
    )


def emphysema(anatomy: Anatomy, severity: float) -> Anatomy:
    """Overinflate the lungs: dark, with thin vessels, a low flat diaphragm and a narrow heart."""
    return replace(
        anatomy,
        air=anatomy.air + 0.05 + 0.08 * severity,
        markings=anatomy.markings * (0.85 - 0.35 * severity),
        dome=anatomy.dome + 0.03 + 0.06 * severity,
        dome_depth=anatomy.dome_depth * (0.7 - 0.5 * severity),
        heart=anatomy.heart * (0.92 - 0.14 * severity),
        half_width=anatomy.half_width * (1 + 0.06 * severity),
        heart_tilt=anatomy.heart_tilt + 0.2 * severity,
    )


def hernia(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Add part of the stomach behind the heart: a round opacity with an air-fluid level."""
    anatomy, plane = chest.outline.anatomy, chest.plane
    size = 0.085 + 0.055 * severity
    center = (rng.uniform(-0.03, 0.07), anatomy.dome - 0.55 * size - rng.uniform(0.0, 0.03))
    disc = ellipse_radius(plane, center, (1.2 * size, size))
    chest.fill(0.9 * np.sqrt(sphere_depth(disc)))
    chest.trunk = chest.trunk + 0.22 * sphere_depth(disc)
    # Fluid fills at most the lower half; the wall around the gas remains.
    level = center[1] + rng.uniform(0.0, 0.4) * size
    inside = ellipse_radius(plane, center, (1.05 * size, 0.85 * size))
    gas = (0.60 + 0.15 * severity) * sphere_depth(inside) * smoothstep(level - plane.y, 0.008)
    chest.gas = chest.gas + gas
