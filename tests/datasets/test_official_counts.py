"""Labels of official tables, counted independently of this library.

The tables are those that the wheel of torchxrayvision carries; ``make reference`` downloads it.
"""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import featurecache as fc

Load = Callable[..., fc.Dataset]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return a function that loads the data set of some files of the wheel."""
    folder = os.environ.get("FEATURECACHE_REFERENCE", "")
    wheels = sorted(Path(folder).glob("torchxrayvision-1.5.7-*.whl")) if folder else []
    if not wheels:
        pytest.skip("no official tables: run make reference, and set FEATURECACHE_REFERENCE")

    def load(name: str, files: dict[str, str]) -> fc.Dataset:
        with zipfile.ZipFile(wheels[0]) as wheel:
            for member, file in files.items():
                content = wheel.read(f"torchxrayvision/data/{member}")
                if member.endswith(".zip"):
                    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path)
                elif member.endswith(".tgz"):
                    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                        archive.extractall(tmp_path, filter="data")
                else:
                    (tmp_path / file).write_bytes(content)
        return fc.load_dataset(name, tmp_path, require_images=False)

    return load


def test_nih(load: Load) -> None:
    name, boxes = "Data_Entry_2017_v2020.csv.gz", "BBox_List_2017.csv.gz"
    found = load("nih", {name: name, boxes: boxes}).describe()
    assert (found["images"], found["patients"]) == (112_120, 30_805)
    numbers = {
        **{"Atelectasis": 180, "Cardiomegaly": 146, "Effusion": 153, "Infiltration": 123},
        **{"Mass": 85, "Nodule": 79, "Pneumonia": 120, "Pneumothorax": 98},
    }
    assert found["boxes"] == {"boxes": 984, "images": 880, "labels": numbers}


def test_nih_google(load: Load) -> None:
    table = "google2019_nih-chest-xray-labels.csv.gz"
    found = load("nih-google", {table: table}).describe()
    assert (found["images"], found["patients"]) == (4_376, 860 + 835)
    assert found["splits"] == {"val": 2_414, "test": 1_962}
    positives = {"Fracture": 186, "Pneumothorax": 238, "Airspace opacity": 2_166}
    assert {name: found["labels"][name]["positive"] for name in positives} == positives
    assert found["labels"]["Nodule or mass"]["positive"] == 605


def test_chexpert(load: Load) -> None:
    found = load("chexpert", {"chexpert_train.csv.gz": "train.csv.gz"}).describe()
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


def test_padchest(load: Load) -> None:
    table = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    found = load("padchest", {table: table}).describe()
    assert (found["images"], found["patients"]) == (160_861, 67_625)
    note = "The labels of 39,053 images are by physicians, those of 121,808 by a model."
    assert note in found["notes"]
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


def test_vindr_cxr(load: Load) -> None:
    data = load("vindr-cxr", {"vinbigdata-train.csv.gz": "train.csv.gz"})
    for readers, positives in (
        ("any", {"Cardiomegaly": 2_300, "Pneumothorax": 96, "Atelectasis": 186}),
        ("2", {"Cardiomegaly": 1_817, "Pneumothorax": 58, "Atelectasis": 62, "No finding": 10_606}),
    ):
        found = data.with_policy(fc.LabelPolicy(readers=readers)).counts()["all"]
        assert (found["images"], len(found)) == (15_000, 2 + 15)
        assert {name: found[name] for name in positives} == positives
    description = data.describe()
    assert description["patients"] is None
    boxes = description["boxes"]
    assert (boxes["boxes"], boxes["images"], boxes["labels"]["Atelectasis"]) == (36_096, 4_394, 279)


def test_rsna(load: Load) -> None:
    headers = "kaggle_stage_2_train_images_dicom_headers.csv.gz"
    found = load("rsna", {"kaggle_stage_2_train_labels.csv.zip": "", headers: headers}).describe()
    assert found["images"] == 26_684
    assert found["boxes"] == {"boxes": 9_555, "images": 6_012, "labels": {"Target": 9_555}}
    assert found["views"] == {"PA": 14_511, "AP": 12_173}
    assert found["labels"]["Target"]["positive"] == 6_012


def test_siim_acr(load: Load) -> None:
    found = load("siim-acr", {"siim-pneumothorax-train-rle.csv.gz": "train-rle.csv.gz"}).describe()
    assert found["images"] == 12_047
    assert found["labels"]["Pneumothorax"]["positive"] == 2_669


def test_openi(load: Load) -> None:
    headers = "nlmcxr_dicom_metadata.csv.gz"
    found = load("openi", {"NLMCXR_reports.tgz": "", headers: headers}).describe()
    # Of 3,955 reports, 104 have no image; one image has no row of headers.
    assert (found["images"], found["studies"]) == (7_470, 3_955 - 104)
    views = {"PA": 3_593, "AP": 423, "LL": 717, "RL": 29, "LATERAL": 119 + 2, "unknown": 2_587}
    assert found["views"] == views
