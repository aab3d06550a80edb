"""A hash of an image's content that survives re-encoding and resizing.

The image becomes a gray square of 64 x 64 pixels. Its 256 lowest frequencies (of the discrete
cosine transform, without the mean gray) are compared with their median: one bit each. The method is
that of pHash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010),
with 256 bits in place of 64, because all chest X-rays are alike in the lowest frequencies. How far
copies and other images are apart is measured in the documentation of the audit.
"""

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

PerceptualHash: TypeAlias = NDArray[np.uint8]

HASH_BYTES: Final = 32

NO_HASH: Final[PerceptualHash] = np.zeros(HASH_BYTES, dtype=np.uint8)
"""In place of the hash of an image without content; no other image has it."""
NO_HASH.flags.writeable = False

_SIDE: Final = 64
_HIGHEST: Final = 18
"""Frequencies per direction, from 0; enough for the 256 nearest to 0."""
_FLAT: Final = 1.0
"""Root mean square of the content, in gray levels, below which there is only rounding and noise."""

_frequency = np.arange(_HIGHEST)
_COSINES: Final[NDArray[np.float32]] = np.cos(
    np.pi * (2 * np.arange(_SIDE) + 1) * _frequency[:, np.newaxis] / (2 * _SIDE)
).astype(np.float32)
_LOWEST: Final = np.argsort(np.add.outer(_frequency**2, _frequency**2).ravel(), kind="stable")[
    1 : 8 * HASH_BYTES + 1
]


def perceptual_hash(image: "Image") -> PerceptualHash:
    """Return the hash of an image, (32,) uint8.

    Args:
        image: An 8-bit image in mode ``L`` or ``RGB``. Its size and aspect ratio do not matter.

    Returns:
        The hash; ``NO_HASH`` for an image of one gray level, which any other could be mistaken for.
    """
    from PIL import Image

    gray = image.convert("L").resize(
        # The gap makes a large image several times faster, by averaging before the filter.
        (_SIDE, _SIDE),
        Image.Resampling.LANCZOS,
        reducing_gap=3.0,
    )
    pixels = np.asarray(gray, dtype=np.float32)
    if pixels.std() < _FLAT:
        return NO_HASH
    frequencies = (_COSINES @ pixels @ _COSINES.T).ravel()[_LOWEST]
    return np.packbits(frequencies > np.median(frequencies))
