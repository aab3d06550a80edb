"""Image plane in patient coordinates, and soft-edged shapes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Field = NDArray[np.float64]
"""(H, W) float64: one number per pixel."""

CM = 1 / 38
"""One centimeter in units of the plane: the image is about 38 cm high."""


@dataclass(frozen=True, eq=False)
class Plane:
    """Pixel positions in patient coordinates.

    The unit is the height of an image without pose changes. ``x`` is 0 in the midline and grows to
    the right of the image, which is the patient's left; ``y`` is 0 at the top and 1 at the bottom.

    Attributes:
        x: (H, W) x of each pixel.
        y: (H, W) y of each pixel.
        pixel: Side of a pixel.
        rotation: Rotation in the image in radians, clockwise.
        shift: Shift of the patient in the image, to the right and down.
    """

    x: Field
    y: Field
    pixel: float
    rotation: float
    shift: tuple[float, float]

    @classmethod
    def posed(
        cls,
        size: int,
        *,
        rotation: float = 0.0,
        scale: float = 1.0,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> "Plane":
        """Return the plane of a square image with the patient rotated, scaled and shifted.

        Args:
            size: Height and width in pixels.
            rotation: In radians, clockwise.
            scale: Magnification.
            shift: To the right and down.
        """
        line = (np.arange(size) + 0.5) / size - 0.5
        across, down = line[np.newaxis, :] - shift[0], line[:, np.newaxis] - shift[1]
        cos, sin = np.cos(rotation) / scale, np.sin(rotation) / scale
        return cls(
            x=across * cos + down * sin,
            y=down * cos - across * sin + 0.5,
            pixel=1 / (size * scale),
            rotation=rotation,
            shift=shift,
        )

    def pixels(self, x: Field, y: Field) -> tuple[Field, Field]:
        """Return the (fractional) rows and columns of points in patient coordinates."""
        size = self.x.shape[0]
        scale = 1 / (size * self.pixel)
        cos, sin = np.cos(self.rotation) * scale, np.sin(self.rotation) * scale
        column = x * cos - (y - 0.5) * sin + self.shift[0]
        row = x * sin + (y - 0.5) * cos + self.shift[1]
        return (row + 0.5) * size - 0.5, (column + 0.5) * size - 0.5


def smoothstep(distance: Field, width: float) -> Field:
    """Smooth step from 0 to 1, centered where ``distance`` is 0, over ``width``."""
    # In place, because allocation would cost more than the arithmetic: an image needs about 40.
    t = distance * (1 / width)
    t += 0.5
    np.clip(t, 0, 1, out=t)
    step = 3 - 2 * t
    step *= t
    step *= t
    return step


def gaussian(distance: Field, width: float) -> Field:
    """Gaussian of ``distance`` with standard deviation ``width`` and maximum 1."""
    return np.exp(-0.5 * (distance / width) ** 2)


def ellipse_radius(
    plane: Plane, center: tuple[float, float], axes: tuple[float, float], tilt: float = 0.0
) -> Field:
    """Normalized distance from the center of an ellipse: 1 on its edge; ``tilt`` in radians."""
    dx, dy = plane.x - center[0], plane.y - center[1]
    cos, sin = np.cos(tilt), np.sin(tilt)
    along: Field = dx * (cos / axes[0]) + dy * (sin / axes[0])
    across = dy * (cos / axes[1]) - dx * (sin / axes[1])
    along *= along
    across *= across
    along += across
    np.sqrt(along, out=along)
    return along


def sphere_depth(radius: Field) -> Field:
    """Depth of a sphere along a ray: 1 through the center, 0 at the edge and outside."""
    depth: Field = 1 - radius * radius
    np.maximum(depth, 0, out=depth)
    np.sqrt(depth, out=depth)
    return depth


def value_noise(plane: Plane, rng: np.random.Generator, cells: int) -> Field:
    """Smooth value noise of mean 0 and standard deviation about 1.

    It has two octaves, the finer one weaker, and does not depend on the resolution: a larger image
    shows the same pattern.

    Args:
        plane: The pixels.
        rng: Random number generator.
        cells: Number of lattice cells across the image.
    """
    size = plane.x.shape[0]
    total = np.zeros((size, size))
    for octave, weight in ((cells, 1.3), (2 * cells, 0.8)):
        lattice = rng.standard_normal((octave + 1, octave + 1))
        position = (np.arange(size) + 0.5) / size * octave
        low = position.astype(int)
        weights = position - low
        weights = weights * weights * (3 - 2 * weights)
        rows = lattice[low] * (1 - weights)[:, None] + lattice[low + 1] * weights[:, None]
        total += weight * (rows[:, low] * (1 - weights) + rows[:, low + 1] * weights)
    return total


def draw_lines(plane: Plane, x: Field, y: Field, weight: Field, width: float) -> Field:
    """Draw thin lines, given as dense points, with a Gaussian profile.

    A line of weight 1 whose points are ``width`` apart has a maximum of about 1.

    Args:
        plane: The pixels.
        x: (P,) x of the points.
        y: (P,) y of the points.
        weight: (P,) weight of the points.
        width: Standard deviation of the profile, in units of the plane.
    """
    size = plane.x.shape[0]
    row, column = plane.pixels(x, y)
    inside = (row >= 0) & (row < size - 1) & (column >= 0) & (column < size - 1)
    row, column, weight = row[inside], column[inside], weight[inside]
    top, left = row.astype(int), column.astype(int)
    below, right = row - top, column - left
    total = np.zeros(size * size)
    for step, coverage in (
        (0, (1 - below) * (1 - right)),
        (1, (1 - below) * right),
        (size, below * (1 - right)),
        (size + 1, below * right),
    ):
        total += np.bincount(top * size + left + step, weight * coverage, minlength=size * size)
    sigma = width / plane.pixel
    # Points one width apart along a line blur to 1 / (sqrt(2 pi) sigma) per pixel and point.
    ridge = np.sqrt(2 * np.pi) * sigma * sigma
    blurred: Field = gaussian_filter(total.reshape(size, size), sigma)
    blurred *= ridge
    return blurred
