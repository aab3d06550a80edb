"""CSV files of ours: no formulas, and every text as it was."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurecache.io.csv import escape_formula, read_rows, unescape_formula, write_rows
from featurecache.runs.folder import (
    read_history,
    read_predictions,
    write_config,
    write_history,
    write_predictions,
)

beginnings = st.sampled_from(["", *"=+-@\t\r\n'\"＝＋－＠"])
texts = st.builds(
    str.__add__, beginnings, st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
EVIL = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'", "''=1", '=HYPERLINK("x")']


def as_a_spreadsheet_sees(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.reader(opened))


@given(st.lists(st.lists(texts, min_size=1, max_size=4), max_size=5))
def test_every_text_comes_back_and_none_begins_as_a_formula(rows: list[list[str]]) -> None:
    file = io.StringIO(newline="")
    write_rows(file, rows)
    file.seek(0)
    assert list(read_rows(file)) == rows
    file.seek(0)
    for row in csv.reader(file):
        assert not any(cell[:1] in tuple("=+-@\t\r\n＝＋－＠") for cell in row if cell)


def test_numbers_are_as_they_are() -> None:
    file = io.StringIO(newline="")
    write_rows(file, [[-1, -0.5, np.float64(1e-7), None, "-1"]])
    assert file.getvalue() == "-1,-0.5,1e-07,,'-1\n"


@pytest.mark.parametrize("text", EVIL)
def test_a_guard_is_one_apostrophe(text: str) -> None:
    assert escape_formula(text) == "'" + text
    assert unescape_formula(escape_formula(text)) == text
    assert escape_formula("plain") == unescape_formula("plain") == "plain"


def test_ids_patients_and_labels_of_predictions_are_no_formulas(tmp_path: Path) -> None:
    n = len(EVIL)
    truth = np.zeros((n, 2), dtype=np.int8)
    probability = np.full((n, 2), 1e-9)
    labels = ("=cmd|' /C calc'!A0", "'quoted'")
    write_config(tmp_path, "head", {})
    write_predictions(
        tmp_path,
        ids=np.array(EVIL),
        patients=np.array(EVIL[::-1]),
        splits=np.full(n, "test"),
        label_names=labels,
        truth=truth,
        probability=probability,
    )
    header, *rows = as_a_spreadsheet_sees(tmp_path / "predictions.csv")
    assert header[3] == "'=cmd|' /C calc'!A0 truth"
    for cell in [*header, *(cell for row in rows for cell in row[:3])]:
        assert cell[0] not in "=+-@\t\r\n"
    assert rows[0][3:] == ["0", "1e-09", "0", "1e-09"]
    found = read_predictions(tmp_path)
    assert found.ids.tolist() == EVIL
    assert found.patients.tolist() == EVIL[::-1]
    assert found.label_names == labels


def test_names_in_a_history_are_no_formulas_and_negative_losses_are_numbers(tmp_path: Path) -> None:
    write_history(tmp_path, [{"model": "=1+1", "val_loss": -0.5}])
    assert as_a_spreadsheet_sees(tmp_path / "history.csv")[1] == ["'=1+1", "-0.5"]
    assert read_history(tmp_path) == [{"model": "=1+1", "val_loss": "-0.5"}]
