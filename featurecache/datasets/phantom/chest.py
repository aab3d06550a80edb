"""Layers of a chest: how much air, soft tissue and bone each ray crosses."""

from dataclasses import dataclass

import numpy as np

from featurecache.datasets.phantom.anatomy import Anatomy
from featurecache.datasets.phantom.outline import LEFT, RIGHT, Outline
from featurecache.datasets.phantom.shapes import Field, Plane, smoothstep
from featurecache.datasets.phantom.skeleton import skeleton
from featurecache.datasets.phantom.vessels import vessels

BONE = 0.62
"""Attenuation of bone of depth 1, relative to soft tissue of depth 1."""


@dataclass(eq=False, kw_only=True)
class Chest:
    """A chest as layers, each (H, W), which findings can change.

    Attributes:
        outline: Outline that the layers were computed from.
        trunk: Depth of soft tissue if there were no air: 1 in the middle of an average trunk.
        air: Depth of air in the lungs.
        markings: Fraction of that air replaced by vessels, 0 to 1.
        filled: Fraction of that air replaced by fluid, cells or scars, 0 to 1.
        gas: Depth of gas outside the lungs.
        bone: Depth of bone.
    """

    outline: Outline
    trunk: Field
    air: Field
    markings: Field
    filled: Field
    gas: Field
    bone: Field

    @property
    def plane(self) -> Plane:
        """The pixels."""
        return self.outline.plane

    def fill(self, fraction: Field) -> None:
        """Replace a fraction of the remaining air, so that opacities add up.

        Args:
            fraction: (H, W), clipped to [0, 1].
        """
        self.filled = 1 - (1 - self.filled) * (1 - np.clip(fraction, 0, 1))

    def attenuation(self) -> Field:
        """Return the total (H, W) attenuation along each ray."""
        air = self.air * (1 - self.filled) * (1 - self.markings) + self.gas
        # Air cannot exceed the depth of the body.
        soft = self.trunk - np.minimum(air, 0.97 * self.trunk)
        return soft + BONE * self.bone


def build_chest(anatomy: Anatomy, plane: Plane, *, seed: int) -> Chest:
    """Compute the layers of a healthy chest.

    Args:
        anatomy: Measures of the chest.
        plane: The pixels.
        seed: Seed of the vessels.
    """
    outline = Outline.of(anatomy, plane)
    lungs = outline.lung(RIGHT) + outline.lung(LEFT)
    across = np.clip(outline.beside / outline.cage, 0, 1)
    # Rays cross less lung near the wall and the apex.
    thickness = np.sqrt(np.sqrt(1 - across**2)) * (0.82 + 0.18 * smoothstep(plane.y - 0.28, 0.3))
    return Chest(
        outline=outline,
        trunk=outline.trunk(),
        air=anatomy.air * thickness * lungs * (1 - outline.mediastinum()),
        markings=anatomy.markings * vessels(outline, seed=seed),
        filled=np.zeros_like(lungs),
        gas=outline.gas(),
        bone=anatomy.bone * skeleton(outline),
    )
