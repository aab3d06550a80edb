"""Predictions: the CSV file reads back exactly, and damaged or inconsistent ones are refused."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from featurecache.errors import RunError
from featurecache.metrics.conformal import ConformalLimits
from featurecache.metrics.platt_scaling import PlattScaling
from featurecache.runs.predictions import (
    DecisionRules,
    Predictions,
    read_predictions,
    write_predictions,
)

LIMITS = ConformalLimits(
    coverage=0.9,
    positive=np.array([np.nan, 0.5]),
    negative=np.array([np.nan, 0.4]),
    expected=np.full((2, 2, 2), np.nan),
    reasons=("a reason", None),
)
RULES = DecisionRules(
    np.array([0.05, 1 / 3]),
    PlattScaling(np.array([0.5, np.nan]), np.array([-4.0, np.nan]), (None, "a reason")),
    LIMITS,
)
COLUMNS = "a truth,a probability,a threshold,a positive,a calibrated,a answer"
HEADER = f"id,patient,study,split,sha256,{COLUMNS}"


def predictions(**changes: Any) -> Predictions:
    arguments = {
        "ids": np.asarray(["00000001_000.png", 'a "quoted", name.png', "Röntgen\n2.png"]),
        "patients": np.asarray(["007", "7", ""]),
        "studies": np.asarray(["1", "", "1"]),
        "splits": np.asarray(["val", "test", "test"]),
        "sha256": np.asarray(["a" * 64, "b" * 64, ""]),
        "label_names": ("Mass", "Pleural_Thickening"),
        "truth": np.asarray([[1, 0], [0, -1], [-1, -1]], np.int8),
        "probability": np.asarray([[0.1, 1 / 3], [1e-17, 1.0], [0.0, np.nextafter(1, 0)]]),
    }
    return Predictions(**{**arguments, **changes})


def test_predictions_read_back_through_pandas(tmp_path: Path) -> None:
    given = predictions()
    write_predictions(tmp_path, given, RULES)
    # As text, since pandas rounds the last digit of a number.
    names = ["id", "patient", "split", "Mass probability", "Pleural_Thickening probability"]
    table = pd.read_csv(tmp_path / "predictions.csv", dtype=dict.fromkeys(names, str))
    table = table.fillna({"patient": ""})
    assert table.columns.tolist() == given.to_pandas(RULES).columns.tolist()
    assert table["id"].tolist() == given.ids.tolist()
    assert table["patient"].tolist() == ["007", "7", ""]
    assert table["split"].tolist() == ["val", "test", "test"]
    probability = [[float(p) for p in row] for row in table[names[3:]].to_numpy()]
    assert probability == given.probability.tolist()
    truth = table[["Mass truth", "Pleural_Thickening truth"]].to_numpy()
    np.testing.assert_array_equal(truth, [[1, 0], [0, np.nan], [np.nan, np.nan]])


def test_decisions_compare_the_probability_and_not_the_calibrated_one(tmp_path: Path) -> None:
    given = predictions()
    write_predictions(tmp_path, given, RULES)
    table = pd.read_csv(tmp_path / "predictions.csv")
    frame = given.to_pandas(RULES)
    for data in (table, frame):
        assert data["Mass threshold"].tolist() == [0.05] * 3
        assert data["Mass positive"].tolist() == [True, False, False]
        assert data["Pleural_Thickening threshold"].tolist() == [1 / 3] * 3
        assert data["Pleural_Thickening positive"].tolist() == [True, True, True]
        assert data["Pleural_Thickening calibrated"].isna().all()
    expected = expit(0.5 * logit([0.1, 1e-12, 1e-12]) - 4)  # log odds are those of 1e-12 at least
    np.testing.assert_allclose(frame["Mass calibrated"], expected, rtol=1e-9)
    np.testing.assert_allclose(table["Mass calibrated"], expected, rtol=1e-5)
    assert expected.max() < 0.05  # none would reach the threshold


def test_predictions_round_trip(tmp_path: Path) -> None:
    given = predictions()
    write_predictions(tmp_path, given, RULES)
    read = read_predictions(tmp_path)
    assert read.label_names == given.label_names
    for name in ("ids", "patients", "studies", "splits", "sha256", "truth", "probability"):
        np.testing.assert_array_equal(getattr(read, name), getattr(given, name))


def test_an_unknown_truth_is_an_empty_cell(tmp_path: Path) -> None:
    write_predictions(tmp_path, predictions(), RULES)
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    mass = ["1", "0.1", "0.05", "1", f"{expit(0.5 * logit(0.1) - 4):.6g}"]
    assert rows[1] == [
        "00000001_000.png",
        "007",
        "1",
        "val",
        "a" * 64,
        *mass,
        "",
        "0",
        *[repr(1 / 3)] * 2,
        "1",
        "",
        "absent",
    ]
    assert rows[2][5:7] == ["0", "1e-17"]
    assert rows[2][11:] == ["", "1.0", repr(1 / 3), "1", "", "present"]
    assert rows[3][5] == rows[3][11] == ""


def test_a_label_that_was_not_learned_has_only_a_truth(tmp_path: Path) -> None:
    probability = np.asarray([[0.1, np.nan], [0.2, np.nan], [0.3, np.nan]])
    given, rules = (
        predictions(probability=probability),
        replace(RULES, thresholds=np.array([0.15, np.nan])),
    )
    write_predictions(tmp_path, given, rules)
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[11:] for row in rows[1:]] == [["0", *[""] * 5], [""] * 6, [""] * 6]
    read, frame = read_predictions(tmp_path), given.to_pandas(rules)
    assert read.learned.tolist() == [True, False]
    np.testing.assert_array_equal(read.probability, probability)
    assert read.to_pandas(rules).equals(frame)
    assert frame["Mass positive"].tolist() == [False, True, True]
    missing = frame.columns[frame.isna().all()].tolist()
    assert missing == ["Mass answer"] + [
        f"Pleural_Thickening {column}"
        for column in ("probability", "threshold", "positive", "calibrated", "answer")
    ]


def test_no_images_give_only_a_header(tmp_path: Path) -> None:
    none = np.asarray([], dtype=str)
    empty = np.empty((0, 1))
    write_predictions(
        tmp_path,
        Predictions(none, none, none, none, none, ("Mass",), empty.astype(np.int8), empty),
        DecisionRules(np.array([0.5])),
    )
    text = (tmp_path / "predictions.csv").read_text()
    assert text == f"id,patient,study,split,sha256,{COLUMNS.replace('a ', 'Mass ')}\n"


@pytest.mark.parametrize(
    "changes",
    [
        {"label_names": ("Mass",)},
        {"patients": np.asarray(["1", "2"])},
        {"splits": np.asarray(["test"] * 4)},
        {"ids": np.asarray(["a", "b"])},
        {"sha256": np.asarray(["a" * 64])},
        {"truth": np.zeros((4, 2), np.int8)},
        {"probability": np.zeros((3, 3))},
        {"probability": np.zeros(3)},
    ],
)
def test_arrays_of_different_lengths_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"ids, .* labels do not match truth"):
        predictions(**changes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1])
def test_a_value_outside_0_to_1_is_not_a_probability(value: float) -> None:
    probability = np.full((3, 2), 0.5)
    probability[2, 1] = value
    with pytest.raises(ValueError, match=r"probabilities must lie in \[0, 1\]"):
        predictions(probability=probability)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER, "x,p,s,test,h,1"], "has 6 columns"),
        (["id,patient,split,a truth,a probability", "x,p,test,1,0.5"], "columns are not those"),
        ([HEADER, "x,p,s,test,h,1,nan,0.5,1,,"], "no probabilities, but thresholds"),
        ([HEADER, "x,p,s,test,h,1,,0.5,,,"], "no probabilities, but thresholds"),
        ([HEADER, "x,p,s,test,h,1,,,1,,"], "no probabilities, but thresholds"),
        ([HEADER, "x,p,s,test,h,1,0.5,0.5,1,,", "x,p,s,test,h,1,,,,,"], "must lie in"),
        ([HEADER, "x,p,s,test,h,300,0.5,0.5,1,,"], "damaged"),
        ([HEADER, "x" * 131_073 + ",p,s,test,h,1,1,0.5,1,,"], "damaged"),
        ([HEADER], "holds no predictions"),
        ([f"{HEADER},{COLUMNS}"], "columns"),
        ([""], "columns"),
        (
            [HEADER, "x" * 130_000 + ",p,s,test,h,1,1,1,1,,"] + ["x,p,s,test,h,1,1,1,1,,"] * 20_000,
            "too long",
        ),
        ([HEADER, "x,p,s,test,h,1,0.5,0.5,0,,"], "negative at or above"),
        ([HEADER, "x,p,s,test,h,1,0.5,0.6,1,,"], "positive below its threshold"),
        ([HEADER, "x,p,s,test,h,1,0.5,0.5,2,,"], "positive below its threshold"),
        (
            [HEADER, "x,p,s,test,h,1,0.5,0.5,1,,", "y,p,s,test,h,1,0.5,0.4,1,,"],
            "several thresholds",
        ),
        ([HEADER, "x,p,s,test,h,1,0.5,-1,1,,"], r"one outside \[0, 1\]"),
        ([HEADER, "x,p,s,test,h,1,0.5,nan,0,,"], r"one outside \[0, 1\]"),
        ([HEADER, "x,p,s,test,h,1,0.5,,0,,"], "damaged"),
        ([HEADER, "x,p,s,test,h,1,0.5,0.5,1,1.5,"], "calibrated probabilities must"),
        (
            [HEADER, "x,p,s,test,h,1,0.5,0.5,1,0.5,", "y,p,s,test,h,1,0.5,0.5,1,,"],
            "calibrated prob",
        ),
        ([HEADER, "x,p,s,test,h,1,0.5,0.5,1,,maybe"], "damaged"),
        ([HEADER, "x,p,s,test,h,1,,,,,unsure"], "no probabilities, but"),
        (
            [HEADER, "x,p,s,test,h,1,0.5,0.5,1,,absent", "y,p,s,test,h,1,0.6,0.5,1,,"],
            "answers must go from absent",
        ),
        (
            [HEADER, "x,p,s,test,h,1,0.5,0.5,1,,unsure", "y,p,s,test,h,1,0.6,0.5,1,,absent"],
            "answers must go from absent",
        ),
    ],
)
def test_damaged_predictions_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "predictions.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=message):
        read_predictions(tmp_path)
