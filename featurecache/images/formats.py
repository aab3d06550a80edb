"""Recognize image files by their first bytes, whatever they are called."""

import re
from typing import Final

from featurecache.images.dicom import is_dicom

SNIFFED_BYTES: Final = 132
"""Number of bytes at the start of a file that ``looks_like_image`` needs."""

_PATTERNS: Final = re.compile(
    rb"\x89PNG\r\n\x1a\n"
    rb"|\xff\xd8\xff"  # JPEG
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
