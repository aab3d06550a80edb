"""Pulmonary vessels: trees that start at the hila, branch and thin out."""

import numpy as np

from featurecache.datasets.phantom.outline import LEFT, RIGHT, Outline
from featurecache.datasets.phantom.randomness import Stream, random_stream
from featurecache.datasets.phantom.shapes import Field, draw_lines, ellipse_radius, sphere_depth

STEMS = 9
"""Number of vessels that leave each hilum, from steeply upwards to steeply downwards."""

GENERATIONS = ((0.10, 0.0046, 0.36), (0.09, 0.0032, 0.30), (0.09, 0.0024, 0.24))
"""Length, width (standard deviation) and depth of the vessels of each generation."""


def vessels(outline: Outline, *, seed: int) -> Field:
    """Return the (H, W) fraction of the lungs' air that vessels replace, 0 to 1.

    Args:
        outline: Outline of the chest.
        seed: Seed of the vessel trees.
    """
    rng = random_stream(seed, Stream.VESSELS)
    hila = np.array([outline.hilum(side) for side in (RIGHT, LEFT)])
    side = np.repeat([RIGHT, LEFT], STEMS)
    angle = np.tile(np.linspace(-1.25, 1.45, STEMS), 2) + rng.normal(0, 0.1, 2 * STEMS)
    x = np.repeat(hila[:, 0], STEMS)
    y = np.repeat(hila[:, 1], STEMS) + 0.05 * np.sin(angle)
    total = sum(
        0.34
        * sphere_depth(ellipse_radius(outline.plane, (hx, hy), (0.034, 0.066), 0.25 * np.sign(hx)))
        ** 2
        for hx, hy in hila
    )
    for reach, width, depth in GENERATIONS:
        steps = np.linspace(0, 1, int(reach / width))
        length = reach * rng.uniform(0.8, 1.25, (len(x), 1))
        heading = angle[:, np.newaxis] + rng.normal(0, 0.35, (len(x), 1)) * steps
        px = x[:, np.newaxis] + side[:, np.newaxis] * length * steps * np.cos(heading)
        py = y[:, np.newaxis] + length * steps * np.sin(heading)
        thinning = np.broadcast_to(depth * (1 - 0.35 * steps), px.shape)
        total += draw_lines(outline.plane, px.ravel(), py.ravel(), thinning.ravel(), width)
        # Every vessel branches at its end.
        fork = rng.uniform(0.25, 0.5, len(x))
        angle = np.stack((heading[:, -1] - fork, heading[:, -1] + fork), axis=1).ravel()
        x, y, side = (np.repeat(ends, 2) for ends in (px[:, -1], py[:, -1], side))
    return np.clip(total, 0, 0.85)
