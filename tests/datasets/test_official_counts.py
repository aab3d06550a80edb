"""Labels of official tables, counted independently of this library.

The tables are those that the wheel of torchxrayvision carries; ``make reference`` downloads it.
"""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import featurecache as fc

Describe = Callable[..., dict[str, Any]]


@pytest.fixture
def describe(tmp_path: Path) -> Describe:
    """Return a function that describes the data set of some files of the wheel."""
    folder = os.environ.get("FEATURECACHE_REFERENCE", "")
    wheels = sorted(Path(folder).glob("torchxrayvision-1.5.7-*.whl")) if folder else []
    if not wheels:
        pytest.skip("no official tables: run make reference, and set FEATURECACHE_REFERENCE")

    def describe(name: str, files: dict[str, str], **options: Any) -> dict[str, Any]:
        with zipfile.ZipFile(wheels[0]) as wheel:
            for member, file in files.items():
                content = wheel.read(f"torchxrayvision/data/{member}")
                (tmp_path / file).write_bytes(content)
        return fc.load_dataset(name, tmp_path, require_images=False, **options).describe()

    return describe


def test_chexpert(describe: Describe) -> None:
    found = describe("chexpert", {"chexpert_train.csv.gz": "train.csv.gz"})
    assert (found["images"], found["patients"], found["studies"]) == (223_414, 64_540, 187_641)
    views = {"AP": 161_590, "PA": 29_420, "LL": 16, "RL": 1, "LATERAL": 32_387}
    assert found["views"] == views
    cells = {
        "Atelectasis": (33_376, 1_328, 33_739, 154_971),
        "Cardiomegaly": (27_000, 11_116, 8_087, 177_211),
        "Consolidation": (14_783, 28_097, 27_742, 152_792),
        "Edema": (52_246, 20_726, 12_984, 137_458),
        "Pleural Effusion": (86_187, 35_396, 11_628, 90_203),
        "Pneumonia": (6_039, 2_799, 18_770, 195_806),
        "No Finding": (22_381, 0, 0, 201_033),
    }
    assert {name: tuple(found["labels"][name].values()) for name in cells} == cells


def test_padchest(describe: Describe) -> None:
    table = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    found = describe("padchest", {table: table})
    assert (found["images"], found["patients"]) == (160_861, 67_625)
    assert any("39,053 images are by physicians, those of 121,808" in n for n in found["notes"])
    views = {"PA": 91_728, "LATERAL": 49_579, "AP": 14_346 + 4_559, "COSTAL": 630}
    assert found["views"] == {**views, "EXCLUDE": 11, "unknown": 8}
    assert len(found["labels"]) == 193
    positives = {
        **{"atelectasis": 2_905, "laminar atelectasis": 5_190, "cardiomegaly": 15_022},
        **{"consolidation": 2_497, "air bronchogram": 197, "pulmonary edema": 1_456},
        **{"pleural effusion": 9_853, "pericardial effusion": 79, "emphysema": 1_538},
        **{"subcutaneous emphysema": 213, "pulmonary fibrosis": 1_228, "hiatal hernia": 2_363},
        **{"infiltrates": 7_089, "pulmonary mass": 1_039, "mass": 56, "nodule": 3_748},
        **{"multiple nodules": 358, "pseudonodule": 2_241, "pneumonia": 7_953},
        **{"pneumothorax": 533, "NSG tube": 5_390, "normal": 50_616, "exclude": 1_312},
    }
    assert {name: found["labels"][name]["positive"] for name in positives} == positives
