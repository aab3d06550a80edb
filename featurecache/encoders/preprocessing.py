"""A fast and bit-exact equivalent of the common image processors of transformers.

They convert gray to color, resize three equal channels by way of numpy, and compute in double
precision. But once an image is resized and cropped, the result for a pixel depends only on its
value, which is one of 256. So here Pillow resizes as many channels as the image has, and the rest
is looked up in a table that the processor itself fills.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from featurecache.encoders.encoder import Array
from featurecache.encoders.geometry import Geometry
from featurecache.errors import CheckpointError, UnknownNameError

if TYPE_CHECKING:
    from PIL.Image import Image

Resize = Literal["published", "pad", "stretch"]
"""How an image becomes the square that a network sees. ``published``: as the checkpoint says, which
may crop; ``pad``: whole, on a black square; ``stretch``: whole, without keeping its proportions."""

PROCESSORS = (
    "BitImageProcessor",
    "CLIPImageProcessor",
    "SiglipImageProcessor",
    "ViTImageProcessor",
)
_STEPS = {"do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize"}


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop, and look up normalized values.

    Attributes:
        geometry: Where the pixels come from.
        resample: Pillow's number of the interpolation filter.
        table: (3, 256) float32, the normalized value for each channel and pixel value.
    """

    geometry: Geometry
    resample: int
    table: Array

    def resized(self, resize: str) -> "Preprocessing":
        """Return the preprocessing that fits whole images into the same size; see ``Resize``."""
        if resize == "published":
            return self
        size = self.geometry.size
        edge = size.get("shortest_edge", 0)
        height, width = self.geometry.crop or (size.get("height", edge), size.get("width", edge))
        whole = Geometry({"height": height, "width": width}, pad=resize == "pad")
        return replace(self, geometry=whole)

    def __call__(self, image: "Image") -> Array:
        """Return a gray (L) or RGB image as float32 of shape (3, H, W)."""
        image = pad_to_canvas(image, self.geometry.padded(*image.size))
        image = image.resize(self.geometry.resized(*image.size), self.resample)
        if self.geometry.crop is not None:
            height, width = self.geometry.crop
            left, top = self.geometry.corner(*image.size)
            image = image.crop((left, top, left + width, top + height))
        values = np.asarray(image).reshape(image.height, image.width, -1)
        pixels = np.empty((3, image.height, image.width), dtype=np.float32)
        for channel, normalized in enumerate(self.table):
            channel_values = values[..., channel % values.shape[-1]]
            # No index is out of bounds; the default mode would check that, in a copy.
            np.take(normalized, channel_values, out=pixels[channel], mode="clip")
        return pixels


@dataclass(frozen=True)
class TorchvisionPreprocessing(Preprocessing):
    """The same as torchvision's transforms do it, which timm uses.

    Attributes:
        gray: Whether the network sees one channel: color becomes gray.
    """

    gray: bool = False

    def __call__(self, image: "Image") -> Array:
        """See ``Preprocessing.__call__``."""
        return super().__call__(image.convert("L") if self.gray else image)


def check_resize(resize: str) -> None:
    """Check that there is such a way to resize images.

    Raises:
        UnknownNameError: There is not.
    """
    if resize not in get_args(Resize):
        raise UnknownNameError("resize", resize, get_args(Resize))


def pad_to_canvas(image: "Image", size: tuple[int, int]) -> "Image":
    """Center an image on a black canvas of a width and height that contain it."""
    from PIL import Image

    if image.size == size:
        return image
    canvas = Image.new(image.mode, size, 0)
    canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas


def read_preprocessing(processor: Any) -> Preprocessing | None:
    """Return what an image processor does; None for one that does more than is supported here."""
    from PIL import Image

    settings = processor.to_dict()
    steps = {key for key, on in settings.items() if key.startswith("do_") and on}
    size = {key: int(pixels) for key, pixels in settings.get("size", {}).items() if pixels}
    crop = settings["crop_size"] if "do_center_crop" in steps else None
    if (
        type(processor).__name__.removesuffix("Pil") not in PROCESSORS
        or not {"do_resize"} <= steps <= _STEPS
        or size.keys() not in ({"shortest_edge"}, {"height", "width"})
        # A crop larger than the image would have to be padded.
        or (crop and any(crop[side] > size.get(side, size.get("shortest_edge")) for side in crop))
    ):
        return None
    all_values = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    skip = {key: False for key in ("do_resize", "do_center_crop") if key in steps}
    table = processor(images=all_values, return_tensors="np", **skip)["pixel_values"][0]
    return Preprocessing(
        geometry=Geometry(size, (int(crop["height"]), int(crop["width"])) if crop else None),
        resample=int(settings["resample"]),
        table=np.ascontiguousarray(table, dtype=np.float32).reshape(3, 256),
    )


def timm_preprocessing(config: Mapping[str, Any], *, source: str) -> TorchvisionPreprocessing:
    """Return what timm does before a network, as ``timm.data.create_transform`` in evaluation.

    Args:
        config: What ``timm.data.resolve_data_config`` returns.
        source: Name of the model, for messages.

    Raises:
        CheckpointError: It asks for steps that are not supported.
    """
    from PIL import Image

    n_channels, height, width = config["input_size"]
    scaled = [math.floor(side / config["crop_pct"]) for side in (height, width)]
    filters = {one.name.lower(): one for one in Image.Resampling}
    if (
        config["interpolation"] not in filters
        or config["crop_mode"] not in ("center", "squash")
        or (config["crop_mode"] == "center" and height != width)
        or n_channels not in (1, 3)
    ):
        raise CheckpointError(
            f"{source} is preprocessed in a way that is not supported: interpolation "
            f"{config['interpolation']}, crop_mode {config['crop_mode']}, input_size "
            f"{list(config['input_size'])}"
        )
    is_squashed = config["crop_mode"] == "squash"
    mean, std = (np.asarray(config[key], np.float32)[:, None] for key in ("mean", "std"))
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    return TorchvisionPreprocessing(
        geometry=Geometry(
            dict(zip(("height", "width"), scaled, strict=True))
            if is_squashed
            else {"shortest_edge": scaled[0]},
            (height, width),
            round_margins=True,
        ),
        resample=int(filters[config["interpolation"]]),
        table=np.ascontiguousarray(np.broadcast_to((values - mean) / std, (3, 256))),
        gray=n_channels == 1,
    )
