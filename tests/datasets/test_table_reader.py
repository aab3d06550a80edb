import csv
import gzip
import io
import re
import sys
import zipfile
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.datasets.table_reader import Table, open_table
from featurecache.errors import DatasetError, UsageError
from tests.inputs.tables import workbook


def write(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_columns_are_returned_in_the_given_order(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "a,b,c\n1,2,3\n4,,6\n")).read(["c", "b"])
    assert table.columns.tolist() == ["c", "b"]
    assert table.to_numpy().tolist() == [["3", "2"], ["6", ""]]


def test_index_is_the_line_on_which_a_row_starts(tmp_path: Path) -> None:
    text = 'a,b\r\n1,"two\r\nlines"\r\n\r\n,\r\n2,x\r\n'
    table = open_table(write(tmp_path, text)).read(["a"])
    assert table.index.name == "line"
    assert table["a"].to_dict() == {2: "1", 6: "2"}


def test_whitespace_and_byte_order_mark_are_stripped(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "\ufeffa , b\n 1 ,2 \n")).read(["a", "b"])
    assert table.to_numpy().tolist() == [["1", "2"]]


def test_numbers_and_missing_values_stay_text(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "a\n007\nNA\nnan\n1e3\n")).read(["a"])
    assert table["a"].tolist() == ["007", "NA", "nan", "1e3"]


@pytest.mark.parametrize("text", ["a,b,\n1,2,\n", "a,b\n1,2,\n", "a,b,\n1,2\n", "a,b,,\n1,2,,,\n"])
def test_trailing_comma_does_not_shift_columns(tmp_path: Path, text: str) -> None:
    assert open_table(write(tmp_path, text)).read(["b", "a"]).to_numpy().tolist() == [["2", "1"]]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=2, max_size=2
        ),
        min_size=1,
        max_size=5,
    ).filter(lambda rows: all(any(cell.strip() for cell in row) for row in rows))
)
def test_csv_module_output_is_read_back(tmp_path_factory, rows: list[list[str]]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([["a", "b"], *rows])
    path = write(tmp_path_factory.mktemp("csv"), buffer.getvalue())
    expected = [[cell.strip() for cell in row] for row in rows]
    assert open_table(path).read(["a", "b"]).to_numpy().tolist() == expected


def test_compressed_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"a\n1\n"))
    assert open_table(path).read(["a"])["a"].tolist() == ["1"]


def test_missing_column_error_suggests_names(tmp_path: Path) -> None:
    path = write(tmp_path, "path,Patient\nx,1\n")
    with pytest.raises(
        DatasetError, match=r"no column 'patient': did you mean 'Patient'.* has path, P"
    ):
        open_table(path).read(["patient"])


def test_repeated_column_is_refused_only_if_requested(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,b\n1,2,3\n")
    assert open_table(path).read(["a"])["a"].tolist() == ["1"]
    with pytest.raises(DatasetError, match="'b' twice"):
        open_table(path).read(["b"])


@pytest.mark.parametrize(("row", "cells"), [("1", "1 cell"), ("1,2,3", "3 cells")])
def test_row_of_wrong_length_is_refused_with_its_line(tmp_path: Path, row: str, cells: str) -> None:
    with pytest.raises(DatasetError, match=f"line 3: the row has {cells}, .* 2"):
        open_table(write(tmp_path, f"a,b\n1,2\n{row}\n")).read(["a"])


@pytest.mark.parametrize(("content", "reason"), [(b"", "is empty"), (b"a\n\n", "no rows")])
def test_file_without_rows_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=reason):
        open_table(path).read(["a"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("neither-utf-8-nor-cp1252.csv", b"a\nM\x81ller\n"),
        ("not.csv.gz", b"a\n1\n"),
        ("cut.csv.gz", gzip.compress(b"a\n1\n" * 1000, mtime=0)[:-20]),
        ("broken.csv.gz", gzip.compress(b"a\n1\n" * 1000, mtime=0)[:12] + b"\xff" * 40),
        ("huge.csv", b'a\n"' + b"x" * 200_000),
    ],
)
def test_malformed_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=f"{name} cannot be read as a table"):
        open_table(tmp_path / name).read(["a"])


@pytest.mark.parametrize(
    ("name", "content", "notes"),
    [
        ("t.csv", b"a,b\n1,x\n", ""),
        ("t.tsv", b"a\tb\n1\tx\n", ""),
        ("t.csv", b"a;b\n1;x\n", "separated by semicolons"),
        ("t.csv", b"a|b\n1|x\n", "separated by bars"),
        ("t.csv", b"a\tb\n1\tx\n", "separated by tabs"),
        ("T.CSV", b'sep=;\r\n"a";"b"\r\n1;"x"\r\n', ""),
        # One separator fits the rows, another only the header.
        ("t.csv", b"a,c;b\n1;x\n2,5;x\n", "separated by semicolons"),
        ("t.csv", b"a,b,c|d\n1,x,Mass|Edema\n1,x,Mass\n", ""),
        ("t.csv", "a,b\n1,Müller\n".encode("utf-8-sig"), ""),
        ("t.csv", "a,b\n1,Müller\n".encode("cp1252"), "read as cp1252"),
        ("t.csv", "a\tb\n1\tMüller\n".encode("utf-16"), "read as UTF-16. .*separated by tabs"),
        (
            "t.csv.gz",
            gzip.compress("a;b\n1;Müller\n".encode("cp1252"), mtime=0),
            "cp1252 .*semicolons",
        ),
    ],
)  # fmt: skip
def test_encoding_and_separator_are_detected(
    tmp_path: Path, name: str, content: bytes, notes: str
) -> None:
    (tmp_path / name).write_bytes(content)
    table = open_table(tmp_path / name)
    assert re.fullmatch(f".*{notes}.*" if notes else "", " ".join(table.notes))
    cells = table.read(["b"])["b"].tolist()
    assert set(cells) <= {"x", "Müller"}


def test_line_numbers_count_the_line_that_names_the_separator(tmp_path: Path) -> None:
    assert open_table(write(tmp_path, "sep=;\na;b\n1;2\n")).read(["b"])["b"].to_dict() == {3: "2"}


def test_ambiguous_separator_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "name, first;file\nDoe, J;1.png\n")
    readings = "by commas, .* 'name', 'first;file'; by semicolons, .* 'name, first', 'file'"
    with pytest.raises(DatasetError, match=rf"2 ways: {readings}. Give the `separator`"):
        open_table(path)
    assert open_table(path, separator=";").read(["file"])["file"].tolist() == ["1.png"]


def test_given_encoding_is_used(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a\nŁódź\n".encode("cp1250"))
    assert open_table(tmp_path / "t.csv", encoding="cp1250").read(["a"])["a"].tolist() == ["Łódź"]
    with pytest.raises(UsageError, match="no `encoding` 'latin-42'"):
        open_table(tmp_path / "t.csv", encoding="latin-42")
    with pytest.raises(UsageError, match="`separator` is '::'"):
        open_table(tmp_path / "t.csv", separator="::")


def test_parquet_file_is_read_as_text(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "id": ["007", "08"],
            "number": [7, 8],
            "float": [7.0, None],
            "share": [0.25, 1.0],
            "flag": [True, None],
            "labels": [["Mass", "Edema"], []],
        }
    ).set_index("id")
    frame.to_parquet(tmp_path / "t.parquet")
    table = open_table(tmp_path / "t.parquet")
    assert table.read(["id", "number", "float", "share", "flag", "labels"]).to_numpy().tolist() == [
        ["007", "7", "7", "0.25", "True", "['Mass', 'Edema']"],
        ["08", "8", "", "1", "", "[]"],
    ]
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(DatasetError, match="cannot be read as a table"):
        open_table(tmp_path / "t.parquet")


def test_first_sheet_of_excel_file_is_read(tmp_path: Path) -> None:
    rows = [
        [],
        ["id", "n", "day", "hour", None],
        ["007", 1.0, date(2020, 3, 4), datetime(2020, 3, 4, 5, 6), None],
        [],
        [8, "x", None, True, None],
    ]
    path = tmp_path / "t.xlsx"
    path.write_bytes(workbook(rows, [["other"]]))
    table = open_table(path)
    assert table.notes == ("t.xlsx has 2 sheets; the first that is not hidden is read, 'sheet 1'.",)
    frame = table.read(["id", "n", "day", "hour"])
    assert frame.to_numpy().tolist() == [
        ["007", "1", "2020-03-04", "2020-03-04 05:06:00"],
        ["8", "x", "", "True"],
    ]
    assert frame.index.tolist() == [3, 5]
    path.write_bytes(workbook([*rows, [1, 2, 3, 4, 5]]))
    message = "row 6: the row has 5 cells, but the header, row 2, has 4"
    with pytest.raises(DatasetError, match=message):
        open_table(path).read(["id"])
    path.write_bytes(b"no zip")
    with pytest.raises(DatasetError, match=r"content .* of a text file, or of a damaged one: save"):
        open_table(path)


@pytest.mark.parametrize(
    ("rows", "header", "lines"),
    [
        ([["Export"], [], ["of today"], ["path", "id"], ["a", 1]], ("path", "id"), [5]),
        ([["path"], ["a"], ["b", "remark"], ["c"]], ("path",), None),  # refused as ragged
        ([["path"], ["a"], ["b"]], ("path",), [2, 3]),
        ([[None, "path"], [0, "a"], [1, "b"]], ("", "path"), [2, 3]),
        ([["Export"], ["path", "id"]], ("path", "id"), None),  # no rows
    ],
)
def test_title_of_an_excel_sheet_is_no_header(tmp_path: Path, rows, header, lines) -> None:
    (tmp_path / "t.xlsx").write_bytes(workbook(rows))
    table = open_table(tmp_path / "t.xlsx")
    assert table.header == header
    assert bool(table.notes) == (rows[:1] == [["Export"]])
    if lines is None:
        with pytest.raises(DatasetError):
            table.read(header)
    else:
        assert table.read(["path"]).index.tolist() == lines


@pytest.mark.parametrize(
    ("suffix", "package", "module"),
    [("xlsx", "openpyxl", "openpyxl"), ("parquet", "pyarrow", "pyarrow.parquet")],
)
def test_missing_package_is_named(tmp_path: Path, monkeypatch, suffix, package, module) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / f"t.{suffix}").write_bytes(b"PAR1" if suffix == "parquet" else b"PK\x03\x04")
    with pytest.raises(UsageError, match=rf"needs {package}: pip install 'featurecache\[tables\]'"):
        open_table(tmp_path / f"t.{suffix}")


@pytest.mark.parametrize("suffix", ["xlsx", "parquet"])
def test_unpacked_size_is_limited(tmp_path: Path, monkeypatch, suffix: str) -> None:
    monkeypatch.setattr("featurecache.datasets.typed_table.MAX_UNPACKED", 1)
    monkeypatch.setattr("featurecache.datasets.typed_table.MAX_EXPANSION", 0)
    monkeypatch.setitem(sys.modules, "openpyxl", SimpleNamespace(load_workbook=None))
    if suffix == "parquet":
        pd.DataFrame({"a": ["x"]}).to_parquet(tmp_path / "t.parquet")
    else:
        with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
            archive.writestr("xl/workbook.xml", "long")
    with pytest.raises(DatasetError, match="more than 1 bytes when unpacked"):
        open_table(tmp_path / f"t.{suffix}")


EDITED = [["path", "who", "Mass"], ["a", "p", 1], ["b", None, 0], ["c", "q", 1]]


def edited(path: Path, edit: Callable[[Any], object]) -> Table:
    """Return a table that was edited in a spreadsheet program."""
    from openpyxl import Workbook

    book = Workbook()
    for row in EDITED:
        book.active.append(row)
    edit(book)
    book.save(path)
    return open_table(path)


def test_merged_cells_of_excel_have_their_value_in_each_row(tmp_path: Path) -> None:
    def merge(book: Any) -> None:
        book.active.merge_cells("B2:B3")
        book.active.merge_cells("B4:C4")

    table = edited(tmp_path / "t.xlsm", merge)
    assert table.read(["who", "Mass"]).to_numpy().tolist() == [["p", "1"], ["p", "0"], ["q", "q"]]
    assert "has 2 merged cells: each cell that one covers has its value." in table.notes[0]

    def add_title(book: Any) -> None:
        book.active.insert_rows(1)
        book.active["A1"] = "Export"
        book.active.merge_cells("A1:C1")

    table = edited(tmp_path / "u.xlsx", add_title)
    assert table.header == ("path", "who", "Mass")
    assert "merged" not in " ".join(table.notes)


def test_hidden_rows_of_excel_are_counted_and_a_hidden_sheet_is_not_read(tmp_path: Path) -> None:
    def hide(book: Any) -> None:
        book.active.row_dimensions[3].hidden = True
        book.active.title = "data"
        book.create_sheet("old", 0).sheet_state = "hidden"

    table = edited(tmp_path / "t.xlsx", hide)
    assert len(table.read(["path"])) == 3
    assert table.notes == (
        "t.xlsx has 2 sheets; the first that is not hidden is read, 'data'.",
        "1 row of t.xlsx that Excel hides, by a filter for example, is read too.",
    )
    with pytest.raises(
        DatasetError, match=r"it has path, who, Mass\. t.xlsx has 2 sheets; the first"
    ):
        table.read(["who?"])


def test_formulas_without_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="row 3: the formulas have no values"):
        edited(tmp_path / "t.xlsx", lambda book: book.active.__setitem__("C3", "=1-C2"))
    with (
        zipfile.ZipFile(tmp_path / "t.xlsx") as source,
        zipfile.ZipFile(tmp_path / "u.xlsx", "w") as saved,
    ):
        for name in source.namelist():
            data = source.read(name).replace(b' fullCalcOnLoad="1"', b"")
            saved.writestr(
                name, data.replace(b"<v></v>", b"<v>0</v>").replace(b"<v />", b"<v>0</v>")
            )
    assert open_table(tmp_path / "u.xlsx").read(["Mass"])["Mass"].tolist() == ["1", "0", "1"]


@pytest.mark.parametrize(
    ("name", "start", "content"),
    [
        ("t.xlsx", b"\xd0\xcf\x11\xe0", "an old Excel file .*, or of one with a password"),
        ("t.csv", b"PK\x03\x04", "an Excel file"),
        ("t.csv", b"PAR1", "a parquet file"),
        ("t.parquet", b"path", "a text file"),
    ],
)
def test_file_with_another_content_than_its_name_says_is_refused(
    tmp_path: Path, name: str, start: bytes, content: str
) -> None:
    (tmp_path / name).write_bytes(start + b"...")
    with pytest.raises(DatasetError, match=f"but that of {content}.*: save it as .xlsx"):
        open_table(tmp_path / name)


def test_patterns_are_expanded_to_columns(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "path,F_a,F_b,G,F*\n"))
    assert table.expand(["F_?", "G", "F_*"]) == ["F_a", "F_b", "G"]
    assert table.expand(["F*"]) == ["F*"]
    with pytest.raises(DatasetError, match=r"no column .* matches 'H\*': it has path, F_a"):
        table.expand(["H*"])


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.csv does not exist"):
        open_table(tmp_path / "none.csv").read(["a"])
