"""The layers of a chest: how much air, soft tissue and bone each ray crosses."""

from dataclasses import dataclass

import numpy as np

from featurecache.datasets.phantom.anatomy import Anatomy
from featurecache.datasets.phantom.outline import LEFT, RIGHT, Outline
from featurecache.datasets.phantom.shapes import Field, Plane, smooth
from featurecache.datasets.phantom.skeleton import skeleton
from featurecache.datasets.phantom.vessels import vessels

BONE = 0.62
"""Attenuation of bone of depth 1, where the trunk's depth of soft tissue is 1."""


@dataclass(eq=False, kw_only=True)
class Chest:
    """A chest in layers, each (H, W), for the findings to change.

    Attributes:
        outline: What it was laid out from.
        trunk: Depth of soft tissue if there were no air: 1 in the middle of an average trunk.
        air: Depth of air in the lungs.
        markings: Share of that air that vessels take, 0 to 1.
        filled: Share of that air that fluid, cells or scars have replaced, 0 to 1.
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
        """The film's pixels."""
        return self.outline.plane

    def fill(self, share: Field) -> None:
        """Replace a share of the air that is left, so that one opacity adds to another."""
        self.filled = 1 - (1 - self.filled) * (1 - np.clip(share, 0, 1))

    def attenuation(self) -> Field:
        """(H, W) of the whole: what the ray meets, added up."""
        air = self.air * (1 - self.filled) * (1 - self.markings) + self.gas
        # There is no more air in a body than body.
        soft = self.trunk - np.minimum(air, 0.97 * self.trunk)
        return soft + BONE * self.bone


def lay_out(anatomy: Anatomy, plane: Plane, *, seed: int) -> Chest:
    """Lay out a healthy chest; ``seed`` grows the patient's vessels."""
    outline = Outline.of(anatomy, plane)
    lungs = outline.lung(RIGHT) + outline.lung(LEFT)
    across = np.clip(outline.beside / outline.cage, 0, 1)
    # Rays cross less lung near the wall and near the top.
    round_back = np.sqrt(np.sqrt(1 - across**2)) * (0.82 + 0.18 * smooth(plane.y - 0.28, 0.3))
    return Chest(
        outline=outline,
        trunk=outline.trunk(),
        air=anatomy.air * round_back * lungs * (1 - outline.mediastinum()),
        markings=anatomy.markings * vessels(outline, seed=seed),
        filled=np.zeros_like(lungs),
        gas=outline.gas(),
        bone=anatomy.bone * skeleton(outline),
    )
