"""One spelling for each image id and each patient."""

import warnings

import numpy as np
import pandas as pd
import pytest

import featurecache as fc
from featurecache.datasets.dataset import Dataset
from featurecache.datasets.pseudonymize import IdKey
from featurecache.datasets.splits import patient_split
from featurecache.errors import DatasetError, FeaturecacheWarning
from featurecache.provenance.names import (
    clean_id,
    is_published,
    may_share_patients,
    patient_key,
)

SPELLINGS = ["12", "12.0", "0012", " 12 ", "１２", "12\u200b", "\ufeff12", "012.00"]


def dataset(ids, patients, split="train", **more) -> Dataset:
    images = pd.DataFrame(
        {"id": ids, "path": [f"{n}.png" for n in range(len(ids))], "patient": patients}
    ).assign(split=split)
    labels = np.zeros((len(ids), 1), dtype=np.int8)
    return Dataset(name="d", root=".", images=images, labels=labels, label_names=["Mass"], **more)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_a_number_are_one_patient(spelling):
    assert patient_key(spelling) == "12"


@pytest.mark.parametrize(
    ("one", "other"),
    [("12", "120"), ("12", "1.2"), ("12", "12.5"), ("p12", "12"), ("1-2", "12"), ("0", "")],
)
def test_other_names_are_other_patients(one, other):
    assert patient_key(one) != patient_key(other)


def test_case_and_unicode_variants_are_one_patient():
    assert len({patient_key(name) for name in ("Größe1", "GRÖSSE1", "gro\u0308ße1")}) == 1
    assert clean_id("ﬁle\u00a0name") == "file name"


def test_patients_get_one_spelling_and_the_change_is_reported():
    ids = [f"{n}.png" for n in range(len(SPELLINGS) + 2)]
    with pytest.warns(FeaturecacheWarning, match=r"1 patient is written.*such as '12', '12.0'"):
        made = dataset(ids, [*SPELLINGS, "0007", "0007"])
    assert sorted(set(made.images["patient"])) == ["0007", "12"]
    (note,) = [note for note in made.notes if "several ways" in note]
    assert "12" not in note
    with warnings.catch_warnings():  # once
        warnings.simplefilter("error")
        assert len(made.take(np.arange(3)).notes) == len(made.notes)


def test_a_patient_in_two_spellings_cannot_be_in_two_splits():
    with (
        pytest.warns(FeaturecacheWarning),
        pytest.raises(DatasetError, match="'12' is in two splits"),
    ):
        dataset(["a", "b"], ["12", "12.0"], split=["train", "test"])


def test_a_split_keeps_all_spellings_of_a_patient_together():
    patients = [spelling for n in range(40) for spelling in (f"p{n}", f"P{n}", f" p{n}")]
    split = patient_split(patients, np.zeros((120, 1), dtype=np.int8), seed=0)
    assert all(len(set(split[3 * n : 3 * n + 3])) == 1 for n in range(40))
    assert set(split) == {"train", "val", "test"}


def test_ids_are_cleaned_and_still_find_their_files_and_labels():
    images = pd.DataFrame(
        {"id": ["b\u200b", "ａ"], "path": ["b\u200b.png", "ａ.png"], "patient": ["1", "2"]}
    ).assign(split="train")
    labels = pd.DataFrame({"Mass": [1, 0]}, index=images["id"])
    with pytest.warns(FeaturecacheWarning, match="2 image ids"):
        made = Dataset(name="d", root="root", images=images, labels=labels)
    assert made.images["id"].tolist() == ["a", "b"]
    assert made.files()["b"].name == "b\u200b.png"
    assert made.labels.loc["b", "Mass"] == 1


def test_ids_that_become_equal_are_refused_with_their_spellings():
    with (
        pytest.warns(FeaturecacheWarning),
        pytest.raises(DatasetError, match=r"'x' occurs twice, written 'x' and 'x\\u200b'"),
    ):
        dataset(["x", "x\u200b"], ["1", "2"])


def test_unknown_patients_stay_the_images_themselves():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = dataset(["A.png", "a.png", "01", "1"], ["A.png", "a.png", "01", "1"])
    assert not made.patients_known
    assert (made.records(np.arange(4)).patient == b"").all()
    assert not made.pseudonymize(IdKey(b"0123456789abcdef")).patients_known


def test_spellings_have_one_pseudonym():
    key = IdKey(b"0123456789abcdef")
    one, other = (
        dataset(["a", "b"], [patient, "x"]).pseudonymize(key).images["patient"]
        for patient in ("0012", "12.0")
    )
    assert set(one) == set(other)


def test_pseudonymized_data_sets_warn_of_no_name(tmp_path):
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    lines = [
        "path,patient,Mass",
        *(f"{n}.png,{p},{n % 2}" for n, p in enumerate(["12", "12.0"] * 20)),
    ]
    (tmp_path / "set.csv").write_text("\n".join(lines))
    (tmp_path / "0.png").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = fc.load_dataset(
            tmp_path / "set.csv", labels=["Mass"], patient="patient", pseudonymize=tmp_path / "key"
        )
    assert made.images["patient"].nunique() == 1
    assert any("several ways" in note for note in made.notes)


def test_patients_of_published_collections_are_different_people():
    assert may_share_patients("hospital", "nih")
    assert may_share_patients("train", "train")
    assert not may_share_patients("kermany", "nih")
    assert not may_share_patients("phantom-0", "hospital")
    assert not may_share_patients("phantom-0-views2", "phantom-5-views2")
    assert is_published("phantom-5-views2")
    assert may_share_patients("phantom-x", "hospital")


def test_a_table_named_like_a_published_data_set_is_not_in_its_collection(tmp_path):
    (tmp_path / "0.png").touch()
    for name in ("nih", "phantom-3", "ward"):
        lines = ["path,patient,Mass", *(f"{n}.png,{n},{n % 2}" for n in range(20))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
        made = fc.load_dataset(tmp_path / f"{name}.csv", labels=["Mass"], patient="patient")
        assert made.name == name
        assert made.collection == {"ward": "ward"}.get(name, f"{name}-own")
