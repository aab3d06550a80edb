"""Outlines of a chest: rib cage, diaphragm, lungs, heart and trunk.

Unnamed constants, here and in the skeleton and the findings, are positions, sizes and depths that
were chosen by visual comparison with radiographs, in the units of ``Plane`` and ``Chest``.
"""

from dataclasses import dataclass

import numpy as np

from featurecache.datasets.phantom.anatomy import Anatomy
from featurecache.datasets.phantom.shapes import (
    Field,
    Plane,
    ellipse_radius,
    smoothstep,
    sphere_depth,
)

EDGE = 0.007
"""Width of a soft edge: 1.5 pixels at 224 pixels."""

RIGHT, LEFT = -1, 1
"""Sign of ``x`` on the patient's sides: the patient's right is on the left of the image."""


CAGE_HEIGHT = 0.58
"""Distance from the lung apices to the widest level of the rib cage."""


def cage_profile(down: Field | float) -> Field:
    """Return the relative width of the rib cage at a relative level: 0 at the apex, 1 at 1."""
    return np.sqrt(down * (1.55 - 0.55 * down))


@dataclass(frozen=True, eq=False)
class Outline:
    """Outlines of a chest; each field is (H, W).

    Attributes:
        anatomy: Measures of the chest.
        plane: The pixels.
        beside: Distance from the midline.
        cage: Half of the width of the rib cage at the level of the pixel.
    """

    anatomy: Anatomy
    plane: Plane
    beside: Field
    cage: Field

    @classmethod
    def of(cls, anatomy: Anatomy, plane: Plane) -> "Outline":
        """Compute the outlines of an anatomy."""
        down = np.clip((plane.y - anatomy.apex) / CAGE_HEIGHT, 1e-3, 1)
        cage = anatomy.half_width * cage_profile(down)
        return cls(anatomy=anatomy, plane=plane, beside=np.abs(plane.x), cage=cage)

    @property
    def waist(self) -> float:
        """Half of the width of the trunk, including the chest wall."""
        return self.anatomy.half_width + self.anatomy.wall

    def diaphragm(self, side: int) -> Field:
        """Return the y of a hemidiaphragm at each ``x``: a dome, lowest at the chest wall."""
        anatomy = self.anatomy
        top = anatomy.dome + (anatomy.dome_step if side == LEFT else 0.0)
        crown = 0.46 * anatomy.half_width
        away = (self.plane.x * side - crown) / (anatomy.half_width - crown)
        return top + anatomy.dome_depth * away * away * np.where(away > 0, np.abs(away), 0.6)

    def lung(self, side: int) -> Field:
        """Return the mask of a lung, including its parts behind the heart."""
        x = self.plane.x * side
        return (
            smoothstep(np.minimum(x - 0.012, self.cage - x), EDGE)
            * smoothstep(self.diaphragm(side) - self.plane.y, EDGE)
            * smoothstep(self.plane.y - self.anatomy.apex, 0.02)
        )

    def hilum(self, side: int) -> tuple[float, float]:
        """Return x and y of a hilum; the left one is higher."""
        drop = 0.255 if side == RIGHT else 0.235
        return side * (self.anatomy.vessels_width + 0.036), self.anatomy.apex + drop

    def heart(self) -> tuple[Field, Field]:
        """Return the normalized distances from the left ventricle and the right atrium.

        The width of the heart is a fraction of the rib cage; a third of it is right of the midline.
        """
        anatomy, plane = self.anatomy, self.plane
        width = 2 * anatomy.half_width * anatomy.heart
        middle, level = anatomy.turn, anatomy.dome - 0.30 * width + 0.035
        ventricle = ellipse_radius(
            plane, (0.15 * width + middle, level), (0.56 * width, 0.37 * width), anatomy.heart_tilt
        )
        atrium = ellipse_radius(
            plane, (-0.12 * width + middle, level), (0.23 * width, 0.33 * width)
        )
        return ventricle, atrium

    def mediastinum(self) -> Field:
        """Return the fraction of the lungs' air displaced by heart and great vessels, 0 to 1."""
        anatomy, plane = self.anatomy, self.plane
        middle, great = anatomy.turn, anatomy.vessels_width
        ventricle, atrium = self.heart()
        arch = ellipse_radius(
            plane, (0.55 * great + middle, anatomy.apex + 0.165), (anatomy.knob, 1.1 * anatomy.knob)
        )
        pulmonary = ellipse_radius(
            plane, (0.6 * great + middle, anatomy.apex + 0.26), (0.052, 0.13), -0.3
        )
        column = great * (0.95 + np.clip(plane.y - 0.40, 0, 0.2))
        left = (
            (1 - 0.95 * np.sqrt(sphere_depth(ventricle)))
            * (1 - 0.90 * np.sqrt(sphere_depth(atrium)))
            * (1 - 0.85 * sphere_depth(arch))
            * (1 - 0.75 * sphere_depth(pulmonary))
            * (1 - 0.95 * smoothstep(column - np.abs(plane.x - middle), 0.022))
        )
        return 1 - left

    def trunk(self) -> Field:
        """Return the depth of soft tissue of neck, trunk, breasts and arms, ignoring the lungs."""
        anatomy, x, y = self.anatomy, self.beside, self.plane.y
        neck = 0.085 + 0.025 * anatomy.depth
        shoulder = smoothstep(y - 0.075, 0.17)
        outline = neck + (self.waist + 0.06 - neck) * shoulder - 0.06 * smoothstep(y - 0.32, 0.3)
        thick = 0.62 + 0.28 * smoothstep(y - 0.10, 0.3) + 0.18 * smoothstep(y - anatomy.dome, 0.15)
        arm_axis = self.waist + 0.085 + 0.05 * y
        arm = 0.55 * sphere_depth(np.hypot(x - arm_axis, np.minimum(y - 0.19, 0)) / 0.08)
        trunk = anatomy.depth * (thick * sphere_depth(x / outline) + arm)
        if anatomy.breast:
            center = (0.54 * anatomy.half_width, anatomy.dome - 0.06)
            fold = np.hypot((x - center[0]) / 0.165, (y - center[1]) / 0.135)
            trunk = trunk + anatomy.breast * sphere_depth(fold)
        return trunk

    def gas(self) -> Field:
        """Return the depth of gas in trachea, main bronchi and stomach."""
        anatomy, y = self.anatomy, self.plane.y
        fork = anatomy.apex + 0.21
        x = np.abs(self.plane.x - 0.5 * anatomy.turn)
        trachea = sphere_depth(x / 0.017) * smoothstep(fork - y, 0.03)
        bronchi = sphere_depth((x - 0.6 * (y - fork) - 0.004) / 0.013)
        bronchi = bronchi * smoothstep(y - fork + 0.01, 0.02) * smoothstep(fork + 0.08 - y, 0.05)
        bubble = (0.5 * anatomy.half_width, anatomy.dome + anatomy.dome_step + 0.07)
        stomach = sphere_depth(
            ellipse_radius(self.plane, bubble, (0.07, 0.035 + 0.01 * anatomy.gas), -0.1)
        )
        return 0.20 * trachea + 0.12 * bronchi + 0.30 * anatomy.gas * stomach
