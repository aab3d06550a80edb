"""COVIDx: chest X-rays from several sources, COVID-19 or not.

Wang, Lin and Wong, "COVID-Net" (Scientific Reports 2020). Lists such as ``train_COVIDx9A.txt`` and
``test_COVIDx9A.txt``, or ``train.txt``, ``val.txt`` and ``test.txt``, have one line for each image,
``patientid filename class source``; images are in ``train/``, ``val/`` and ``test/``.
"""

import re
from pathlib import Path
from typing import Final

from featurecache.datasets.label_strings import class_matrix
from featurecache.datasets.release import Listing
from featurecache.errors import DatasetError
from featurecache.io.text import read_text

_LIST: Final = re.compile(r"(train|val|test)(?:_COVIDx.*|_COVID-x.*)?\.txt", re.IGNORECASE)


def list_covidx(root: Path) -> Listing:
    """List the images of COVIDx.

    Args:
        root: Folder with one list for each split, and their images in ``train/`` and so on.

    Returns:
        The images, with one label for each class.

    Raises:
        DatasetError: If there is no list, none with an image, or several of one split, or a line
            has fewer than four words.
    """
    import pandas as pd

    lists = _lists(root)
    if not lists:
        raise DatasetError(f"no train_COVIDx*.txt, train.txt or test.txt in {root}")
    rows: list[tuple[str, str, str, str]] = []
    for folder, files in lists.items():
        if len(files) > 1:
            raise DatasetError(f"{root} has {' and '.join(files)}: keep one list for each split")
        try:
            lines = read_text(root / files[0]).splitlines()
        except (OSError, ValueError) as error:
            raise DatasetError(f"{root / files[0]} cannot be read as text: {error}") from error
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if words and len(words) < 4:
                raise DatasetError(
                    f"{root / files[0]}, line {number}: {line!r} is not 'patientid filename class "
                    "source'"
                )
            if words:
                # Numbers of patients may contain blanks.
                *patient, name, found, _ = words
                rows.append((f"{folder}/{name}", " ".join(patient), found, folder))
    if not rows:
        names = " and ".join(name for files in lists.values() for name in files)
        raise DatasetError(f"{names} in {root} list no image: copy them again from the release")
    images = pd.DataFrame(rows, columns=["id", "patient", "class", "split"], dtype=str)
    label_names, cells, notes = class_matrix(images["class"], file=root / "COVIDx")
    return Listing(
        files=[root / name for names in lists.values() for name in names],
        images=images.drop(columns="class"),
        paths=[images["id"]],
        cells=cells,
        label_names=label_names,
        split_file="test_COVIDx9A.txt",
        notes=notes,
    )


def is_covidx(folder: Path) -> bool:
    """Return whether a folder has lists that are named like those of COVIDx."""
    return any("covid" in name.lower() for names in _lists(folder).values() for name in names)


def _lists(root: Path) -> dict[str, list[str]]:
    """Return the lists of each split."""
    lists: dict[str, list[str]] = {}
    for name in sorted(file.name for file in root.glob("*.txt")):
        if match := _LIST.fullmatch(name):
            lists.setdefault(match[1].lower(), []).append(name)
    return lists
