"""The range of gray values where a file does not define it.

A 16-bit PNG or TIFF may hold values of 10, 12 or 14 bits, and a DICOM file without a window fewer
bits than it declares. Read as 16 bits, 12-bit values are 16 times too dark. The number of bits in
use, the bit depth, is therefore decided for a set of images (``featurecache.images.bit_depth``) and
given to the decoder: an image alone may be dark.
"""

from typing import Final

from featurecache.errors import ImageError, UsageError

MIN_BITS: Final = 8
MAX_BITS: Final = 16
DARKEST: Final = 16
"""Images that use less than one in ``DARKEST`` of the range are refused: nearly black, or uniform.
Most likely, they use fewer bits than the others."""


def check_bit_depth(bit_depth: int | None) -> None:
    """Check a bit depth that a user gives.

    Raises:
        UsageError: It is not from 8 to 16.
    """
    if bit_depth is not None and not MIN_BITS <= bit_depth <= MAX_BITS:
        raise UsageError(
            f"`bit_depth` is {bit_depth}: must be from {MIN_BITS} to {MAX_BITS}, the number of "
            "bits that the gray values use"
        )


def require_fit(bits: int, bit_depth: int | None) -> int:
    """Require that values fit the bit depth, and return it.

    Args:
        bits: Number of bits that the values of an image need.
        bit_depth: Number of bits that are in use in its set; None if unknown.

    Raises:
        ImageError: It is unknown or too small.
    """
    if bit_depth is None:
        raise ImageError(
            "its file does not define the range of its gray values: give `bit_depth`, the number "
            "of bits that they use"
        )
    if bits > bit_depth:
        raise ImageError(
            f"its gray values use {bits} bits, more than the {bit_depth} bits of the other images: "
            "give a higher `bit_depth` for all of them"
        )
    return bit_depth
