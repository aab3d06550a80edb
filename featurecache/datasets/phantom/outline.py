"""The outlines of a chest on a film: rib cage, diaphragm, lungs, heart and trunk.

Numbers without a name, here and in the skeleton and the findings, are places, sizes and depths as
they look right on a film, in the units of ``Plane`` and ``Chest``.
"""

from dataclasses import dataclass

import numpy as np

from featurecache.datasets.phantom.anatomy import Anatomy
from featurecache.datasets.phantom.shapes import Field, Plane, ball, radius, smooth

EDGE = 0.007
"""Width over which an outline goes from nothing to all: a pixel and a half at 224 pixels."""

RIGHT, LEFT = -1, 1
"""The patient's sides, as the sign of ``x``: the patient's right is on the left of the film."""


CAGE_HEIGHT = 0.58
"""From the tops of the lungs down to where the rib cage is widest."""


def bullet(down: Field | float) -> Field:
    """Width of a rib cage, 0 to 1, by how far down it: 0 at its top, 1 where it is widest."""
    return np.sqrt(down * (1.55 - 0.55 * down))


@dataclass(frozen=True, eq=False)
class Outline:
    """Where everything lies; each field (H, W).

    Attributes:
        anatomy: The measures.
        plane: The film's pixels.
        beside: Distance from the midline.
        cage: Half the width of the rib cage at that height: a bullet that points up.
    """

    anatomy: Anatomy
    plane: Plane
    beside: Field
    cage: Field

    @classmethod
    def of(cls, anatomy: Anatomy, plane: Plane) -> "Outline":
        """Lay an anatomy out on a film."""
        down = np.clip((plane.y - anatomy.apex) / CAGE_HEIGHT, 1e-3, 1)
        cage = anatomy.half_width * bullet(down)
        return cls(anatomy=anatomy, plane=plane, beside=np.abs(plane.x), cage=cage)

    @property
    def waist(self) -> float:
        """Half the width of the trunk, chest wall included."""
        return self.anatomy.half_width + self.anatomy.wall

    def diaphragm(self, side: int) -> Field:
        """Height of one half of the diaphragm at each ``x``: a dome, deepest at the chest wall."""
        anatomy = self.anatomy
        top = anatomy.dome + (anatomy.dome_step if side == LEFT else 0.0)
        crown = 0.46 * anatomy.half_width
        away = (self.plane.x * side - crown) / (anatomy.half_width - crown)
        return top + anatomy.dome_depth * away * away * np.where(away > 0, np.abs(away), 0.6)

    def lung(self, side: int) -> Field:
        """1 where a side has lung, its parts behind the heart included."""
        x = self.plane.x * side
        return (
            smooth(np.minimum(x - 0.012, self.cage - x), EDGE)
            * smooth(self.diaphragm(side) - self.plane.y, EDGE)
            * smooth(self.plane.y - self.anatomy.apex, 0.02)
        )

    def hilum(self, side: int) -> tuple[float, float]:
        """Where the vessels enter a lung; the left one lies higher."""
        drop = 0.255 if side == RIGHT else 0.235
        return side * (self.anatomy.vessels_width + 0.036), self.anatomy.apex + drop

    def mediastinum(self) -> Field:
        """Share of the lungs' air that heart and great vessels push aside, 0 to 1.

        The heart's width is its share of the rib cage's; a third of it lies right of the midline.
        """
        anatomy, plane = self.anatomy, self.plane
        width = 2 * anatomy.half_width * anatomy.heart
        middle, level = anatomy.turn, anatomy.dome - 0.30 * width + 0.035
        great = anatomy.vessels_width
        # Left ventricle, right atrium, aortic arch, pulmonary trunk.
        ventricle = radius(
            plane, (0.15 * width + middle, level), (0.56 * width, 0.37 * width), anatomy.heart_tilt
        )
        atrium = radius(plane, (-0.12 * width + middle, level), (0.23 * width, 0.33 * width))
        arch = radius(
            plane, (0.55 * great + middle, anatomy.apex + 0.165), (anatomy.knob, 1.1 * anatomy.knob)
        )
        pulmonary = radius(plane, (0.6 * great + middle, anatomy.apex + 0.26), (0.052, 0.13), -0.3)
        column = great * (0.95 + np.clip(plane.y - 0.40, 0, 0.2))
        left = (
            (1 - 0.95 * np.sqrt(ball(ventricle)))
            * (1 - 0.90 * np.sqrt(ball(atrium)))
            * (1 - 0.85 * ball(arch))
            * (1 - 0.75 * ball(pulmonary))
            * (1 - 0.95 * smooth(column - np.abs(plane.x - middle), 0.022))
        )
        return 1 - left

    def trunk(self) -> Field:
        """Soft tissue of neck, shoulders, trunk, breasts and arms, as if there were no lungs."""
        anatomy, x, y = self.anatomy, self.beside, self.plane.y
        neck = 0.085 + 0.025 * anatomy.depth
        shoulder = smooth(y - 0.075, 0.17)
        outline = neck + (self.waist + 0.06 - neck) * shoulder - 0.06 * smooth(y - 0.32, 0.3)
        thick = 0.62 + 0.28 * smooth(y - 0.10, 0.3) + 0.18 * smooth(y - anatomy.dome, 0.15)
        # An arm hangs from a round shoulder.
        arm_axis = self.waist + 0.085 + 0.05 * y
        arm = 0.55 * ball(np.hypot(x - arm_axis, np.minimum(y - 0.19, 0)) / 0.08)
        trunk = anatomy.depth * (thick * ball(x / outline) + arm)
        if anatomy.breast:
            centre = (0.54 * anatomy.half_width, anatomy.dome - 0.06)
            fold = np.hypot((x - centre[0]) / 0.165, (y - centre[1]) / 0.135)
            trunk = trunk + anatomy.breast * ball(fold)
        return trunk

    def gas(self) -> Field:
        """Gas in windpipe, main bronchi and stomach, as depth of soft tissue that is missing."""
        anatomy, y = self.anatomy, self.plane.y
        fork = anatomy.apex + 0.21
        x = np.abs(self.plane.x - 0.5 * anatomy.turn)
        pipe = ball(x / 0.017) * smooth(fork - y, 0.03)
        legs = ball((x - 0.6 * (y - fork) - 0.004) / 0.013)
        legs = legs * smooth(y - fork + 0.01, 0.02) * smooth(fork + 0.08 - y, 0.05)
        bubble = (0.5 * anatomy.half_width, anatomy.dome + anatomy.dome_step + 0.07)
        stomach = ball(radius(self.plane, bubble, (0.07, 0.035 + 0.01 * anatomy.gas), -0.1))
        return 0.20 * pipe + 0.12 * legs + 0.30 * anatomy.gas * stomach
