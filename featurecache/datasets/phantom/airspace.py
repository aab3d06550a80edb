"""Findings in the lungs: air replaced by fluid, cells or scars."""

import numpy as np

from featurecache.datasets.phantom.chest import Chest
from featurecache.datasets.phantom.outline import LEFT, RIGHT, cage_profile
from featurecache.datasets.phantom.shapes import (
    CM,
    draw_lines,
    ellipse_radius,
    gaussian,
    smoothstep,
    sphere_depth,
    value_noise,
)


def consolidation(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Add a dense patch with ill-defined edges and air bronchograms."""
    side = rng.choice((RIGHT, LEFT))
    center = _in_lung(chest, side, rng, low=0.3, high=0.85)
    size = 0.075 + 0.055 * severity
    reach = ellipse_radius(chest.plane, center, (size, 1.15 * size), rng.uniform(-0.5, 0.5))
    reach = reach + 0.16 * value_noise(chest.plane, rng, 14)
    patch = smoothstep(1 - reach, 0.45) * chest.outline.lung(side)
    hx, hy = chest.outline.hilum(side)
    away = np.arctan2(center[1] - hy, center[0] - hx)
    steps = np.linspace(-1.3, 0.8, 60)
    open_air = np.zeros_like(patch)
    for turn in (-0.45, 0.0, 0.45):
        x = center[0] + size * steps * np.cos(away + turn * (steps + 1))
        y = center[1] + size * steps * np.sin(away + turn * (steps + 1))
        open_air += draw_lines(chest.plane, x, y, np.ones_like(x), 0.0035)
    chest.fill((0.55 + 0.40 * severity) * patch * (1 - 0.55 * np.clip(open_air, 0, 1)))


def pneumonia(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Make one lobe opaque, up to its fissure."""
    side = rng.choice((RIGHT, LEFT))
    upper = rng.random() < 0.4
    plane, anatomy = chest.plane, chest.outline.anatomy
    fissure = anatomy.apex + rng.normal(0.30, 0.015) + 0.10 * (plane.x * side - 0.15)
    lobe = smoothstep((fissure - plane.y) * (1 if upper else -1), 0.012)
    # The opacity fades away from the fissure.
    depth = np.abs(plane.y - fissure) / (0.14 + 0.16 * severity)
    cloud = 0.85 + 0.15 * value_noise(plane, rng, 12)
    opacity = (0.40 + 0.45 * severity) * lobe * smoothstep(1 - depth, 1.1) * cloud
    chest.fill(opacity * chest.outline.lung(side))


def infiltration(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Add faint patches in both lungs."""
    patches = np.zeros_like(chest.air)
    for patch in range(5):
        center = _in_lung(chest, (RIGHT, LEFT)[patch % 2], rng, low=0.25, high=0.9)
        size = rng.uniform(0.045, 0.075)
        patches = np.maximum(
            patches, np.exp(-(ellipse_radius(chest.plane, center, (size, size)) ** 2))
        )
    streaks = np.clip(0.75 + 0.45 * value_noise(chest.plane, rng, 30), 0, None)
    chest.fill((0.22 + 0.33 * severity) * patches * streaks)


def edema(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Add a bat-wing haze around both hila that spares the outer lung."""
    haze = np.zeros_like(chest.air)
    for side in (RIGHT, LEFT):
        hx, hy = chest.outline.hilum(side)
        wing = ellipse_radius(
            chest.plane, (hx + 0.07 * side, hy + 0.06), (0.15, 0.22), -0.35 * side
        )
        haze = np.maximum(
            haze, smoothstep(1 - wing + 0.10 * value_noise(chest.plane, rng, 10), 0.9)
        )
    chest.fill((0.30 + 0.50 * severity) * haze)
    # Vessels are congested.
    chest.markings = chest.markings * (1 + 0.3 * severity)


def atelectasis(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Add plate atelectasis: flat, dense, straight bands above a raised diaphragm."""
    side = rng.choice((RIGHT, LEFT))
    plane, outline = chest.plane, chest.outline
    dome = outline.diaphragm(side)
    for plate in range(1 + round(2 * severity)):
        middle = side * outline.anatomy.half_width * rng.uniform(0.45, 0.7)
        level = outline.anatomy.dome - rng.uniform(0.03, 0.06) - 0.055 * plate
        slope = rng.normal(0.12, 0.12) * side
        off = plane.y - level - slope * (plane.x - middle)
        length = smoothstep(rng.uniform(0.09, 0.14) - np.abs(plane.x - middle), 0.03)
        thick = (0.006 + 0.006 * severity) * rng.uniform(0.8, 1.2)
        chest.fill((0.55 + 0.35 * severity) * length * gaussian(off, thick) * outline.lung(side))
    # Volume loss: the diaphragm is raised.
    rise = 0.02 + 0.05 * severity
    lost = smoothstep(plane.y - dome + rise, 0.012) * outline.lung(side)
    chest.fill(0.93 * lost)


def fibrosis(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Add a reticular pattern, densest at the bases and along the outer wall."""
    plane, outline = chest.plane, chest.outline
    mesh = 260 + round(240 * severity)
    x = rng.uniform(-1, 1, mesh) * outline.anatomy.half_width
    y = outline.anatomy.dome + 0.09 - rng.gamma(1.6, 0.075 + 0.03 * severity, mesh)
    angle = rng.uniform(0, np.pi, mesh)
    steps = np.linspace(-1, 1, 16)
    reach = rng.uniform(0.012, 0.024, (mesh, 1))
    px = x[:, np.newaxis] + reach * np.cos(angle)[:, np.newaxis] * steps
    py = y[:, np.newaxis] + reach * np.sin(angle)[:, np.newaxis] * steps
    net = draw_lines(plane, px.ravel(), py.ravel(), np.ones(px.size), 0.0022)
    chest.fill((0.22 + 0.24 * severity) * np.clip(net, 0, 1.6))
    # Lines too fine to resolve appear as haze over the lower third.
    down = (plane.y - outline.anatomy.apex) / (outline.anatomy.dome - outline.anatomy.apex)
    chest.fill((0.10 + 0.12 * severity) * smoothstep(down - 2 / 3, 1 / 3))


def mass(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Add one lobulated, sharply bounded round opacity wider than 3 cm."""
    side = rng.choice((RIGHT, LEFT))
    center = _in_lung(chest, side, rng, low=0.2, high=0.8)
    size = (1.9 + 2.1 * severity) * CM
    lobes = 0.05 * value_noise(chest.plane, rng, 12)
    disc = ellipse_radius(chest.plane, center, (size, size * rng.uniform(0.85, 1.15))) + lobes
    chest.fill((0.75 + 0.2 * severity) * np.sqrt(sphere_depth(disc)) * chest.outline.lung(side))


def nodule(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Add round opacities narrower than 3 cm: one, or several if severe."""
    for number in range(1 + round(4 * severity)):
        side = rng.choice((RIGHT, LEFT)) * (-1) ** number
        center = _in_lung(chest, side, rng, low=0.15, high=0.85)
        size = rng.uniform(0.7, 1.1 + 0.3 * severity) * CM
        disc = ellipse_radius(chest.plane, center, (size, size))
        chest.fill((0.65 + 0.3 * severity) * np.sqrt(sphere_depth(disc)) * chest.outline.lung(side))


def _in_lung(
    chest: Chest, side: int, rng: np.random.Generator, *, low: float, high: float
) -> tuple[float, float]:
    """Return a random position well inside a lung, between two fractions of its height."""
    anatomy = chest.outline.anatomy
    down = rng.uniform(low, high)
    width = anatomy.half_width * float(cage_profile(down))
    inner = anatomy.vessels_width + 0.04 + 0.07 * (side == LEFT) * (down > 0.6)
    x = inner + rng.uniform(0.15, 0.75) * (width - inner)
    return float(side * x), float(anatomy.apex + down * (anatomy.dome - anatomy.apex))
