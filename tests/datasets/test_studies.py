"""Studies: the examinations that images belong to."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import featurecache as fc
from featurecache.datasets.csv import load_csv
from featurecache.datasets.pseudonymize import IdKey
from featurecache.errors import DatasetError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of five images: two studies of one patient, and one without a study."""
    lines = ["path,who,exam,Mass", "1.png,ann,a1,1", "2.png,ann, a1,0", "3.png,ann,a2,1"]
    lines += ["4.png,bob,b1,0", "5.png,bob,,0"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    for number in range(1, 6):
        (tmp_path / f"{number}.png").touch()
    return tmp_path / "t.csv"


def test_column_of_studies_is_read(table: Path) -> None:
    dataset = load_csv(table, patient="who", study="exam", labels="Mass")
    assert dataset.images["study"].tolist() == ["a1", "a1", "a2", "b1", ""]
    assert load_csv(table, patient="who").images["study"].tolist() == [""] * 5


def test_study_without_a_patient_is_its_own(table: Path) -> None:
    dataset = load_csv(table, study="exam", labels="Mass")
    of = dataset.images["patient"].tolist()
    assert of[0] == of[1]
    assert len(set(of)) == 4
    assert dataset.images["split"][0] == dataset.images["split"][1]
    note = "5 images have no patient, and each of their studies counts as a patient of its own."
    assert note in dataset.notes


def test_study_of_two_patients_is_refused(table: Path) -> None:
    table.write_text(table.read_text().replace("b1", "a1"))
    message = r"study 'a1' of image '4.png' \(line 5\) has two patients, 'ann' and 'bob'"
    with pytest.raises(DatasetError, match=message):
        load_csv(table, patient="who", study="exam", labels="Mass")


def test_rows_of_an_image_in_two_studies_are_refused(table: Path) -> None:
    table.write_text(table.read_text() + "\n4.png,bob,b2,0")
    with pytest.raises(DatasetError, match=r"lines 5 and 7: .* differ in the study"):
        load_csv(table, patient="who", study="exam", labels="Mass")


def test_studies_are_pseudonymized() -> None:
    ids = ["a", "b", "c", "d"]
    images = pd.DataFrame({"id": ids, "path": ids, "patient": "p", "split": "test"}, dtype=str)
    images["study"] = ["s1", "s1", "s2", ""]
    dataset = fc.Dataset(name="ward", root="x", images=images, labels=None)
    hashed = dataset.pseudonymize(IdKey(b"0123456789abcdef")).images
    studies = hashed.set_index("path")["study"]
    assert studies["a"] == studies["b"] != studies["c"]
    assert studies["d"] == ""
    assert studies["a"] not in ("s1", *hashed["id"], *hashed["patient"])
    assert np.unique(studies.str.len()).tolist() == [0, 32]
