import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.datasets.csv_reader import read_columns
from featurecache.errors import DatasetError


def write(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_columns_are_returned_in_the_given_order(tmp_path: Path) -> None:
    table = read_columns(write(tmp_path, "a,b,c\n1,2,3\n4,,6\n"), ["c", "b"])
    assert table.columns.tolist() == ["c", "b"]
    assert table.to_numpy().tolist() == [["3", "2"], ["6", ""]]


def test_index_is_the_line_on_which_a_row_starts(tmp_path: Path) -> None:
    text = 'a,b\r\n1,"two\r\nlines"\r\n\r\n,\r\n2,x\r\n'
    table = read_columns(write(tmp_path, text), ["a"])
    assert table.index.name == "line"
    assert table["a"].to_dict() == {2: "1", 6: "2"}


def test_whitespace_and_byte_order_mark_are_stripped(tmp_path: Path) -> None:
    table = read_columns(write(tmp_path, "\ufeffa , b\n 1 ,2 \n"), ["a", "b"])
    assert table.to_numpy().tolist() == [["1", "2"]]


def test_numbers_and_missing_values_stay_text(tmp_path: Path) -> None:
    table = read_columns(write(tmp_path, "a\n007\nNA\nnan\n1e3\n"), ["a"])
    assert table["a"].tolist() == ["007", "NA", "nan", "1e3"]


@pytest.mark.parametrize("text", ["a,b,\n1,2,\n", "a,b\n1,2,\n", "a,b,\n1,2\n", "a,b,,\n1,2,,,\n"])
def test_trailing_comma_does_not_shift_columns(tmp_path: Path, text: str) -> None:
    assert read_columns(write(tmp_path, text), ["b", "a"]).to_numpy().tolist() == [["2", "1"]]


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
    assert read_columns(path, ["a", "b"]).to_numpy().tolist() == expected


def test_compressed_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"a\n1\n"))
    assert read_columns(path, ["a"])["a"].tolist() == ["1"]


def test_missing_column_error_suggests_names(tmp_path: Path) -> None:
    path = write(tmp_path, "path,Patient\nx,1\n")
    with pytest.raises(
        DatasetError, match=r"no column 'patient': did you mean 'Patient'.* has path, P"
    ):
        read_columns(path, ["patient"])


def test_repeated_column_is_refused_only_if_requested(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,b\n1,2,3\n")
    assert read_columns(path, ["a"])["a"].tolist() == ["1"]
    with pytest.raises(DatasetError, match="'b' twice"):
        read_columns(path, ["b"])


@pytest.mark.parametrize("row", ["1", "1,2,3"])
def test_row_of_wrong_length_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    with pytest.raises(DatasetError, match=f"line 3: the row has {row.count(',') + 1} cells, .* 2"):
        read_columns(write(tmp_path, f"a,b\n1,2\n{row}\n"), ["a"])


@pytest.mark.parametrize(("content", "reason"), [(b"", "no column 'a'"), (b"a\n\n", "no rows")])
def test_file_without_rows_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=reason):
        read_columns(path, ["a"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("latin.csv", "a\nMüller\n".encode("latin-1")),
        ("not.csv.gz", b"a\n1\n"),
        ("cut.csv.gz", gzip.compress(b"a\n1\n" * 1000, mtime=0)[:-20]),
        ("broken.csv.gz", gzip.compress(b"a\n1\n" * 1000, mtime=0)[:12] + b"\xff" * 40),
        ("huge.csv", b'a\n"' + b"x" * 200_000),
    ],
)
def test_malformed_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=f"{name} cannot be read as a UTF-8 CSV file"):
        read_columns(tmp_path / name, ["a"])


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.csv cannot be read"):
        read_columns(tmp_path / "none.csv", ["a"])
