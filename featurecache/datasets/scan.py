"""List the images, other files and subfolders of a folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from featurecache.errors import DatasetError

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom"}
)


@dataclass(frozen=True)
class FolderScan:
    """Names in a folder, each sorted.

    Attributes:
        images: Files with the suffix of an image.
        others: All other files.
        folders: Subfolders.
    """

    images: tuple[str, ...]
    others: tuple[str, ...]
    folders: tuple[str, ...]


def scan_folder(folder: Path) -> FolderScan:
    """List a folder once, without a ``stat`` per file.

    Hidden entries (".DS_Store", "._x.jpeg") and "__MACOSX" are skipped: other programs leave them
    behind, some with the suffix of an image.

    Args:
        folder: The folder.

    Raises:
        DatasetError: If the folder is missing or cannot be read, or a name in it is not UTF-8.
    """
    images, others, folders = [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                # Bytes that are not UTF-8 become lone surrogates, which a cache cannot store.
                entry.name.encode()
                if entry.is_dir():
                    folders.append(entry.name)
                elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                    images.append(entry.name)
                else:
                    others.append(entry.name)
    except UnicodeEncodeError as error:
        raise DatasetError(
            f"the name {error.object!a} in {folder} is not UTF-8: rename it"
        ) from error
    except OSError as error:
        raise DatasetError(
            f"the folder {folder} cannot be listed ({error.strerror}): check that it exists"
        ) from error
    return FolderScan(tuple(sorted(images)), tuple(sorted(others)), tuple(sorted(folders)))
