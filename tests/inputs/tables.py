"""A folder with four images and a table, loaded by the command line without encoding."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from featurecache.datasets.dataset import Dataset
from tests.cli.conftest import Run

IMAGES = ("a.png", "b.png", "c.png", "d.png")


def workbook(*sheets: Sequence[Sequence[object]]) -> bytes:
    """Return an Excel file as openpyxl writes it; an empty row leaves a blank one."""
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    for number, rows in enumerate(sheets, 1):
        sheet = book.create_sheet(f"sheet {number}")
        for row in rows:
            sheet.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


@dataclass(frozen=True)
class Loaded:
    """What a command made of a table.

    Attributes:
        dataset: The data set.
        notes: Its notes, joined by spaces.
        labels: Values of each label in the order of the ids, None where unknown.
    """

    dataset: Dataset
    notes: str
    labels: dict[str, list[int | None]]


Load = Callable[..., Loaded]


def make_loader(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that writes a table and loads it by the options of ``extract``."""
    loaded: list[Dataset] = []

    def stop_before_encoding(load: Callable[[], Dataset], *args: Any, **kwargs: Any) -> list[Any]:
        loaded.append(load())
        return []

    monkeypatch.setattr("featurecache.extraction.extract.run_extraction", stop_before_encoding)

    def load(
        table: str | bytes | pd.DataFrame,
        options: str = "",
        *,
        name: str = "t.csv",
        images: tuple[str, ...] = IMAGES,
    ) -> Loaded:
        for image in images:
            (folder / image).parent.mkdir(parents=True, exist_ok=True)
            (folder / image).touch()
        (folder / name).parent.mkdir(exist_ok=True)
        if isinstance(table, pd.DataFrame):
            table.to_parquet(folder / name)
        else:
            data = table.encode() if isinstance(table, str) else table
            (folder / name).write_bytes(data.replace(b"ROOT", str(folder).encode()))
        arguments = [word.replace("_", " ") if word != "_" else "" for word in options.split()]
        outcome = run("extract", "--data-root", name, *arguments)
        if outcome.code:
            raise AssertionError(outcome.stderr)
        dataset = loaded.pop()
        labels = {
            label: [None if value < 0 else value for value in column]
            for label, column in zip(
                dataset.label_names, dataset.label_values.T.tolist(), strict=True
            )
        }
        return Loaded(dataset, " ".join(dataset.notes), labels)

    return load
