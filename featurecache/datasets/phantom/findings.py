"""The 14 findings of ChestX-ray14 and the function that adds each one."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from featurecache.datasets.phantom.airspace import (
    atelectasis,
    consolidation,
    edema,
    fibrosis,
    infiltration,
    mass,
    nodule,
    pneumonia,
)
from featurecache.datasets.phantom.anatomy import Anatomy
from featurecache.datasets.phantom.chest import Chest
from featurecache.datasets.phantom.organs import cardiomegaly, emphysema, hernia
from featurecache.datasets.phantom.pleura import effusion, pleural_thickening, pneumothorax

ChangeAnatomy = Callable[[Anatomy, float], Anatomy]
"""Changes the anatomy, given a severity in (0, 1]."""

ChangeLayers = Callable[[Chest, float, np.random.Generator], None]
"""Changes the layers of a chest, given a severity in (0, 1] and a generator for the finding."""

ANATOMY_FINDINGS: Mapping[str, ChangeAnatomy] = MappingProxyType(
    {"Cardiomegaly": cardiomegaly, "Emphysema": emphysema}
)

LAYER_FINDINGS: Mapping[str, ChangeLayers] = MappingProxyType(
    {
        "Atelectasis": atelectasis,
        "Consolidation": consolidation,
        "Edema": edema,
        "Fibrosis": fibrosis,
        "Hernia": hernia,
        "Infiltration": infiltration,
        "Mass": mass,
        "Nodule": nodule,
        "Pneumonia": pneumonia,
        # Pleural findings last: fluid covers what is in the lung, and air displaces it.
        "Pneumothorax": pneumothorax,
        "Pleural_Thickening": pleural_thickening,
        "Effusion": effusion,
    }
)
