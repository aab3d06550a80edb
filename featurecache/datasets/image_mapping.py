"""Files that state which images of another collection those of a release are."""

from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.datasets.json_records import read_records
from featurecache.errors import DatasetError
from featurecache.provenance.names import MAPPING_FILES

if TYPE_CHECKING:
    import pandas as pd


def names_in_nih(folder: Path, ids: "pd.Series[str]") -> "pd.Series[str] | None":
    """Return the names in ChestX-ray14 of images of the RSNA challenge.

    Args:
        folder: Folder of the challenge.
        ids: What the challenge calls ``patientId``.

    Returns:
        The names; None if the folder has no mapping.

    Raises:
        DatasetError: The mapping cannot be read, or lacks an image.
    """
    file = folder / MAPPING_FILES["rsna"]
    if not file.is_file():
        return None
    table = read_records(file, ["subset_img_id", "img_id"])
    names = ids.map(dict(table.astype(str).to_numpy().tolist()))
    if (missing := names.isna()).any():
        raise DatasetError(f"{file} has no image {ids[missing].iloc[0]}: download it again")
    return names
