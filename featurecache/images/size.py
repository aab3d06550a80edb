"""The size of an image in pixels."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.images.dicom_header import read_header
from featurecache.images.subprocess_decoder import SubprocessDecoder

if TYPE_CHECKING:
    from PIL import Image


def read_size(path: Path, decoder: SubprocessDecoder, *, name: str) -> tuple[int, int]:
    """Return the width and height of an image file, of a DICOM file from its header.

    Args:
        path: The file.
        decoder: Decodes it, if it is not DICOM.
        name: Name of the image in messages.

    Raises:
        ImageError: The image cannot be read.
    """
    header = read_header(path, ["Columns", "Rows"]) or {}
    sides = [int(side) for side in header.values() if side.isdecimal()]
    if len(sides) < 2:
        (size,) = decoder.read(path, [_size], name=name)
        sides = size.tolist()
    return sides[0], sides[1]


def _size(image: "Image.Image") -> NDArray[np.int32]:
    return np.array(image.size, dtype=np.int32)
