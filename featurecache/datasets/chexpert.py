"""CheXpert v1.0 and v1.0-small: 224,316 images of 65,240 patients, 14 findings.

Irvin et al., "CheXpert" (AAAI 2019). The official files are ``train.csv``, ``valid.csv`` and the
images in ``train/`` and ``valid/``; the labels of the test images, ``test_labels.csv`` or
``groundtruth.csv``, were released later.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from featurecache.datasets.cell_values import read_labels
from featurecache.datasets.release import (
    CHEXPERT_LABELS,
    Listing,
    find_table,
    has_columns,
    read_table,
)
from featurecache.errors import DatasetError
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

_TABLES: Final = {
    "train": ("train.csv",),
    "val": ("valid.csv",),
    "test": ("test_labels.csv", "groundtruth.csv", "test.csv"),
}

_PATH: Final = (
    r"(?P<id>(?:train|valid|test)/(?P<patient>patient\d+)/(?P<study>study\d+)"
    r"/view\d+_(?P<side>frontal|lateral)\.\w+)$"
)


def list_chexpert(root: Path) -> Listing:
    """List the images of CheXpert v1.0 or v1.0-small.

    Args:
        root: Folder with ``train.csv``, ``valid.csv`` and their images. The labels of the test
            images, ``test_labels.csv`` or ``groundtruth.csv``, belong into the same folder; without
            them, ``valid.csv`` is test.

    Returns:
        The images, with the 14 labels in their official names and order.

    Raises:
        DatasetError: If there is no table, or a path is not one of CheXpert.
    """
    import pandas as pd

    files = {name: find_table(root, *names) for name, names in _TABLES.items()}
    found = {name: file for name, file in files.items() if file is not None}
    if not found:
        raise DatasetError(f"no train.csv, valid.csv or test_labels.csv in {root}")
    notes: list[str] = []
    tables, cells = [], []
    for name, file in found.items():
        optional = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
        table = read_table(file, ["Path", *CHEXPERT_LABELS], notes, optional=optional)
        tables.append(
            parse_paths(table["Path"], table["AP/PA"], file=file).assign(
                path=table["Path"],
                sex=table["Sex"].replace({"Female": "F", "Male": "M"}),
                age=table["Age"],
                split=name,
            )
        )
        cells.append(read_labels(table[[*CHEXPERT_LABELS]], file=file)[0])
    images = pd.concat(tables)
    if len(found) == 1 and "train" in found:
        images = images.drop(columns="split")
    elif "test" not in found and "val" in found:
        images["split"] = images["split"].replace("val", "test")
        notes.append(
            f"The {count_noun(int((images['split'] == 'test').sum()), 'image')} of "
            f"{found['val'].name} are test, because there are no labels of the test images "
            "(test_labels.csv)."
        )
    return Listing(
        files=[*found.values()],
        images=images.drop(columns="path"),
        paths=[images["id"], images["path"]],
        cells=np.concatenate(cells),
        label_names=CHEXPERT_LABELS,
        split_file="valid.csv",
        notes=notes,
    )


def parse_paths(
    paths: "pd.Series[str]", projections: "pd.Series[str]", *, file: Path
) -> "pd.DataFrame":
    """Return the id, patient, study and view of images of CheXpert.

    Args:
        paths: (N,) paths, with or without the folder of the release in front.
        projections: (N,) "AP", "PA" and so on; "" for lateral images.
        file: The table, for error messages.

    Raises:
        DatasetError: A path is not one of CheXpert.
    """
    parts = paths.str.extract(_PATH)
    if (unknown := parts["id"].isna()).any():
        raise DatasetError(
            f"{file}, line {paths.index[int(unknown.argmax())]}: {paths[unknown].iloc[0]!r} is not "
            "the path of an image of CheXpert, such as "
            "train/patient00001/study1/view1_frontal.jpg"
        )
    return parts[["id", "patient"]].assign(
        study=parts["patient"] + "/" + parts["study"],
        view=projections.where(projections != "", parts["side"].str.upper()),
    )


def is_chexpert(folder: Path) -> bool:
    """Return whether a folder has the tables of CheXpert."""
    return any(
        has_columns(find_table(folder, *names), ["Path", *CHEXPERT_LABELS])
        for names in _TABLES.values()
    )
