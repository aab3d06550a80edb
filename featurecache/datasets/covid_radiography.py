"""COVID-19 Radiography Database: 21,165 images in four classes.

Chowdhury et al., "Can AI Help in Screening Viral and COVID-19 Pneumonia?" (IEEE Access 2020).
Images are in ``<class>/images/``, and ``<class>.metadata.xlsx`` lists them.
"""

from pathlib import Path
from typing import Final

from featurecache.datasets.label_strings import class_matrix
from featurecache.datasets.release import Listing, read_table
from featurecache.errors import DatasetError

CLASSES: Final = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")


def list_covid_radiography(root: Path) -> Listing:
    """List the images of the COVID-19 Radiography Database.

    Args:
        root: Folder with ``COVID/images/``, ``Lung_Opacity/images/``, ``Normal/images/`` and
            ``Viral Pneumonia/images/``, or the files ``COVID.metadata.xlsx`` and so on.

    Returns:
        The images on disk and in these files, with one label for each class. Patients are unknown.

    Raises:
        DatasetError: If there is neither image nor file.
    """
    import pandas as pd

    notes: list[str] = []
    rows: list[tuple[str, str]] = []
    for name in CLASSES:
        ids = {file.stem for file in (root / name / "images").glob(f"{name}-*.png")}
        if (listed := root / f"{name}.metadata.xlsx").is_file():
            # The file of Normal has NORMAL-1 for Normal-1.png.
            numbers = read_table(listed, ["FILE NAME"], notes)["FILE NAME"].str.rpartition("-")[2]
            ids |= set(f"{name}-" + numbers)
        rows += [(image, name) for image in sorted(ids)]
    if not rows:
        raise DatasetError(
            f"no COVID/images/COVID-*.png, COVID.metadata.xlsx or other class in {root}: give the "
            "folder that holds them"
        )
    images = pd.DataFrame(rows, columns=["id", "class"], dtype=str)
    label_names, cells, class_notes = class_matrix(images["class"], file=root)
    return Listing(
        files=[root],
        images=images[["id"]],
        paths=[images["class"] + "/images/" + images["id"] + ".png"],
        cells=cells,
        label_names=label_names,
        notes=[*notes, *class_notes],
    )


def is_covid_radiography(folder: Path) -> bool:
    """Return whether a folder has the classes of the COVID-19 Radiography Database."""
    there = [
        (folder / f"{name}.metadata.xlsx").is_file() or (folder / name / "images").is_dir()
        for name in CLASSES
    ]
    return sum(there) > 1
