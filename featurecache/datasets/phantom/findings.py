"""The 14 findings of ChestX-ray14 and the function that adds each one."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from featurecache.datasets.phantom import airspace, organs, pleura
from featurecache.datasets.phantom.anatomy import Anatomy
from featurecache.datasets.phantom.chest import Chest

ChangeAnatomy = Callable[[Anatomy, float], Anatomy]
"""Changes the anatomy, given a severity in (0, 1]."""

ChangeLayers = Callable[[Chest, float, np.random.Generator], None]
"""Changes the layers of a chest, given a severity in (0, 1] and a generator for the finding."""

HEART_FINDING: Final = "Cardiomegaly"

ANATOMY_FINDINGS: Mapping[str, ChangeAnatomy] = MappingProxyType(
    {HEART_FINDING: organs.cardiomegaly, "Emphysema": organs.emphysema}
)

LAYER_FINDINGS: Mapping[str, ChangeLayers] = MappingProxyType(
    {
        "Atelectasis": airspace.atelectasis,
        "Consolidation": airspace.consolidation,
        "Edema": airspace.edema,
        "Fibrosis": airspace.fibrosis,
        "Hernia": organs.hernia,
        "Infiltration": airspace.infiltration,
        "Mass": airspace.mass,
        "Nodule": airspace.nodule,
        "Pneumonia": airspace.pneumonia,
        # Pleural findings last: fluid covers what is in the lung, and air displaces it.
        "Pneumothorax": pleura.pneumothorax,
        "Pleural_Thickening": pleura.pleural_thickening,
        "Effusion": pleura.effusion,
    }
)
