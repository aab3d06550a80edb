"""The preprocessing of the small encoder, in a module that its subprocesses import quickly."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def color_of(image: Image.Image) -> NDArray[np.float32]:
    """The first pixel, (3, 1, 1)."""
    color = np.asarray(image.convert("RGB"), dtype=np.float32)[0, 0]
    return color.reshape(3, 1, 1)
