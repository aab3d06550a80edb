"""A data set of one's own: films named <patient>_<number>_<well or ill>.png in one folder."""

from pathlib import Path

import numpy as np
import pandas as pd

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.splits import patient_split


def load_ward(root: Path, *, seed: int = 0) -> Dataset:
    names = sorted(path.name for path in root.glob("*.png"))
    patients = [name.split("_")[0] for name in names]
    ill = np.array([[name.endswith("_ill.png")] for name in names]).astype(np.int8)
    return Dataset(
        name="ward",
        root=root,
        images=pd.DataFrame(
            {
                "id": names,
                "path": names,
                "patient": patients,
                "split": patient_split(patients, ill, seed=seed),
                "view": "",
            },
            dtype=str,
        ),
        labels=ill,
        label_names=("Ill",),
        notes=("Labels are those of the file names.",),
    )
