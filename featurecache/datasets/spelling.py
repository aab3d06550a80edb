"""One spelling for each image id and each patient.

Tables that people and spreadsheets have edited write one patient as "12", "12.0", "0012" or "１２",
which would otherwise count as several patients, in several splits.
"""

import warnings
from collections import defaultdict
from typing import TYPE_CHECKING

from featurecache.errors import FeaturecacheWarning
from featurecache.provenance.names import clean_id, patient_key
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd


def normalize_names(images: "pd.DataFrame") -> "tuple[pd.DataFrame, list[str]]":
    """Return a table of images with one spelling for each id, study and patient.

    Ids are trimmed, brought into Unicode's form NFKC, and lose invisible characters. So do studies
    and patients; if several are then equal up to case, leading zeros and a fraction of zeros, they
    count as one, in the shortest spelling. Patients that are equal to the ids are unknown and stay
    equal to them.

    A ``FeaturecacheWarning`` reports what changed, with an example.

    Args:
        images: A table with text columns ``id``, ``study`` and ``patient``.

    Returns:
        The table, and notes on what changed, without any name.
    """
    ids = images["id"].map(clean_id)
    images = images.assign(study=images["study"].map(clean_id).astype(images["study"].dtype))
    changed_ids = images["id"] != ids
    notes = []
    if changed := int(changed_ids.sum()):
        notes.append(
            f"{count_noun(changed, 'image id was', 'image ids were')} written with spaces, "
            "invisible characters or variants of Unicode characters, which are removed."
        )
        example = images["id"][changed_ids].iloc[0]
        warnings.warn(
            f"{notes[-1].removesuffix('.')}, such as in {example!r}",
            FeaturecacheWarning,
            stacklevel=2,
        )
    if images["patient"].equals(images["id"]):
        return images.assign(id=ids, patient=ids), notes
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for patient in images["patient"].unique().tolist():
        spellings[patient_key(patient)].append(patient)
    chosen = {
        spelling: min(map(clean_id, group), key=lambda name: (len(name), name))
        for group in spellings.values()
        for spelling in group
    }
    if several := [group for group in spellings.values() if len(group) > 1]:
        notes.append(
            f"{count_noun(len(several), 'patient is', 'patients are')} written in several ways "
            "(letter case, leading zeros, decimals, invisible characters or variants of Unicode "
            "characters): each counts as one."
        )
        example = ", ".join(map(repr, several[0]))
        warnings.warn(
            f"{notes[-1].removesuffix('.')}, such as {example}", FeaturecacheWarning, stacklevel=2
        )
    patients = images["patient"].map(chosen).astype(images["patient"].dtype)
    return images.assign(id=ids.astype(images["id"].dtype), patient=patients), notes
