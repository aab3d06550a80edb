"""Recognize image files by their first bytes, whatever they are called."""

import re
from typing import Final

from featurecache.images.dicom import is_dicom

SNIFFED_BYTES: Final = 132
"""Number of bytes at the start of a file that ``looks_like_image`` needs."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PATTERNS: Final = re.compile(
    re.escape(_PNG) + rb"|\xff\xd8\xff"  # JPEG
    rb"|II[*+]\0|MM\0[*+]"  # TIFF and BigTIFF
    rb"|RIFF....WEBP"
    # BMP: the reserved fields are 0, and the header that follows has one of the lengths in use.
    rb"|BM....\0\0\0\0....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"
    rb"|P[1-6]\s+[#0-9]",  # PPM
    re.DOTALL,
)


def looks_like_image(first_bytes: bytes) -> bool:
    """Return whether a file is an image of a format that can be decoded, DICOM included.

    Args:
        first_bytes: The first ``SNIFFED_BYTES`` of the file, or all of a shorter one.
    """
    return _PATTERNS.match(first_bytes) is not None or is_dicom(first_bytes)


def may_lack_range(first_bytes: bytes) -> bool:
    """Return whether an image file may leave the range of its gray values undefined.

    JPEG, WebP, BMP and PNG of 8 bits or fewer do not; others have to be opened.

    Args:
        first_bytes: As in ``looks_like_image``.
    """
    if first_bytes.startswith(_PNG):
        return first_bytes[24:25] == b"\x10"  # the bit depth in its header
    return not first_bytes.startswith((b"\xff\xd8\xff", b"RIFF", b"BM"))
