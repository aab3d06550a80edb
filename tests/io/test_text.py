"""Untrusted text files: no pipes, no endless lines, no decompression bombs."""

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from featurecache.datasets.load import load_dataset
from featurecache.datasets.table_reader import open_table
from featurecache.errors import DatasetError, PromptError
from featurecache.io import csv as csv_cells
from featurecache.io import json as strict_json
from featurecache.io.text import bounded_lines, read_text
from featurecache.prompts import load_prompts


def test_text_is_returned(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("ä\r\n".encode())
    assert read_text(tmp_path / "a") == "ä\n"
    assert list(bounded_lines(io.StringIO("a\nb"))) == ["a\n", "b"]


def test_too_large_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**40)  # sparse: takes no disk space
    with pytest.raises(ValueError, match="has 1099511627776 bytes, more than"):
        read_text(tmp_path / "a")


@pytest.mark.parametrize("given", ["1234", "12\n34"])
def test_characters_are_limited(given: str) -> None:
    assert list(bounded_lines(io.StringIO(given), max_chars=len(given)))
    with pytest.raises(ValueError, match=f"more than {len(given) - 1} characters"):
        list(bounded_lines(io.StringIO(given), max_chars=len(given) - 1))


def test_endless_line_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "predictions.csv").open("wb") as file:
        file.truncate(2**40)
    with (
        (tmp_path / "predictions.csv").open(encoding="utf-8") as file,
        pytest.raises(ValueError, match="a line has more than 1048576 characters"),
    ):
        list(csv_cells.read_rows(file))
    with pytest.raises(DatasetError, match="a line has more than 1048576 characters"):
        open_table(tmp_path / "predictions.csv").read(["path"])


def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurecache.datasets.text_table.MAX_UNPACKED", 1000)
    rows = "path\n" + "a.png\n" * 100_000
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(rows.encode()))
    with pytest.raises(DatasetError, match="characters when unpacked"):
        open_table(tmp_path / "bomb.csv.gz").read(["path"])
    monkeypatch.setattr("featurecache.datasets.text_table.MAX_UNPACKED", len(rows))
    assert len(open_table(tmp_path / "bomb.csv.gz").read(["path"])) == 100_000


def read_list(path: Path) -> object:
    (path.parent / "images").mkdir()
    (path.parent / "images" / "00000001_000.png").touch()
    (path.parent / "Data_Entry_2017.csv").write_text(
        "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position\n"
        "00000001_000.png,Mass,1,50,F,PA\n"
    )
    return load_dataset("nih", path.parent, split="official")


@pytest.mark.parametrize(
    ("name", "read", "refusal"),
    [
        ("a.json", strict_json.read, OSError),
        ("a.json", lambda path: load_prompts(str(path)), PromptError),
        ("a.toml", lambda path: load_prompts(str(path)), PromptError),
        ("a.csv", lambda path: open_table(path).read(["path"]), DatasetError),
        ("test_list.txt", read_list, DatasetError),
    ],
)
def test_pipe_is_not_waited_for(
    tmp_path: Path, name: str, read: Callable[[Path], object], refusal: type[Exception]
) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(refusal, match="a pipe or a device"):
        read(tmp_path / name)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"templates":' + "[" * 100_000])
def test_endless_brackets_are_refused(tmp_path: Path, text: str) -> None:
    for name in ("a.json", "a.toml"):
        (tmp_path / name).write_text("templates = " + text if name == "a.toml" else text)
        with pytest.raises(PromptError, match="cannot be parsed"):
            load_prompts(str(tmp_path / name))
