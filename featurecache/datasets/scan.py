"""List the images, other files and subfolders of a folder, or of all folders below it."""

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from featurecache.errors import DatasetError
from featurecache.images.formats import SNIFFED_BYTES, looks_like_image

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
IMAGE_SUFFIXES = DICOM_SUFFIXES | {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
"""Names that are taken for images unread; all other files are recognized by their first bytes."""

_MASKS: Final = re.compile(
    r"(?:(?:left|right|lungs?|infection|manual|seg(?:mentation)?)[ _-]?)?masks?"
    r"|segmentations?|ground[ _-]?truths?"
)
_MASK_NAME: Final = re.compile(rf"(.+?)[ _.-]+(?:{_MASKS.pattern})(?:[ _-]?\d+)?")
"""The name of a mask, without suffix, after that of its image: ``x_mask``, ``x_lung_mask_2``."""
_SKIPPED: Final = frozenset({"__MACOSX", "DICOMDIR"})
_MAX_SUFFIXES: Final = 8


@dataclass(frozen=True)
class FolderScan:
    """Names in a folder, each sorted.

    Attributes:
        images: Images.
        others: All other files.
        folders: Subfolders.
        links: Those of the names above that are symbolic links.
    """

    images: tuple[str, ...]
    others: tuple[str, ...]
    folders: tuple[str, ...]
    links: frozenset[str]


def scan_folder(folder: Path) -> FolderScan:
    """List a folder once, without a ``stat`` per file.

    Files with the suffix of an image are images; of all others, the first bytes are read. Hidden
    entries (".DS_Store", "._x.jpeg"), "__MACOSX" and the index "DICOMDIR" are skipped: other
    programs leave them behind, some with the suffix of an image.

    Args:
        folder: The folder.

    Raises:
        DatasetError: If the folder is missing or cannot be read, or a name in it is not UTF-8.
    """
    images, others, folders, links = [], [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _SKIPPED:
                    continue
                # Bytes that are not UTF-8 become lone surrogates, which a cache cannot store.
                entry.name.encode()
                if entry.is_symlink():
                    links.append(entry.name)
                if _is_folder(entry):
                    folders.append(entry.name)
                elif _is_image(entry):
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
    return FolderScan(
        images=tuple(sorted(images)),
        others=tuple(sorted(others)),
        folders=tuple(sorted(folders)),
        links=frozenset(links),
    )


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(entry: "os.DirEntry[str]") -> bool:
    if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        if not entry.is_file():  # opening a pipe would wait for its other end
            return False
        with Path(entry).open("rb") as file:
            return looks_like_image(file.read(SNIFFED_BYTES))
    except OSError:
        return False


def only_folders(root: Path) -> list[Path]:
    """Return a folder, then the only folder in it as long as there is nothing else but files.

    Archives are often unpacked into a folder of their own, some of them twice.

    Raises:
        DatasetError: See ``scan_folder``.
    """
    folders = [root]
    while True:
        entries = scan_folder(folders[-1])
        if entries.images or len(entries.folders) != 1:
            return folders
        folders.append(folders[-1] / entries.folders[0])


@dataclass(frozen=True)
class ImageTree:
    """All images below a folder.

    Attributes:
        images: Their paths, relative to the folder, with "/", sorted.
        others: Number of files that are no images, by suffix in lower case.
        masks: Number of images left out because they are in a folder of masks, or beside an image
            whose name they have with ``_mask`` or similar.
        copies: Number of images and folders left out because a symbolic link leads to one that is
            reached without it, or by another link, or to a folder above.
    """

    images: tuple[str, ...]
    others: Mapping[str, int]
    masks: int
    copies: int

    def notes(self) -> list[str]:
        """Return sentences on what was left out."""
        notes = []
        if self.others:
            notes.append(
                f"Files that are not images were skipped: {describe_suffixes(self.others)}."
            )
        if self.masks:
            notes.append(
                "Masks were left out, which are in folders of masks or named after the image "
                f"beside them: {self.masks:,}. To embed masks, give a folder with nothing else."
            )
        if self.copies:
            notes.append(
                "Symbolic links were left out where what they lead to is reached another way, too: "
                f"{self.copies:,}."
            )
        return notes


def describe_suffixes(counts: Mapping[str, int]) -> str:
    """Describe files by suffix, the most frequent first: "3 .csv, 1 .txt"."""
    listed = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in listed[:_MAX_SUFFIXES]]
    return ", ".join(parts) + (", ..." if len(listed) > _MAX_SUFFIXES else "")


def scan_tree(root: Path) -> ImageTree:
    """List all images below a folder; symbolic links are followed, but no image is listed twice.

    Args:
        root: The folder.

    Raises:
        DatasetError: See ``scan_folder``.
    """
    images: list[str] = []
    linked_images: list[str] = []
    others: Counter[str] = Counter()
    copies = 0
    visited: set[str] = set()
    real_root = Path(os.path.realpath(root))
    folders, linked_folders = [""], list[str]()
    # Links are followed last, so that a path has no link in it where there is one without.
    while folders or linked_folders:
        folder = (folders or linked_folders).pop()
        location = root / folder
        real = os.path.realpath(location)
        # A link to a folder above the root would bring in images that nobody asked for.
        if real in visited or (folder and real_root.is_relative_to(real)):
            copies += 1
            continue
        visited.add(real)
        scan = scan_folder(location)
        prefix = f"{folder}/" if folder else ""
        others.update(Path(name).suffix.lower() for name in scan.others)
        for name in scan.images:
            (linked_images if name in scan.links else images).append(prefix + name)
        for name in reversed(scan.folders):
            (linked_folders if name in scan.links else folders).append(prefix + name)
    targets: set[str] = set()
    for path in sorted(linked_images):
        target = os.path.realpath(root / path)
        is_listed = target in targets or target.rpartition("/")[0] in visited
        if is_listed and Path(target).is_file():  # a broken link fails when it is read
            copies += 1
        else:
            targets.add(target)
            images.append(path)
    in_masks = [path for path in images if _is_in_masks(path)]
    if len(in_masks) == len(images):
        in_masks = []
    stems = {_stem(path) for path in images}
    masks = {*in_masks, *(path for path in images if _is_mask_of(_stem(path), stems))}
    return ImageTree(tuple(sorted(set(images) - masks)), dict(others), len(masks), copies)


def _is_in_masks(path: str) -> bool:
    return any(_MASKS.fullmatch(folder) for folder in path.lower().split("/")[:-1])


def _stem(path: str) -> tuple[str, str]:
    """Return the folder of a path and its name without suffix, in lower case."""
    folder, _, name = path.lower().rpartition("/")
    return folder, Path(name).stem


def _is_mask_of(stem: tuple[str, str], stems: Collection[tuple[str, str]]) -> bool:
    folder, name = stem
    match = _MASK_NAME.fullmatch(name)
    return match is not None and (folder, match[1]) in stems
