"""Patients from the headers of DICOM files, against the headers that the tests write."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

import featurecache as fc
from featurecache.datasets.dataset import Dataset
from featurecache.errors import DatasetError
from tests.images.test_dicom import data_set, dicom_file

STORED = np.zeros((16, 16), dtype=np.uint16)


def write(root: Path, headers: Mapping[str, Mapping[str, str]]) -> Path:
    """Write a DICOM file of each name with these attributes."""
    for name, attributes in headers.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(dicom_file(STORED, **attributes))
    return root


def of_patients(*patients: str, **attributes: str) -> dict[str, dict[str, str]]:
    return {
        f"{number}.dcm": {"PatientID": patient, **attributes}
        for number, patient in enumerate(patients)
    }


def groups(dataset: Dataset) -> list[int]:
    """Number the patients of the images in order of appearance."""
    patients = dataset.images["patient"].tolist()
    firsts = list(dict.fromkeys(patients))
    return [firsts.index(patient) for patient in patients]


UNKNOWN = "Patients are unknown"


@pytest.mark.parametrize(
    ("patients", "expected", "note"),
    [
        (["P7", "P8", "P7"], [0, 1, 0], "(PatientID): 2 patients. Only a hash"),
        (["007", "7", "8"], [0, 0, 1], ": 2 patients."),
        (["P7", "", "P7", "Anonymous"], [0, 1, 0, 2], "2 images have no patient, and each counts"),
        (
            ["P7", "P7", "P7"],
            [0, 1, 2],
            f"have one PatientID, as anonymization leaves it.*{UNKNOWN}",
        ),
        (["", "", "ANON"], [0, 1, 2], UNKNOWN),
    ],
)
def test_patients_are_those_of_the_headers(
    tmp_path: Path, patients: list[str], expected: list[int], note: str
) -> None:
    dataset = fc.load_dataset("images", write(tmp_path, of_patients(*patients)))
    assert groups(dataset) == expected
    notes = " ".join(dataset.notes)
    assert re.search(note if ".*" in note else re.escape(note), notes)
    assert not re.search("P7|P8", notes + dataset.images.to_csv())


def test_images_of_a_patient_are_in_one_split(tmp_path: Path) -> None:
    root = write(tmp_path, of_patients(*[f"P{number // 2}" for number in range(20)]))
    images = fc.load_dataset(root).images
    assert images["patient"].nunique() == 10
    assert (images.groupby("patient")["split"].nunique() == 1).all()
    assert images["split"].nunique() == 3
    unknown = fc.load_dataset("images", root, patient_level=0)
    assert not unknown.patients_known


def test_other_attributes_and_studies(tmp_path: Path) -> None:
    common = {"ViewPosition": "PA", "PatientSex": "F", "PatientAge": "018M"}
    files = of_patients("P1", "", "", "P2", **common)
    for name, study in zip(files, ["1.2.1", "1.2.1", "1.2.3", "1.2.4"], strict=True):
        files[name]["StudyInstanceUID"] = study
    dataset = fc.load_dataset("images", write(tmp_path, files))
    assert groups(dataset) == [0, 0, 1, 2]  # the second image has the patient of its study
    assert dataset.images["study"].nunique() == 3
    assert "1.2.1" not in dataset.images.to_csv()
    assert dataset.images[["view", "sex", "age"]].iloc[0].tolist() == ["PA", "F", "1.5"]
    assert "Also read from the DICOM headers: study, view, sex, age." in dataset.notes


def test_contradictory_or_invalid_headers(tmp_path: Path) -> None:
    files = of_patients("P1", "P2", "P3", StudyInstanceUID="1.2.3", PatientAge="999Y")
    dataset = fc.load_dataset("images", write(tmp_path, files))
    assert groups(dataset) == [0, 1, 2]
    assert set(dataset.images["study"]) == set(dataset.images["age"]) == {""}
    notes = " ".join(dataset.notes)
    assert "1 study has more than one PatientID" in notes
    assert "No PatientAge in the DICOM headers is valid" in notes


def test_files_that_are_not_all_dicom(tmp_path: Path) -> None:
    write(tmp_path, of_patients("P1", "P1", "P2"))
    (tmp_path / "a.png").touch()
    dataset = fc.load_dataset("images", tmp_path)
    assert not dataset.patients_known
    assert "3 of 4 images are DICOM files. Their PatientID is not used" in " ".join(dataset.notes)
    (tmp_path / "a.png").rename(tmp_path / "broken.dcm")
    assert groups(fc.load_dataset("images", tmp_path)) == [0, 0, 1, 2]


def test_deflated_files_and_files_without_suffix(tmp_path: Path) -> None:
    for number, patient in enumerate(["P1", "P1", "P2"]):
        file = data_set(STORED, PatientID=patient)
        file.file_meta = FileMetaDataset()
        file.file_meta.MediaStorageSOPClassUID = file.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        file.save_as(tmp_path / f"IM{number}", enforce_file_format=True)
    assert groups(fc.load_dataset("images", tmp_path)) == [0, 0, 1]


def test_classes_and_their_folders(tmp_path: Path) -> None:
    files = [f"{name}/{folder}/a.dcm" for name in ("ill", "well") for folder in "xy"]
    headers = zip(files, ["P1", "P2", "P3", "P3"], strict=True)
    root = write(tmp_path, {file: {"PatientID": patient} for file, patient in headers})
    assert groups(fc.load_dataset("folder", root)) == [0, 1, 2, 2]
    write(tmp_path, {file: {"PatientID": "ANON"} for file in files})
    assert fc.load_dataset("folder", root).images["patient"].tolist() == ["x", "y", "x", "y"]


def test_tables_of_dicom_files(tmp_path: Path) -> None:
    files = of_patients("P1", "P1", "P2", ViewPosition="AP")
    rows = "".join(f"{name};PA;w{number}\n" for number, name in enumerate(files))
    write(tmp_path, files)
    table = tmp_path / "t.csv"
    table.write_text("path;projection;ward\n" + rows)
    dataset = fc.load_dataset(table, view="projection")
    assert groups(dataset) == [0, 0, 1]
    assert dataset.images["view"].tolist() == ["PA"] * 3  # the table comes first
    assert groups(fc.load_dataset(table, patient="ward")) == [0, 1, 2]
    assert not fc.load_dataset(table, require_images=False).patients_known


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, {"train/a.dcm": {"PatientID": "P1"}, "test/a.dcm": {"PatientID": "P1"},
                            "test/b.dcm": {"PatientID": "P2"}})  # fmt: skip
    with pytest.raises(DatasetError, match="is in two splits") as raised:
        fc.load_dataset("images", root)
    assert "P1" not in str(raised.value)
    assert not fc.load_dataset("images", root, patient_level=0).patients_known


def test_progress_of_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurecache.datasets.patients._MANY", 3)
    calls: list[tuple[int, int]] = []
    root = write(tmp_path, of_patients("P1", "P1", "P2"))
    fc.load_dataset("images", root, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
