"""Patients that no table or folder states: those of DICOM headers, or one for each image."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from featurecache.datasets.cell_values import is_blank, read_ages, read_sexes, read_views
from featurecache.datasets.dataset import UNKNOWN_PATIENTS
from featurecache.datasets.scan import DICOM_SUFFIXES, IMAGE_SUFFIXES
from featurecache.errors import DatasetError
from featurecache.images.dicom_header import read_header
from featurecache.progress import Progress
from featurecache.provenance.names import patient_key
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

_KEYWORDS: Final = {
    "patient": "PatientID",
    "study": "StudyInstanceUID",
    "view": "ViewPosition",
    "sex": "PatientSex",
    "age": "PatientAge",
}
"""The DICOM attribute of each column."""

_READERS: Final = {"view": read_views, "sex": read_sexes, "age": read_ages}

_PLACEHOLDERS: Final = frozenset(
    {"0", "anon", "anonym", "anonymous", "anonymized", "anonymised", "anonymisiert"}
    | {"deidentified", "de-identified", "removed", "xxx", "xxxx"}
)
"""What anonymization writes in place of a PatientID, as ``patient_key``."""

_HASH_DIGITS: Final = 16
_THREADS: Final = 8
_MANY: Final = 1000
"""Files from which progress is reported: fewer are read in a second."""


def read_dicom_headers(
    images: "pd.DataFrame", root: Path, progress: Progress | None = None
) -> "tuple[pd.DataFrame, list[str]]":
    """Add patients, studies, views, sexes and ages from the headers of DICOM files.

    Nothing is added unless all images are DICOM files. Patients and studies become hashes: they
    tell which images belong together, and no identifier of a header is passed on.

    Args:
        images: N rows with the column ``path``, without ``patient``. Columns that it has are kept.
        root: Folder that the paths are relative to.
        progress: Called with the number of files read and their total, if there are many.

    Returns:
        The table, with ``patient`` and ``study`` "" where unknown, and without columns of which no
        value is known; and notes.
    """
    import pandas as pd

    suffixes = [Path(path).suffix.lower() for path in images["path"]]
    n_dicom = sum(suffix in DICOM_SUFFIXES for suffix in suffixes)
    if not IMAGE_SUFFIXES.difference(DICOM_SUFFIXES).isdisjoint(suffixes):
        if not n_dicom:
            return images, []
        return images, [
            f"{n_dicom:,} of {count_noun(len(images), 'image')} are DICOM files. Their PatientID "
            "is not used, because the other images state no patient."
        ]
    headers = _read_all([root / path for path in images["path"]], progress)
    if headers is None:
        return images, []
    table = pd.DataFrame(headers, index=images.index, dtype=str)
    table = table.rename(columns={keyword: role for role, keyword in _KEYWORDS.items()})
    notes = []
    patients = table["patient"].map(patient_key).astype(str)
    unknown = is_blank(patients) | patients.isin(list(_PLACEHOLDERS))
    if len(patients) > 1 and not unknown.any() and patients.nunique() == 1:
        notes.append(
            f"All {len(patients):,} DICOM files have one PatientID, as anonymization leaves it, so "
            "it is not used."
        )
        unknown[:] = True
    elif not unknown.all():
        notes.append(
            "Patients are read from the DICOM headers (PatientID): "
            f"{count_noun(patients[~unknown].nunique(), 'patient')}. Only a hash of each PatientID "
            "is kept, but a short number can be guessed from its hash: to prevent that, give "
            "`pseudonymize`."
        )
    table["patient"] = patients.map(partial(_hash, "patient")).where(~unknown, "")
    table["study"] = (
        table["study"].map(partial(_hash, "study")).where(~is_blank(table["study"]), "")
    )
    notes += _drop_studies_of_several_patients(table)
    for role, read in _READERS.items():
        try:
            table[role], role_notes = read(table[role].rename(_KEYWORDS[role]))
        except DatasetError:
            table[role] = ""
            role_notes = [f"No {_KEYWORDS[role]} in the DICOM headers is valid: it is not used."]
        notes += role_notes if role not in images else []
    added = [role for role in _KEYWORDS if role not in images and (table[role] != "").any()]
    if others := [role for role in added if role != "patient"]:
        notes.append(f"Also read from the DICOM headers: {', '.join(others)}.")
    return images.assign(**{role: table[role] for role in added}), notes


def fill_patients(images: "pd.DataFrame") -> list[str]:
    """Make each study, or image, without a patient its own patient.

    An image without a patient has that of its study, if another image of it has one.

    Args:
        images: Rows with ``id`` and, where stated, ``patient`` and ``study``, which are "" where
            unknown. The column ``patient`` is filled in place.

    Returns:
        Notes.
    """
    if "patient" not in images:
        images["patient"] = ""
    if "study" in images:
        known = images["patient"].where((images["patient"] != "") & (images["study"] != ""))
        of_study = known.groupby(images["study"]).transform("first")
        images["patient"] = images["patient"].where(images["patient"] != "", of_study.fillna(""))
    unknown = images["patient"] == ""
    if not unknown.any():
        return []
    # No patient of another row may have these names.
    own = "unknown patient of " + images["id"]
    if "study" in images:
        own = own.where(images["study"] == "", "unknown patient of study " + images["study"])
    elif unknown.all():
        images["patient"] = images["id"]
        return [UNKNOWN_PATIENTS]
    images["patient"] = images["patient"].where(~unknown, own)
    each = "each of their studies" if "study" in images else "each"
    return [
        f"{count_noun(int(unknown.sum()), 'image has', 'images have')} no patient, and "
        f"{each} counts as a patient of its own."
    ]


def _read_all(files: Sequence[Path], progress: Progress | None) -> list[Mapping[str, str]] | None:
    """Return the attributes of each file; None if one is not DICOM, or pydicom is missing."""
    if find_spec("pydicom") is None:
        return None
    headers: list[Mapping[str, str]] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for header in pool.map(partial(read_header, keywords=tuple(_KEYWORDS.values())), files):
            if header is None:
                pool.shutdown(wait=False, cancel_futures=True)
                return None
            headers.append(header)
            if progress is not None and len(files) >= _MANY:
                progress(len(headers), len(files))
    return headers


def _hash(kind: str, name: str) -> str:
    return hashlib.sha256(f"{kind} {name}".encode()).hexdigest()[:_HASH_DIGITS]


def _drop_studies_of_several_patients(table: "pd.DataFrame") -> list[str]:
    """Make studies with several patients unknown, in place, and return notes."""
    known = table[(table["patient"] != "") & (table["study"] != "")]
    n_patients = known.groupby("study")["patient"].nunique()
    contradictory = n_patients.index[n_patients > 1]
    table.loc[table["study"].isin(contradictory), "study"] = ""
    if contradictory.empty:
        return []
    return [
        f"{count_noun(len(contradictory), 'study has', 'studies have')} more than one PatientID in "
        "the DICOM headers, and count as unknown."
    ]
