"""The fields of ``DatasetOptions`` become options of commands."""

import inspect
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from featurecache.cli.dataset_options import (
    _OTHER_OPTIONS,
    DatasetOptions,
    takes_dataset_options,
)
from featurecache.datasets.csv import load_csv
from featurecache.errors import UsageError


@pytest.fixture
def calls() -> list[tuple[str, DatasetOptions, bool]]:
    return []


@pytest.fixture
def app(calls: list[tuple[str, DatasetOptions, bool]]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @takes_dataset_options(without=("split", "sex_column"))
    def command(
        *,
        split: Annotated[str, typer.Option()] = "own default",
        options: DatasetOptions,
        json: Annotated[bool, typer.Option("--json")] = False,
    ) -> None:
        calls.append((split, options, json))

    return app


def test_command_receives_its_own_options_and_those_of_the_data_set(
    app: typer.Typer, calls: list[tuple[str, DatasetOptions, bool]]
) -> None:
    line = "--split test --label-column A --label-column B --images-root x --dataset-seed 0 --json"
    assert CliRunner().invoke(app, line.split()).exit_code == 0
    ((split, options, json),) = calls
    assert (split, json) == ("test", True)
    assert options == DatasetOptions(label_column=["A", "B"], images_root=Path("x"), dataset_seed=0)
    assert options.for_loader("csv") == {
        "labels": ["A", "B"],
        "images_root": Path("x"),
        "seed": 0,
    }


def test_every_argument_for_tables_is_an_option() -> None:
    arguments = set(inspect.signature(load_csv).parameters) - {"file", "require_images", "progress"}
    options = DatasetOptions(**{field.name: "x" for field in fields(DatasetOptions)})
    options = replace(options, **dict.fromkeys(_OTHER_OPTIONS))
    assert arguments <= set(options.for_loader("csv"))


def test_options_of_another_data_set_are_refused() -> None:
    with pytest.raises(UsageError, match="nih takes no option `split_column`"):
        DatasetOptions(split_column="fold").for_loader("nih")
    with pytest.raises(UsageError, match="csv takes no option `split`"):
        DatasetOptions(split="patient").for_loader("csv")


def test_excluded_options_do_not_exist(app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["--sex-column", "s"]).exit_code == 2


def test_options_take_the_place_of_the_parameter() -> None:
    @takes_dataset_options()
    def command(*, first: int = 0, options: DatasetOptions, last: int = 0) -> None: ...

    names = list(inspect.signature(command).parameters)
    assert (names[0], names[1], names[-1]) == ("first", "split", "last")
