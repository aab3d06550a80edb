"""Pleural findings: fluid, air or scars between lung and chest wall."""

import numpy as np

from featurecache.datasets.phantom.chest import Chest
from featurecache.datasets.phantom.outline import EDGE, LEFT, RIGHT
from featurecache.datasets.phantom.shapes import gaussian, smoothstep, value_noise


def effusion(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Add fluid at the base, with a meniscus that blunts the costophrenic angle."""
    first = rng.choice((RIGHT, LEFT))
    both = rng.random() < 0.35
    for side, amount in ((first, 1.0), (-first, 0.6 * both)):
        if not amount:
            continue
        anatomy, plane = chest.outline.anatomy, chest.plane
        level = anatomy.dome + 0.075 - 0.24 * severity * amount
        to_wall = np.clip(chest.outline.cage - plane.x * side, 0, None)
        surface = level - 0.10 * np.exp(-to_wall / 0.045)
        fluid = smoothstep(plane.y - surface, 0.03) * chest.outline.lung(side)
        chest.fill(0.97 * fluid)


def pleural_thickening(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Add a dense, wavy rim along the lateral wall and an apical cap."""
    first = rng.choice((RIGHT, LEFT))
    sides = (first, -first) if rng.random() < 0.5 else (first,)
    for side in sides:
        anatomy, plane = chest.outline.anatomy, chest.plane
        thick = (0.016 + 0.022 * severity) * (1 + 0.25 * value_noise(plane, rng, 9))
        to_wall = chest.outline.cage - plane.x * side
        rim = smoothstep(thick - to_wall, 0.012) * smoothstep(plane.y - anatomy.apex, 0.1)
        cap = smoothstep(anatomy.apex + 0.8 * thick + 0.02 - plane.y, 0.02)
        chest.fill(0.9 * np.maximum(rim, cap) * chest.outline.lung(side))


def pneumothorax(chest: Chest, severity: float, rng: np.random.Generator) -> None:
    """Add air outside a collapsed lung: dark, without vessels, beyond a fine white edge."""
    side = rng.choice((RIGHT, LEFT))
    anatomy, plane = chest.outline.anatomy, chest.plane
    down = np.clip((plane.y - anatomy.apex) / (anatomy.dome - anatomy.apex), 0, 1.2)
    # The gap is widest at the top, where air collects in an upright patient.
    gap = (0.035 + 0.15 * severity) * (1.15 - 0.75 * down)
    top = anatomy.apex + 0.03 + 0.13 * severity
    to_edge = np.minimum(chest.outline.cage - gap - plane.x * side, 1.2 * (plane.y - top))
    lung = chest.outline.lung(side)
    outside = smoothstep(-to_edge, EDGE) * lung
    chest.markings = chest.markings * (1 - outside)
    chest.filled = chest.filled * (1 - outside)
    chest.air = chest.air * (1 + 0.14 * outside)
    collapsed = (0.12 + 0.28 * severity) * smoothstep(to_edge, EDGE)
    edge = 0.45 * gaussian(to_edge, 0.0035)
    chest.fill((collapsed + edge) * lung)
