"""A data set of your own: images named <patient>_<number>_<sick or healthy>.png in a folder."""

from pathlib import Path

import pandas as pd

import featurecache as fc
from featurecache.datasets.splits import patient_split


def load_ward(root: Path, *, seed: int = 0) -> fc.Dataset:
    names = sorted(path.name for path in root.glob("*.png"))
    patients = [name.split("_")[0] for name in names]
    labels = pd.DataFrame({"Sick": [int(name.endswith("_sick.png")) for name in names]})
    split = patient_split(patients, labels.to_numpy(dtype="int8"), seed=seed)
    images = pd.DataFrame(
        {"id": names, "path": names, "patient": patients, "split": split}, dtype=str
    )
    notes = ["Labels are those of the file names."]
    return fc.Dataset(name="ward", root=root, images=images, labels=labels, notes=notes)


fc.register_dataset("ward", load_ward, description="chest X-rays of our ward")
