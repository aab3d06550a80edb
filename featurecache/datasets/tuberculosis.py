"""Montgomery (138 images) and Shenzhen (662 images): tuberculosis or normal.

Jaeger et al., "Two public chest X-ray datasets for computer-aided screening of pulmonary diseases"
(Quantitative Imaging in Medicine and Surgery 2014). The last digit of a name is the label; sex and
age are in ``ClinicalReadings/``, one text file for each image.
"""

import re
from pathlib import Path
from typing import Final

import numpy as np

from featurecache.datasets.release import Listing
from featurecache.errors import DatasetError
from featurecache.io.text import read_text

_IMAGES: Final = "CXR_png"
_READINGS: Final = "ClinicalReadings"
_PREFIXES: Final = {"montgomery": "MCUCXR", "shenzhen": "CHNCXR"}
_SEX: Final = re.compile(r"\b(female|male|f|m)\b", re.IGNORECASE)
_AGE: Final = re.compile(r"\b(\d+) *(y(?:ea)?rs?|y|months?|days?)\b", re.IGNORECASE)


def list_montgomery(root: Path) -> Listing:
    """List the images of the Montgomery set.

    Args:
        root: Folder with ``CXR_png/MCUCXR_0001_0.png`` and so on, and ``ClinicalReadings/``.

    Returns:
        The images, with the label ``Tuberculosis``. Each image is of one patient.

    Raises:
        DatasetError: If there is neither image nor text, or a text cannot be read.
    """
    return _list("montgomery", root)


def list_shenzhen(root: Path) -> Listing:
    """List the images of the Shenzhen set.

    Args:
        root: Folder with ``CXR_png/CHNCXR_0001_0.png`` and so on, and ``ClinicalReadings/``.

    Returns:
        The images, with the label ``Tuberculosis``. Each image is of one patient.

    Raises:
        DatasetError: If there is neither image nor text, or a text cannot be read.
    """
    return _list("shenzhen", root)


def is_montgomery(folder: Path) -> bool:
    """Return whether a folder has names of the Montgomery set."""
    return bool(_names("montgomery", folder))


def is_shenzhen(folder: Path) -> bool:
    """Return whether a folder has names of the Shenzhen set."""
    return bool(_names("shenzhen", folder))


def _names(dataset: str, root: Path) -> list[str]:
    """Return the names of the images and texts of a set, without their suffixes."""
    name = re.compile(rf"{_PREFIXES[dataset]}_\d+_[01]")
    files = [*root.glob(f"{_IMAGES}/*.png"), *root.glob(f"{_READINGS}/*.txt")]
    return sorted({file.stem for file in files if name.fullmatch(file.stem)})


def _list(dataset: str, root: Path) -> Listing:
    import pandas as pd

    names = _names(dataset, root)
    if not names:
        raise DatasetError(
            f"no {_IMAGES}/{_PREFIXES[dataset]}_*.png, and no {_READINGS}/*.txt, in {root}: give "
            "the folder that holds them"
        )
    rows = []
    for name in names:
        sex, age = _read(root / _READINGS / f"{name}.txt")
        rows.append((name, f"{dataset} {name.split('_')[1]}", sex, age))
    images = pd.DataFrame(rows, columns=["id", "patient", "sex", "age"], dtype=str)
    return Listing(
        files=[root / _IMAGES],
        images=images,
        paths=[f"{_IMAGES}/" + images["id"] + ".png"],
        cells=np.array([[name.endswith("_1")] for name in names], dtype=np.int8),
        label_names=("Tuberculosis",),
    )


def _read(file: Path) -> tuple[str, str]:
    """Return the sex and age of a text, "" where it states none or is missing."""
    try:
        text = read_text(file, encoding="latin-1")
    except FileNotFoundError:
        return "", ""
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} cannot be read as text: {error}") from error
    sex, age = _SEX.search(text), _AGE.search(text)
    return (sex[1][0].upper() if sex else ""), (f"{age[1]} {age[2]}" if age else "")
