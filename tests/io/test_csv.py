"""CSV files without formulas, from which every text is read back unchanged."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurecache.io.csv import escape_formula, read_rows, unescape_formula, write_rows
from featurecache.runs.folder import read_history, write_history
from featurecache.runs.predictions import (
    DecisionRules,
    Predictions,
    read_predictions,
    write_predictions,
)

prefixes = st.sampled_from(["", *"=+-@\t\r\n'\"＝＋－＠"])
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.builds(
    str.__add__,
    prefixes,
    st.text(characters, max_size=8),
)
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'", "''=1", '=HYPERLINK("x")']


def read_as_spreadsheet(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


@given(st.lists(st.lists(texts, min_size=1, max_size=4), max_size=5))
def test_texts_survive_and_none_is_a_formula(rows: list[list[str]]) -> None:
    file = io.StringIO(newline="")
    write_rows(file, rows)
    file.seek(0)
    assert list(read_rows(file)) == rows
    file.seek(0)
    for row in csv.reader(file):
        assert not any(cell[:1] in tuple("=+-@\t\r\n＝＋－＠") for cell in row if cell)


def test_numbers_are_unchanged() -> None:
    file = io.StringIO(newline="")
    write_rows(file, [[-1, -0.5, np.float64(1e-7), None, "-1"]])
    assert file.getvalue() == "-1,-0.5,1e-07,,'-1\n"


@pytest.mark.parametrize("text", FORMULAS)
def test_escape_is_one_apostrophe(text: str) -> None:
    assert escape_formula(text) == "'" + text
    assert unescape_formula(escape_formula(text)) == text
    for plain in ("plain", "'quoted'"):
        assert unescape_formula(plain) == plain
    assert escape_formula("plain") == "plain"


def test_predictions_contain_no_formulas(tmp_path: Path) -> None:
    n = len(FORMULAS)
    labels = ("=cmd|' /C calc'!A0", "'quoted'")
    written = Predictions(
        ids=np.array(FORMULAS),
        patients=np.array(FORMULAS[::-1]),
        studies=np.array(FORMULAS),
        splits=np.full(n, "test"),
        sha256=np.full(n, "a" * 64),
        label_names=labels,
        truth=np.zeros((n, 2), dtype=np.int8),
        probability=np.full((n, 2), 1e-9),
    )
    write_predictions(tmp_path, written, DecisionRules(np.array([0.5, 0.5])))
    header, *rows = read_as_spreadsheet(tmp_path / "predictions.csv")
    assert header[5] == "'=cmd|' /C calc'!A0 truth"
    for cell in [*header, *(cell for row in rows for cell in row[:4])]:
        assert cell[0] not in "=+-@\t\r\n"
    assert rows[0][5:] == ["0", "1e-09", "0.5", "0", "", ""] * 2
    predictions = read_predictions(tmp_path)
    assert predictions.ids.tolist() == FORMULAS
    assert predictions.patients.tolist() == FORMULAS[::-1]
    assert predictions.label_names == labels


def test_history_contains_no_formulas_and_numbers_stay_numbers(tmp_path: Path) -> None:
    write_history(tmp_path, [{"model": "=1+1", "val_loss": -0.5}])
    assert read_as_spreadsheet(tmp_path / "history.csv")[1] == ["'=1+1", "-0.5"]
    assert read_history(tmp_path) == [{"model": "=1+1", "val_loss": "-0.5"}]
