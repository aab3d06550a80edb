"""The plane that a film is drawn on, and the soft shapes that are drawn."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Field = npt.NDArray[np.float64]
"""(H, W) float64: one number per pixel."""

CM = 1 / 38
"""A centimetre in units of the plane: the film is some 38 cm high."""


@dataclass(frozen=True, eq=False)
class Plane:
    """The pixels of a film in the patient's own coordinates.

    The unit is the height of an unposed film. ``x`` runs from 0 in the midline to the right of
    the image, which is the patient's left; ``y`` runs from 0 at the top to 1 at the bottom.

    Attributes:
        x: (H, W) of each pixel.
        y: (H, W) of each pixel.
        pixel: Side of a pixel.
        rotation: Radians, clockwise on the film.
        shift: Of the patient on the film, to the right and down.
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
        """A square film of ``size`` pixels, the patient turned, enlarged and shifted on it."""
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
        """Row and column, in fractions of pixels, of points in the patient's coordinates."""
        size = self.x.shape[0]
        scale = 1 / (size * self.pixel)
        cos, sin = np.cos(self.rotation) * scale, np.sin(self.rotation) * scale
        column = x * cos - (y - 0.5) * sin + self.shift[0]
        row = x * sin + (y - 0.5) * cos + self.shift[1]
        return (row + 0.5) * size - 0.5, (column + 0.5) * size - 0.5


def smooth(distance: Field, width: float) -> Field:
    """0 where ``distance`` is well below 0, 1 where it is well above, ``width`` between."""
    # In place: a film takes some forty of these, and fresh memory costs more than the arithmetic.
    t = distance * (1 / width)
    t += 0.5
    np.clip(t, 0, 1, out=t)
    step = 3 - 2 * t
    step *= t
    step *= t
    return step


def bump(distance: Field, width: float) -> Field:
    """1 where ``distance`` is 0, falling like a bell of standard deviation ``width``."""
    return np.exp(-0.5 * (distance / width) ** 2)


def radius(
    plane: Plane, centre: tuple[float, float], axes: tuple[float, float], tilt: float = 0.0
) -> Field:
    """Distance from an ellipse's centre: 0 there, 1 on its edge; ``tilt`` in radians, clockwise."""
    dx, dy = plane.x - centre[0], plane.y - centre[1]
    cos, sin = np.cos(tilt), np.sin(tilt)
    along: Field = dx * (cos / axes[0]) + dy * (sin / axes[0])
    across = dy * (cos / axes[1]) - dx * (sin / axes[1])
    along *= along
    across *= across
    along += across
    np.sqrt(along, out=along)
    return along


def ball(radius: Field) -> Field:
    """How deep a ray passes through a ball: 1 through the centre, 0 at the edge and outside."""
    depth: Field = 1 - radius * radius
    np.maximum(depth, 0, out=depth)
    np.sqrt(depth, out=depth)
    return depth


def clouds(plane: Plane, rng: np.random.Generator, cells: int) -> Field:
    """Smooth noise of mean 0 and standard deviation about 1, ``cells`` lumps across the film.

    Two octaves, the finer one weaker. The lattice belongs to the film, not to its pixels: a
    larger film shows the same clouds.
    """
    size = plane.x.shape[0]
    total = np.zeros((size, size))
    for octave, weight in ((cells, 1.3), (2 * cells, 0.8)):
        lattice = rng.standard_normal((octave + 1, octave + 1))
        place = (np.arange(size) + 0.5) / size * octave
        low = place.astype(int)
        part = place - low
        part = part * part * (3 - 2 * part)
        rows = lattice[low] * (1 - part)[:, None] + lattice[low + 1] * part[:, None]
        total += weight * (rows[:, low] * (1 - part) + rows[:, low + 1] * part)
    return total


def threads(plane: Plane, x: Field, y: Field, weight: Field, width: float) -> Field:
    """Thin lines, given as dense points, blurred to a bell of standard deviation ``width``.

    A line of weight 1 whose points lie ``width`` apart is about 1 at its ridge.

    Args:
        plane: The film.
        x: (P,) of the points.
        y: (P,) of the points.
        weight: (P,) of the points.
        width: In units of the plane.
    """
    size = plane.x.shape[0]
    row, column = plane.pixels(x, y)
    inside = (row >= 0) & (row < size - 1) & (column >= 0) & (column < size - 1)
    row, column, weight = row[inside], column[inside], weight[inside]
    top, left = row.astype(int), column.astype(int)
    below, right = row - top, column - left
    total = np.zeros(size * size)
    for step, share in (
        (0, (1 - below) * (1 - right)),
        (1, (1 - below) * right),
        (size, below * (1 - right)),
        (size + 1, below * right),
    ):
        total += np.bincount(top * size + left + step, weight * share, minlength=size * size)
    sigma = width / plane.pixel
    # Points one width apart along a line blur to 1 / (sqrt(2 pi) sigma) a pixel and point.
    ridge = np.sqrt(2 * np.pi) * sigma * sigma
    blurred: Field = gaussian_filter(total.reshape(size, size), sigma)
    blurred *= ridge
    return blurred
