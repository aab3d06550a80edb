"""Read attributes from the headers of DICOM files, without their pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from featurecache.errors import ImageError
from featurecache.images.dicom import header_attributes, is_dicom
from featurecache.images.read import read_start

_HEADER_BYTES: Final = 2**16
"""Bytes that are read of a file. Patient and study are among the first attributes of a header."""


def read_header(path: Path, keywords: Sequence[str]) -> dict[str, str] | None:
    """Return attributes of a DICOM file as text, "" where one is missing or cannot be read.

    Args:
        path: The file.
        keywords: Names of the attributes, such as ``ViewPosition``.

    Returns:
        The attributes by name; None if the file can be read and is not DICOM.
    """
    start = read_start(path, _HEADER_BYTES)
    if start and not is_dicom(start):
        return None
    try:
        return header_attributes(start, keywords)
    except ImageError:  # reported where the image is used
        return dict.fromkeys(keywords, "")
