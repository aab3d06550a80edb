"""NIH ChestX-ray14: 112,120 frontal images of 30,805 patients, 14 findings.

Wang et al., "ChestX-ray8" (CVPR 2017); the official files are ``Data_Entry_2017_v2020.csv``,
``train_val_list.txt``, ``test_list.txt`` and the images, in twelve archives.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.cell_values import read_ages, read_sexes, read_views
from featurecache.datasets.dataset import Dataset
from featurecache.datasets.label_strings import label_matrix
from featurecache.datasets.scan import scan_folder, scan_tree
from featurecache.datasets.splits import complete_split
from featurecache.datasets.table_reader import open_table
from featurecache.errors import DatasetError, UnknownNameError
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

SPLIT_CHOICES = ("auto", "official", "patient")

TRAIN_LIST = "train_val_list.txt"
TEST_LIST = "test_list.txt"

_IMAGES = re.compile(r"images(?:[-_]\d+)?")
_METADATA = re.compile(r"Data_Entry_2017.*\.csv(\.gz)?|sample_labels\.csv")


def load_nih(
    root: str | os.PathLike[str],
    *,
    split: str = "auto",
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
    require_images: bool = True,
) -> Dataset:
    """Load the images of NIH ChestX-ray14 that are on disk.

    Args:
        root: Folder with ``Data_Entry_2017*.csv`` (or ``.csv.gz``; that of Kaggle's sample is
            ``sample_labels.csv``), and the images in ``images/`` or ``images_001/images/`` and so
            on, at any depth.
        split: "official" reads ``test_list.txt`` (and ``train_val_list.txt`` if it exists) and
            takes validation from the other images by patient; "patient" ignores the lists; "auto"
            is the official split if ``test_list.txt`` exists, else the split by patient.
        folds: Number of folds, by patient, instead of these splits.
        fold: The fold that is test; the next one is validation, the others are train.
        seed: Seed of the splits that no list defines.
        require_images: Load only images that are on disk; if False, all that are listed.

    Returns:
        The data set "nih", with the 14 labels in their official names and order; ``No Finding``
        stands for no positive label.

    Raises:
        DatasetError: If there is no CSV file or an ambiguous choice, no image, a row with an
            unknown finding, an image in two places, or lists that contradict each other.
        UnknownNameError: If there is no such split.
    """
    import pandas as pd

    if split not in SPLIT_CHOICES:
        raise UnknownNameError("NIH split", split, SPLIT_CHOICES)
    root = Path(root)
    csv = _find_csv(root)
    columns = ["Image Index", "Finding Labels", "Patient ID", "View Position"]
    opened = open_table(csv)
    table = opened.read([*columns, "Patient Gender", "Patient Age"])
    # Rows without an image are checked too: one invalid label makes the whole file doubtful.
    _, all_labels, _ = label_matrix(table["Finding Labels"], LABELS, file=csv, separator="|")

    paths, copies = _index_images(root)
    if not require_images:
        paths = {name: f"images/{name}" for name in table["Image Index"]} | paths
    elif not paths:
        raise DatasetError(f"no image in {root} or below: unpack the images there, into images/")
    present = table["Image Index"].isin(list(paths)).to_numpy()
    rows = table[present]
    if rows.empty:
        raise DatasetError(
            f"none of {count_noun(len(paths), 'image')} under {root} has a row in {csv.name}"
        )
    notes = [f"The labels are those of {csv.name}.", *opened.notes]
    missing, extra = len(table) - len(rows), len(paths) - rows["Image Index"].nunique()
    if missing:
        notes.append(
            f"Left out: {missing:,} of {count_noun(len(table), 'row')} of {csv.name}, without an "
            "image on disk."
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

    views, view_notes = read_views(rows["View Position"])
    sexes, sex_notes = read_sexes(rows["Patient Gender"])
    ages, age_notes = read_ages(rows["Patient Age"])
    notes += [*view_notes, *sex_notes, *age_notes]

    labels = all_labels[present]
    is_official = split == "official" or (
        split == "auto" and folds is None and _list_file(root, TEST_LIST).is_file()
    )
    if is_official:
        notes.append(f"The split is the official one: {TEST_LIST} lists the test images.")
    else:
        notes.append(
            "The split is not the official one, so scores are not comparable with published ones."
        )
    completed = complete_split(
        rows["Patient ID"],
        labels,
        LABELS,
        stated=_official_split(root, rows["Image Index"]) if is_official else None,
        source="the official split",
        folds=folds,
        fold=fold,
        seed=seed,
    )

    images = pd.DataFrame(
        {
            "id": rows["Image Index"],
            "path": rows["Image Index"].map(paths),
            "patient": rows["Patient ID"],
            "split": pd.Series(completed.names, index=rows.index, dtype=str),
            "view": views,
            "sex": sexes,
            "age": ages,
        }
    )
    return Dataset(
        name="nih",
        collection="nih",
        root=root,
        images=images,
        labels=labels,
        label_names=LABELS,
        notes=(*notes, *completed.notes),
        split_draw=completed.draw,
        excluded={"listed, but not on disk": missing, "on disk, but not listed": extra},
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


def _index_images(root: Path) -> tuple[dict[str, str], int]:
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


def _official_split(root: Path, ids: "pd.Series[str]") -> NDArray[np.str_]:
    """Return "train" or "test" for each image; validation is a part of train."""
    test = ids.isin(_read_list(_list_file(root, TEST_LIST))).to_numpy()
    if (train_list := _list_file(root, TRAIN_LIST)).is_file():
        train = ids.isin(_read_list(train_list)).to_numpy()
        if (contradictory := train == test).any():
            first = int(np.argmax(contradictory))
            raise DatasetError(
                f"the image {ids.iloc[first]} is in {'both' if test[first] else 'neither'} of "
                f"{TRAIN_LIST} and {TEST_LIST} of {root}: download the official lists again"
            )
    return np.where(test, "test", "train")


def _read_list(path: Path) -> list[str]:
    try:
        return read_text(path).split()
    except FileNotFoundError as error:
        raise DatasetError(
            f"the official split needs {path}: download it, or choose `split` patient"
        ) from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as UTF-8 text: {error}") from error
