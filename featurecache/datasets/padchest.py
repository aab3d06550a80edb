"""PadChest: 160,861 images of 67,625 patients, 193 findings and diagnoses.

Bustos et al., "PadChest" (Medical Image Analysis 2020). The official files are
``PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv`` and the images, 16-bit PNG, in folders with
the names of its column ``ImageDir``.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.label_strings import split_list
from featurecache.datasets.release import Listing, read_table
from featurecache.datasets.scan import scan_folder
from featurecache.errors import DatasetError
from featurecache.label_cells import BLANK, NEGATIVE, NEGATIVE_BY_MODEL, POSITIVE
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS: Final = (
    *("ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth"),
    *("PatientSex_DICOM", "Projection", "MethodLabel", "Labels"),
)
_VIEWS: Final = {"L": "LATERAL", "AP_horizontal": "AP", "UNK": ""}
_UNUSABLE: Final = "exclude"


def list_padchest(root: Path) -> Listing:
    """List the images of PadChest.

    Labels have the exact names of the release: "emphysema" is no "subcutaneous emphysema". All
    labels of an image are blank where the table states none, or the report was not usable. Those of
    reports that no physician labeled are by a model, a network that the authors trained.

    Args:
        root: Folder with ``PADCHEST_chest_x_ray_images_labels_*.csv`` (or ``.csv.gz``), and the
            images in ``images/<ImageDir>/``, ``<ImageDir>/``, ``images/`` or beside the table.

    Returns:
        The images, with all labels that occur in its table, sorted.

    Raises:
        DatasetError: If there is no table, or several.
    """
    file = _find_table(root)
    notes: list[str] = []
    table = read_table(file, _COLUMNS, notes)
    label_names, cells = _read_labels(table["Labels"])
    by_physician = (table["MethodLabel"] == "Physician").to_numpy()
    notes.append(
        f"The labels of {count_noun(int(by_physician.sum()), 'image')} are by physicians, those of "
        f"{int((~by_physician).sum()):,} by a model."
    )
    stated = ((cells == NEGATIVE) | (cells == POSITIVE)) & ~by_physician[:, None]
    cells = np.where(stated, cells + NEGATIVE_BY_MODEL, cells).astype(np.int8)
    notes.append(
        "The projection AP_horizontal is AP. Ages are the year of the study minus that of birth."
    )
    images = table[["ImageID", "PatientID", "StudyID", "PatientSex_DICOM"]].set_axis(
        ["id", "patient", "study", "sex"], axis="columns"
    )
    images["view"] = table["Projection"].map(lambda view: _VIEWS.get(view, view))
    shared = images.groupby("study")["patient"].transform("nunique") > 1
    if shared.any():
        images.loc[shared, "study"] = images["patient"] + "/" + images["study"]
        notes.append(
            f"{count_noun(int(shared.sum()), 'image is', 'images are')} of studies with several "
            "patients, which are taken as one study of each."
        )
    images["age"] = _ages(table)
    nested = table["ImageDir"] + "/" + table["ImageID"]
    return Listing(
        files=[file],
        images=images,
        paths=["images/" + nested, nested, "images/" + table["ImageID"], table["ImageID"]],
        cells=cells,
        label_names=label_names,
        notes=notes,
    )


def is_padchest(folder: Path) -> bool:
    """Return whether a folder has the table of PadChest."""
    return bool(_tables(folder))


def _tables(root: Path) -> list[str]:
    names = (name for name in scan_folder(root).others if name.lower().startswith("padchest"))
    return [name for name in names if name.endswith((".csv", ".csv.gz"))]


def _find_table(root: Path) -> Path:
    names = _tables(root)
    if len(names) != 1:
        problem = f"contains {' and '.join(names)}: keep one" if names else "has no table"
        raise DatasetError(
            f"no PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv can be chosen: {root} "
            f"{problem}"
        )
    return root / names[0]


def _read_labels(column: "pd.Series[str]") -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """Return the C names that occur, sorted, and (N, C) cells, blank where none is stated."""
    import pandas as pd

    codes, texts = pd.factorize(column)
    stated = [set(split_list(text) if text.startswith("[") else ()) for text in texts]
    names = sorted(set().union(*stated))
    positions = {name: position for position, name in enumerate(names)}
    cells = np.zeros((len(texts), len(names)), dtype=np.int8)
    for row, found in zip(cells, stated, strict=True):
        if not found or _UNUSABLE in found:
            row[:] = BLANK
        row[[positions[name] for name in found]] = 1
    return tuple(names), cells[codes]


def _ages(table: "pd.DataFrame") -> "pd.Series[str]":
    """Return the year of the study minus that of birth, "" where one is unknown."""
    import pandas as pd

    born = pd.to_numeric(table["PatientBirth"], errors="coerce")
    studied = pd.to_numeric(table["StudyDate_DICOM"].str[:4], errors="coerce")
    years = studied - born
    return years.where(years.between(0, 120)).astype("Int64").astype("string").fillna("")
