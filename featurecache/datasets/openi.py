"""Open-I (Indiana University): 7,470 images of 3,955 reports, with MeSH headings.

Demner-Fushman et al., "Preparing a collection of radiology examinations" (JAMIA 2016). The official
files are ``ecgen-radiology/*.xml`` and the images, PNG; Kaggle has ``indiana_reports.csv`` and
``indiana_projections.csv`` instead.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.release import Listing, find_table, read_table
from featurecache.errors import DatasetError
from featurecache.label_cells import BLANK
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

_XML: Final = "ecgen-radiology"
_REPORTS: Final = "indiana_reports.csv"
_PROJECTIONS: Final = "indiana_projections.csv"
_HEADERS: Final = "nlmcxr_dicom_metadata.csv"
_NOT_INDEXED: Final = "No Indexing"
_NUMBER: Final = r"(?:CXR)?(\d+)(?:_\d+)?(_IM-[\d-]+)"
"""The name of an image, with the number of its report; some have a second number."""


def list_openi(root: Path) -> Listing:
    """List the images of Open-I.

    Args:
        root: Folder with ``ecgen-radiology/*.xml`` and the images beside it, in ``images/`` or in
            ``NLMCXR_png/``; or Kaggle's, with ``indiana_reports.csv``,
            ``indiana_projections.csv`` and ``images/images_normalized/``. Views are in the latter,
            or in ``nlmcxr_dicom_metadata.csv``, if that is there.

    Returns:
        The images. Labels are MeSH headings, such as ``Cardiomegaly`` of
        ``Cardiomegaly/mild``, and ``normal``; they are blank where a report was not indexed. Each
        report is one patient and one study.

    Raises:
        DatasetError: If there are no reports, or one cannot be read.
    """
    notes: list[str] = []
    if reports := find_table(root, _REPORTS):
        file = reports
        images, headings = _read_kaggle(root, reports, notes)
    else:
        file = root / _XML
        images, headings = _read_xml(file, notes)
    label_names, cells = _cells(images["patient"].map(headings))
    if headers := find_table(root, _HEADERS):
        table = read_table(headers, ["imageid", "View Position"], notes)
        views = dict(table.to_numpy().tolist())
        name = images["name"].str.replace(_NUMBER, r"CXR\1\2", regex=True)
        view = images["name"].map(views).fillna(name.map(views)).fillna("")
        stated = images.get("view", "")  # in Kaggle's table
        images["view"] = view.replace("LARGE LATERAL", "LATERAL").where(view != "", stated)
    return Listing(
        files=[file],
        images=images.drop(columns="name").assign(study=images["patient"]),
        paths=[
            folder + images["name"] + ".png"
            for folder in ("images/images_normalized/", "images/", "NLMCXR_png/", "")
        ],
        cells=cells,
        label_names=label_names,
        notes=notes,
    )


def is_openi(folder: Path) -> bool:
    """Return whether a folder has the reports of Open-I."""
    return (folder / _XML).is_dir() or find_table(folder, _PROJECTIONS) is not None


def _read_kaggle(
    root: Path, reports: Path, notes: list[str]
) -> "tuple[pd.DataFrame, dict[str, list[str]]]":
    projections = find_table(root, _PROJECTIONS)
    if projections is None:
        raise DatasetError(f"no {_PROJECTIONS} in {root}: it lists the images of {_REPORTS}")
    table = read_table(projections, ["uid", "filename", "projection"], notes)
    images = table.assign(
        name=table["filename"].str.removesuffix(".png"),
        view=table["projection"].str.upper(),
    )
    images["id"] = images["name"].str.removesuffix(".dcm")
    images = images.rename(columns={"uid": "patient"})[["id", "name", "patient", "view"]]
    stated = read_table(reports, ["uid", "MeSH"], notes)
    return images, {uid: mesh.split(";") for uid, mesh in stated.to_numpy().tolist()}


def _read_xml(folder: Path, notes: list[str]) -> "tuple[pd.DataFrame, dict[str, list[str]]]":
    import pandas as pd

    files = sorted(folder.glob("*.xml"))
    if not files:
        raise DatasetError(f"no {_REPORTS}, and no .xml in {folder}: unpack the reports there")
    rows: list[tuple[str, str]] = []
    headings: dict[str, list[str]] = {}
    without = 0
    for file in files:
        try:
            report = ElementTree.parse(file)
        except (OSError, ElementTree.ParseError) as error:
            raise DatasetError(f"{file} cannot be read as XML: {error}") from error
        number = file.stem
        headings[number] = [major.text or "" for major in report.iterfind("MeSH/major")]
        names = [image.get("id", "") for image in report.iterfind("parentImage")]
        without += not names
        rows += [(name, number) for name in names]
    if without:
        notes.append(f"{count_noun(without, 'report has', 'reports have')} no image.")
    images = pd.DataFrame(rows, columns=["name", "patient"], dtype=str)
    return images.assign(id=images["name"]), headings


def _cells(headings: "Iterable[list[str]]") -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """Return the C headings without their qualifiers, sorted, and (N, C) cells."""
    stated = [{heading.partition("/")[0].strip() for heading in found} - {""} for found in headings]
    names = sorted(set().union(*stated) - {_NOT_INDEXED})
    cells = np.array([[name in found for name in names] for found in stated], dtype=np.int8)
    not_indexed = [not found or _NOT_INDEXED in found for found in stated]
    cells[np.array(not_indexed)[:, None] & (cells == 0)] = BLANK
    return tuple(names), cells
