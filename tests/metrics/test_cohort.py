"""Cohorts against pandas' groups."""

import numpy as np
import pandas as pd

from featurecache.metrics.cohort import count_unused, describe_splits


def test_splits_are_described_as_pandas_groups_them():
    rng = np.random.default_rng(3)
    n = 400
    number = rng.integers(0, 150, n)
    table = pd.DataFrame(
        {
            "patient": np.char.add("p", number.astype(str)),
            "sex": np.array(["F", "M", "F", "M", ""])[number % 5],
            "age": np.where(number % 7 == 0, "", (40 + number % 30 + rng.integers(0, 3, n) / 2)),
            "view": rng.choice(["AP", "PA", ""], n),
        }
    )
    truth = rng.choice(np.array([-1, 0, 1], dtype=np.int8), (n, 2))
    rows = {"train": np.arange(250), "val": np.arange(0), "test": np.arange(250, 390)}
    columns = {name: table[name].to_numpy(dtype=np.str_) for name in table}
    described = describe_splits(rows, **columns, truth=truth, label_names=("Mass", "Edema"))
    assert list(described) == ["train", "test", "all"]
    for split, at in (("train", rows["train"]), ("test", rows["test"]), ("all", np.arange(390))):
        used, of_split = described[split], table.iloc[at]
        patients = of_split.groupby("patient")
        ages = pd.to_numeric(of_split["age"]).groupby(of_split["patient"]).min().dropna()
        assert (used.n, used.n_patients) == (len(at), patients.ngroups)
        assert used.n_labeled == (truth[at] >= 0).any(axis=1).sum()
        assert used.sexes == patients["sex"].first().value_counts().to_dict()
        assert used.views == of_split["view"].value_counts().to_dict()
        assert used.ages.n == len(ages)
        quartiles = (used.ages.quartiles[0], used.ages.median, used.ages.quartiles[1])
        np.testing.assert_allclose(quartiles, ages.quantile([0.25, 0.5, 0.75]))
        assert used.positive == {
            "Mass": (truth[at, 0] == 1).sum(),
            "Edema": (truth[at, 1] == 1).sum(),
        }
        assert used.known["Mass"] == (truth[at, 0] >= 0).sum()


def test_sex_that_differs_and_age_that_is_unknown_are_unknown():
    columns = {"age": np.array(["", "", ""]), "view": np.array(["", "", ""])}
    sex, truth = np.array(["F", "M", "M"]), np.zeros((3, 1), dtype=np.int8)
    rows, patient = {"test": np.arange(3)}, np.array(["a", "a", "b"])
    known = describe_splits(
        rows, patient=patient, sex=sex, truth=truth, label_names=["Mass"], **columns
    )["test"]
    assert (known.sexes, known.ages, known.views) == ({"": 1, "M": 1}, None, {"": 3})
    unknown = describe_splits(
        rows, patient=None, sex=sex, truth=truth, label_names=["Mass"], **columns
    )["test"]
    assert (unknown.n_patients, unknown.sexes) == (None, {"F": 1, "M": 2})


def test_unused_rows_are_counted_by_reason():
    split = np.array(["train", "train", "train", "val", "test", ""])
    rows = {"train": np.array([0]), "val": np.array([], dtype=int), "test": np.array([4])}
    counts = count_unused(rows, split=split, copies=np.array([1]))
    assert counts == {
        "copied in a later split": 1,
        "in the training split": 1,
        "in the validation split": 1,
    }
