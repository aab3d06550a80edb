"""One record of options stands for as many options on the command line."""

import inspect
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from featurecache.cli.dataset_options import DatasetOptions, takes_dataset_options
from featurecache.errors import UsageError


@pytest.fixture
def seen() -> list[tuple[str, DatasetOptions, bool]]:
    return []


@pytest.fixture
def app(seen: list[tuple[str, DatasetOptions, bool]]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @takes_dataset_options(without=("split", "sex_column"))
    def command(
        *,
        split: Annotated[str, typer.Option()] = "its own",
        options: DatasetOptions,
        json: Annotated[bool, typer.Option("--json")] = False,
    ) -> None:
        seen.append((split, options, json))

    return app


def test_the_record_holds_what_was_given_and_none_of_the_commands_own(
    app: typer.Typer, seen: list[tuple[str, DatasetOptions, bool]]
) -> None:
    line = "--split test --label-column A --label-column B --images-root x --dataset-seed 0 --json"
    assert CliRunner().invoke(app, line.split()).exit_code == 0
    ((split, options, json),) = seen
    assert (split, json) == ("test", True)
    assert options == DatasetOptions(label_column=["A", "B"], images_root=Path("x"), dataset_seed=0)
    assert options.for_loader("csv") == {
        "labels": ["A", "B"],
        "images_root": Path("x"),
        "seed": 0,
    }


def test_options_of_another_kind_of_data_set_are_refused() -> None:
    with pytest.raises(UsageError, match="nih takes no option `split_column`"):
        DatasetOptions(split_column="fold").for_loader("nih")
    with pytest.raises(UsageError, match="csv takes no option `split`"):
        DatasetOptions(split="patient").for_loader("csv")


def test_what_a_command_leaves_out_is_no_option_of_it(app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["--sex-column", "s"]).exit_code == 2


def test_options_stand_where_the_record_stood() -> None:
    @takes_dataset_options()
    def command(*, first: int = 0, options: DatasetOptions, last: int = 0) -> None: ...

    names = list(inspect.signature(command).parameters)
    assert (names[0], names[1], names[-1]) == ("first", "split", "last")
