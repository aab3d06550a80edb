"""Findings in the lungs themselves: air that fluid, cells or scars have replaced."""

import numpy as np

from featurecache.datasets.phantom.chest import Chest
from featurecache.datasets.phantom.outline import LEFT, RIGHT, bullet
from featurecache.datasets.phantom.shapes import (
    CM,
    ball,
    bump,
    clouds,
    radius,
    smooth,
    threads,
)


def consolidation(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """One dense patch with a cloudy edge, in which the bronchi stay open as dark branches."""
    side = rng.choice((RIGHT, LEFT))
    centre = _in_lung(chest, side, rng, low=0.3, high=0.85)
    size = 0.075 + 0.055 * severity
    reach = radius(chest.plane, centre, (size, 1.15 * size), rng.uniform(-0.5, 0.5))
    reach = reach + 0.16 * clouds(chest.plane, rng, 14)
    patch = smooth(1 - reach, 0.45) * chest.outline.lung(side)
    hx, hy = chest.outline.hilum(side)
    away = np.arctan2(centre[1] - hy, centre[0] - hx)
    steps = np.linspace(-1.3, 0.8, 60)
    open_air = np.zeros_like(patch)
    for turn in (-0.45, 0.0, 0.45):
        x = centre[0] + size * steps * np.cos(away + turn * (steps + 1))
        y = centre[1] + size * steps * np.sin(away + turn * (steps + 1))
        open_air += threads(chest.plane, x, y, np.ones_like(x), 0.0035)
    chest.fill((0.55 + 0.40 * severity) * patch * (1 - 0.55 * np.clip(open_air, 0, 1)))


def pneumonia(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """One lobe is opaque, as far as the fissure that bounds it."""
    side = rng.choice((RIGHT, LEFT))
    upper = rng.random() < 0.4
    plane, anatomy = chest.plane, chest.outline.anatomy
    fissure = anatomy.apex + rng.normal(0.30, 0.015) + 0.10 * (plane.x * side - 0.15)
    lobe = smooth((fissure - plane.y) * (1 if upper else -1), 0.012)
    # Away from the fissure it thins out.
    depth = np.abs(plane.y - fissure) / (0.14 + 0.16 * severity)
    cloud = 0.85 + 0.15 * clouds(plane, rng, 12)
    share = (0.40 + 0.45 * severity) * lobe * smooth(1 - depth, 1.1) * cloud
    chest.fill(share * chest.outline.lung(side))


def infiltration(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Faint patches here and there in both lungs."""
    patches = np.zeros_like(chest.air)
    for patch in range(5):
        centre = _in_lung(chest, (RIGHT, LEFT)[patch % 2], rng, low=0.25, high=0.9)
        size = rng.uniform(0.045, 0.075)
        patches = np.maximum(patches, np.exp(-(radius(chest.plane, centre, (size, size)) ** 2)))
    streaks = np.clip(0.75 + 0.45 * clouds(chest.plane, rng, 30), 0, None)
    chest.fill((0.22 + 0.33 * severity) * patches * streaks)


def edema(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Haze around both hila, like a bat's wings, with the outer lung left clear."""
    haze = np.zeros_like(chest.air)
    for side in (RIGHT, LEFT):
        hx, hy = chest.outline.hilum(side)
        wing = radius(chest.plane, (hx + 0.07 * side, hy + 0.06), (0.15, 0.22), -0.35 * side)
        haze = np.maximum(haze, smooth(1 - wing + 0.10 * clouds(chest.plane, rng, 10), 0.9))
    chest.fill((0.30 + 0.50 * severity) * haze)
    # Vessels swell, and their outlines are lost.
    chest.markings = chest.markings * (1 + 0.3 * severity)


def atelectasis(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Plates of collapsed lung above a raised diaphragm: flat, dense, straight bands."""
    side = rng.choice((RIGHT, LEFT))
    plane, outline = chest.plane, chest.outline
    dome = outline.diaphragm(side)
    for plate in range(1 + round(2 * severity)):
        middle = side * outline.anatomy.half_width * rng.uniform(0.45, 0.7)
        level = outline.anatomy.dome - rng.uniform(0.03, 0.06) - 0.055 * plate
        slope = rng.normal(0.12, 0.12) * side
        off = plane.y - level - slope * (plane.x - middle)
        length = smooth(rng.uniform(0.09, 0.14) - np.abs(plane.x - middle), 0.03)
        thick = (0.006 + 0.006 * severity) * rng.uniform(0.8, 1.2)
        chest.fill((0.55 + 0.35 * severity) * length * bump(off, thick) * outline.lung(side))
    # The lung that is left is smaller: the diaphragm has come up.
    rise = 0.02 + 0.05 * severity
    lost = smooth(plane.y - dome + rise, 0.012) * outline.lung(side)
    chest.fill(0.93 * lost)


def fibrosis(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """A net of fine lines, densest at the bases and along the outer wall."""
    plane, outline = chest.plane, chest.outline
    mesh = 260 + round(240 * severity)
    x = rng.uniform(-1, 1, mesh) * outline.anatomy.half_width
    y = outline.anatomy.dome + 0.09 - rng.gamma(1.6, 0.075 + 0.03 * severity, mesh)
    angle = rng.uniform(0, np.pi, mesh)
    steps = np.linspace(-1, 1, 16)
    reach = rng.uniform(0.012, 0.024, (mesh, 1))
    px = x[:, np.newaxis] + reach * np.cos(angle)[:, np.newaxis] * steps
    py = y[:, np.newaxis] + reach * np.sin(angle)[:, np.newaxis] * steps
    net = threads(plane, px.ravel(), py.ravel(), np.ones(px.size), 0.0022)
    chest.fill((0.22 + 0.24 * severity) * np.clip(net, 0, 1.6))
    # What is too fine to see one by one is a haze over the lower third.
    down = (plane.y - outline.anatomy.apex) / (outline.anatomy.dome - outline.anatomy.apex)
    chest.fill((0.10 + 0.12 * severity) * smooth(down - 2 / 3, 1 / 3))


def mass(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """One round shadow wider than 3 cm, lobed and sharply bounded."""
    side = rng.choice((RIGHT, LEFT))
    centre = _in_lung(chest, side, rng, low=0.2, high=0.8)
    size = (1.9 + 2.1 * severity) * CM
    lobes = 0.05 * clouds(chest.plane, rng, 12)
    disc = radius(chest.plane, centre, (size, size * rng.uniform(0.85, 1.15))) + lobes
    chest.fill((0.75 + 0.2 * severity) * np.sqrt(ball(disc)) * chest.outline.lung(side))


def nodule(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Round shadows narrower than 3 cm: one, or several when severe."""
    for number in range(1 + round(4 * severity)):
        side = rng.choice((RIGHT, LEFT)) * (-1) ** number
        centre = _in_lung(chest, side, rng, low=0.15, high=0.85)
        size = rng.uniform(0.7, 1.1 + 0.3 * severity) * CM
        disc = radius(chest.plane, centre, (size, size))
        chest.fill((0.65 + 0.3 * severity) * np.sqrt(ball(disc)) * chest.outline.lung(side))


def _in_lung(
    chest: Chest, side: int, rng: np.random.Generator, *, low: float, high: float
) -> tuple[float, float]:
    """A place well inside a lung, between two shares of its height."""
    anatomy = chest.outline.anatomy
    down = rng.uniform(low, high)
    width = anatomy.half_width * float(bullet(down))
    inner = anatomy.vessels_width + 0.04 + 0.07 * (side == LEFT) * (down > 0.6)
    x = inner + rng.uniform(0.15, 0.75) * (width - inner)
    return float(side * x), float(anatomy.apex + down * (anatomy.dome - anatomy.apex))
