"""The chest from the side: as simple as a second view can be that shows what the first hides."""

import numpy as np

from featurecache.datasets.phantom.randomness import Stream, random_stream
from featurecache.datasets.phantom.shapes import (
    Field,
    Plane,
    ellipse_radius,
    gaussian,
    smoothstep,
    sphere_depth,
    value_noise,
)

LATERAL_FINDING = "Effusion"
"""The only finding that lateral images show. In studies of two views, frontal images hide it: as
little fluid as there is collects behind the dome of the diaphragm."""

BONE = 0.5


def lateral_layers(plane: Plane, *, effusion: float, seed: int) -> tuple[Field, Field]:
    """Return the attenuation along each ray through a chest from the side, front to the left.

    Args:
        plane: The pixels.
        effusion: Severity of a pleural effusion, 0 to 1.
        seed: Seed of the vessels, without which images of two patients would pass for copies.

    Returns:
        Attenuation, and the part of it that there would be without air, both (H, W).
    """
    trunk = 1.25 * sphere_depth(ellipse_radius(plane, (0.02, 0.62), (0.36, 0.72)))
    diaphragm = 0.64 + 0.9 * np.clip(plane.x, 0, 0.2)  # deepest behind, at the sulcus
    lung = smoothstep(1 - ellipse_radius(plane, (0.02, 0.45), (0.24, 0.38)), 0.12)
    lung *= smoothstep(diaphragm - plane.y, 0.02)
    heart = sphere_depth(ellipse_radius(plane, (-0.10, 0.56), (0.12, 0.14)))
    surface = diaphragm - (0.05 + 0.15 * effusion) * (effusion > 0)
    fluid = smoothstep(plane.y - surface, 0.02) * smoothstep(plane.x - 0.05, 0.05)
    vessels = 0.12 * value_noise(plane, random_stream(seed, Stream.VESSELS), 20)
    air = 0.8 * lung * (1 - 0.8 * heart) * (1 - 0.97 * fluid) * (1 - vessels)
    spine = gaussian(plane.x - 0.22 - 0.05 * np.cos(4 * plane.y), 0.035)
    sternum = gaussian(plane.x + 0.24 - 0.1 * plane.y, 0.012) * smoothstep(0.6 - plane.y, 0.1)
    bone = BONE * (spine + 0.6 * sternum) * (trunk > 0)
    return trunk - np.minimum(air, 0.97 * trunk) + bone, trunk
