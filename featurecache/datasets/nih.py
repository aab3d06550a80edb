"""NIH ChestX-ray14: 112,120 frontal images of 30,805 patients, 14 findings.

Wang et al., "ChestX-ray8" (CVPR 2017); the official files are ``Data_Entry_2017_v2020.csv``,
``train_val_list.txt``, ``test_list.txt``, ``BBox_List_2017.csv`` and the images, in twelve
archives.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.boxes import NIH, read_boxes
from featurecache.datasets.label_strings import label_matrix
from featurecache.datasets.release import Listing, find_table, read_table
from featurecache.datasets.scan import scan_folder, scan_tree
from featurecache.errors import DatasetError
from featurecache.io.text import read_text
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)

IMAGE_COLUMNS: Final = {
    "Image Index": "id",
    "Patient ID": "patient",
    "View Position": "view",
    "Patient Gender": "sex",
    "Patient Age": "age",
}
"""Columns that describe images, and their roles."""

_BOXES: Final = "BBox_List_2017.csv"

TRAIN_LIST = "train_val_list.txt"
TEST_LIST = "test_list.txt"

_IMAGES = re.compile(r"images(?:[-_]\d+)?")
_METADATA = re.compile(r"Data_Entry_2017.*\.csv(\.gz)?|sample_labels\.csv")


def list_nih(root: Path) -> Listing:
    """List the images of NIH ChestX-ray14.

    Args:
        root: Folder with ``Data_Entry_2017*.csv`` (or ``.csv.gz``; that of Kaggle's sample is
            ``sample_labels.csv``), and the images in ``images/`` or ``images_001/images/`` and so
            on, at any depth. The official split is ``test_list.txt``, and ``train_val_list.txt``
            if it exists; boxes are in ``BBox_List_2017.csv``.

    Returns:
        The images, with the 14 labels in their official names and order; ``No Finding`` stands for
        no positive label.

    Raises:
        DatasetError: If there is no CSV file or an ambiguous choice, a row with an unknown finding,
            an image in two places, images without any row, or lists that contradict each other.
    """
    csv = _find_csv(root)
    notes: list[str] = []
    table = read_table(csv, ["Finding Labels", *IMAGE_COLUMNS], notes)
    # Rows without an image are checked too: one invalid label makes the whole file doubtful.
    _, cells, _ = label_matrix(table["Finding Labels"], LABELS, file=csv, separator="|")
    images = table[[*IMAGE_COLUMNS]].set_axis([*IMAGE_COLUMNS.values()], axis="columns")
    paths, copies = index_images(root)
    on_disk = images["id"].isin(list(paths))
    extra = len(paths) - images["id"][on_disk].nunique()
    if paths and not on_disk.any():
        raise DatasetError(
            f"none of {count_noun(len(paths), 'image')} under {root} has a row in {csv.name}"
        )
    if extra:
        notes.append(
            f"Left out: {extra:,} of {count_noun(len(paths), 'image')} on disk, without a row in "
            f"{csv.name}."
        )
    if copies:
        notes.append(
            f"{count_noun(copies, 'image is', 'images are')} on disk twice, but taken once."
        )
    if (split := official_split(root, images["id"], on_disk)) is not None:
        images["split"] = split
    boxes = None
    if boxes_file := find_table(root, _BOXES):
        boxes = read_boxes(boxes_file, NIH, notes)
    return Listing(
        files=[csv],
        images=images,
        paths=[images["id"].map(lambda name: paths.get(name, f"images/{name}"))],
        cells=cells,
        label_names=LABELS,
        split_file=TEST_LIST,
        notes=notes,
        excluded={"on disk, but not listed": extra},
        boxes=boxes,
    )


def is_nih(folder: Path) -> bool:
    """Return whether a folder has the layout of NIH ChestX-ray14: its metadata file."""
    return bool(_metadata_files(folder))


def _metadata_files(root: Path) -> list[str]:
    return [name for name in scan_folder(root).others if _METADATA.fullmatch(name)]


def _find_csv(root: Path) -> Path:
    """Return the metadata file: the 2020 release first, then that of 2017, then others."""
    names = _metadata_files(root)
    # Prefer the metadata of a subset to the full metadata beside it (…_full).
    plain = [name for name in names if "_full" not in name]
    for choice in ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "sample_labels.csv"):
        for name in (choice, f"{choice}.gz"):
            if name in plain:
                return root / name
    candidates = plain or names
    if not candidates:
        raise DatasetError(f"no Data_Entry_2017*.csv in {root}: give the folder that holds it")
    if len(candidates) > 1:
        raise DatasetError(
            f"{root} contains {' and '.join(candidates)}: keep one, or name it "
            "Data_Entry_2017_v2020.csv"
        )
    return root / candidates[0]


def index_images(root: Path) -> tuple[dict[str, str], int]:
    """Return the path, relative to the root, of every image by name, and the number of copies.

    Archives hold the images in ``images``, ``images_001/images``, ``images-224/images-224`` or
    ``sample/images``, and that of the sample holds them twice. Other folders, such as one of
    originals, count only where there are none of these.
    """
    paths: dict[str, str] = {}
    copies = 0
    found = scan_tree(root).images
    in_images = [path for path in found if any(map(_IMAGES.fullmatch, path.split("/")))]
    for path in sorted(in_images or found, key=lambda path: (path.count("/"), path)):
        name = path.rpartition("/")[2]
        if name not in paths:
            paths[name] = path
        elif (root / path).stat().st_size == (root / paths[name]).stat().st_size:
            copies += 1
        else:
            raise DatasetError(
                f"the image {name} is in two places of {root}, {paths[name]} and {path}, with "
                "different sizes: remove one"
            )
    return paths, copies


def _list_file(root: Path, name: str) -> Path:
    """Return a list of images; a version of the data set on Kaggle calls it ..._NIH.txt."""
    renamed = root / name.replace(".txt", "_NIH.txt")
    return renamed if renamed.is_file() and not (root / name).is_file() else root / name


def official_split(
    root: Path, ids: "pd.Series[str]", on_disk: "pd.Series[bool]"
) -> NDArray[np.str_] | None:
    """Return "train" or "test" for each image; None where a folder has no list of test images.

    Validation is a part of train.

    Raises:
        DatasetError: If an image on disk is in both lists, or, where there are both, in neither.
    """
    if not (test_list := _list_file(root, TEST_LIST)).exists():
        return None
    test = ids.isin(_read_list(test_list)).to_numpy()
    if (train_list := _list_file(root, TRAIN_LIST)).is_file():
        train = ids.isin(_read_list(train_list)).to_numpy()
        # Lists of a subset need not have the other images of the table.
        if (contradictory := (train == test) & on_disk.to_numpy()).any():
            first = int(np.argmax(contradictory))
            raise DatasetError(
                f"the image {ids.iloc[first]} is in {'both' if test[first] else 'neither'} of "
                f"{TRAIN_LIST} and {TEST_LIST} of {root}: download the official lists again"
            )
    return np.where(test, "test", "train")


def _read_list(path: Path) -> list[str]:
    try:
        return read_text(path).split()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as UTF-8 text: {error}") from error
