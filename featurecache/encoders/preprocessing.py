"""What the common image processors of transformers do to an image, bit for bit, without detours.

They convert grey to colour, resize three equal channels by way of numpy, and calculate in double
precision. Yet what becomes of a pixel depends on nothing but its value once the image is resized
and cropped, and a value is one of 256. So here Pillow resizes as many channels as there are, and
the rest is looked up in a table, which the processor itself fills.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.encoders.encoder import Array

if TYPE_CHECKING:
    from PIL.Image import Image

PROCESSORS = (
    "BitImageProcessor",
    "CLIPImageProcessor",
    "SiglipImageProcessor",
    "ViTImageProcessor",
)
_STEPS = {"do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize"}


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop, look up.

    Attributes:
        size: ``shortest_edge``, or ``height`` and ``width``, in pixels.
        resample: Pillow's number of the filter.
        crop: (height, width) of the middle that is kept; None for all.
        table: (3, 256) what each value of a channel becomes.
    """

    size: Mapping[str, int]
    resample: int
    crop: tuple[int, int] | None
    table: Array

    def __call__(self, image: "Image") -> Array:
        """One grey (L) or RGB image as float32 of shape (3, H, W)."""
        image = image.resize(self._resized(*image.size), self.resample)
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        values = np.asarray(image).reshape(image.height, image.width, -1)
        pixels = np.empty((3, image.height, image.width), dtype=np.float32)
        for channel, becomes in enumerate(self.table):
            # No value is out of bounds; without a mode numpy would check, in a copy.
            at = values[..., channel % values.shape[-1]]
            np.take(becomes, at, out=pixels[channel], mode="clip")
        return pixels

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        edge = self.size.get("shortest_edge")
        if edge is None:
            return self.size["width"], self.size["height"]
        longest = int(edge * max(width, height) / min(width, height))
        return (edge, longest) if width <= height else (longest, edge)


def read_preprocessing(processor: Any) -> Preprocessing | None:
    """The preprocessing of an image processor; None for one that does more than is known here."""
    from PIL import Image

    settings = processor.to_dict()
    steps = {key for key, on in settings.items() if key.startswith("do_") and on}
    size = {key: int(pixels) for key, pixels in settings.get("size", {}).items() if pixels}
    crop = settings["crop_size"] if "do_center_crop" in steps else None
    if (
        type(processor).__name__.removesuffix("Pil") not in PROCESSORS
        or not {"do_resize"} <= steps <= _STEPS
        or size.keys() not in ({"shortest_edge"}, {"height", "width"})
        # What is missing from a crop is padded.
        or (crop and any(crop[side] > size.get(side, size.get("shortest_edge")) for side in crop))
    ):
        return None
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    without = {key: False for key in ("do_resize", "do_center_crop") if key in steps}
    values = processor(images=ramp, return_tensors="np", **without)["pixel_values"][0]
    return Preprocessing(
        size=size,
        resample=int(settings["resample"]),
        crop=(int(crop["height"]), int(crop["width"])) if crop else None,
        table=np.ascontiguousarray(values, dtype=np.float32).reshape(3, 256),
    )
