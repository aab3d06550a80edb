"""Which part of an image the network of an encoder sees."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

Area = tuple[float, float, float, float]
"""Left, upper, right and lower edge, in pixels of an image from its upper left corner."""


@dataclass(frozen=True)
class Geometry:
    """How an image becomes the pixels that a network sees: padded, resized and cropped.

    Attributes:
        size: Size after resizing, in pixels: ``shortest_edge``, or ``height`` and ``width``.
        crop: (height, width) of the center crop; None for no crop.
        pad: Whether the image is first padded with black to the proportions of ``size``.
        min_side: Smallest width and height of a padded image.
        round_margins: Whether half of an odd margin of the crop is rounded, as torchvision does,
            and not cut off.
    """

    size: Mapping[str, int]
    crop: tuple[int, int] | None = None
    pad: bool = False
    min_side: int = 0
    round_margins: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Geometry":
        """Return the geometry that ``to_json`` described."""
        crop = value["crop"]
        return cls(**{**value, "crop": None if crop is None else (crop[0], crop[1])})

    def to_json(self) -> dict[str, Any]:
        """Return the geometry as a JSON value."""
        return {**asdict(self), "crop": None if self.crop is None else list(self.crop)}

    def padded(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the smallest canvas that an image is centered on."""
        if not self.pad:
            return width, height
        target = self.size["width"], self.size["height"]
        sides = max(width, self.min_side), max(height, self.min_side)
        factor = max(side / of_target for side, of_target in zip(sides, target, strict=True))
        return round(target[0] * factor), round(target[1] * factor)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that an image, or its canvas, is resized to."""
        edge = self.size.get("shortest_edge")
        if edge is None:
            return self.size["width"], self.size["height"]
        longest = int(edge * max(width, height) / min(width, height))
        return (edge, longest) if width <= height else (longest, edge)

    def corner(self, width: int, height: int) -> tuple[int, int]:
        """Return left and upper edge of the crop in a resized image."""
        crop_height, crop_width = self.crop or (height, width)
        margins = width - crop_width, height - crop_height
        left, top = (round(one / 2) if self.round_margins else one // 2 for one in margins)
        return left, top

    def area(self, width: int, height: int) -> Area:
        """Return the part of an image that the network sees; padding lies outside the image.

        Args:
            width: Width of the image in pixels.
            height: Height of the image in pixels.
        """
        canvas_width, canvas_height = self.padded(width, height)
        resized_width, resized_height = self.resized(canvas_width, canvas_height)
        crop_height, crop_width = self.crop or (resized_height, resized_width)
        left, top = self.corner(resized_width, resized_height)
        across, down = canvas_width / resized_width, canvas_height / resized_height
        before, above = (canvas_width - width) // 2, (canvas_height - height) // 2
        return (
            left * across - before,
            top * down - above,
            (left + crop_width) * across - before,
            (top + crop_height) * down - above,
        )
