"""The 14 findings of ChestX-ray14, and how each one is drawn."""

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

Reshape = Callable[[Anatomy, float], Anatomy]
"""Changes how the patient is built, given a severity in (0, 1]."""

Paint = Callable[[Chest, float, np.random.Generator], None]
"""Changes the layers of a chest, given a severity in (0, 1] and the finding's own stream."""

RESHAPING: Mapping[str, Reshape] = MappingProxyType(
    {"Cardiomegaly": cardiomegaly, "Emphysema": emphysema}
)

PAINTED: Mapping[str, Paint] = MappingProxyType(
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
        # The pleura last: fluid lies over what is in the lung, and air pushes it aside.
        "Pneumothorax": pneumothorax,
        "Pleural_Thickening": pleural_thickening,
        "Effusion": effusion,
    }
)
