"""The fields of a configuration dataclass become options of commands."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from featurecache.cli.config_options import takes_settings
from featurecache.settings import setting


@dataclass(frozen=True)
class Config:
    rate: float = setting(0.1, help="Learning rate.")
    epochs: int | None = setting(None, help="Number of epochs. Default: chosen.")
    loss: Literal["bce", "focal"] = setting("bce", help="Loss function.")
    hidden: tuple[int, ...] | None = setting(None, help="Sizes of the layers.")
    augment: bool = setting(True, help="Augment images.")
    internal: int = setting(0, help="Not offered.")


@pytest.fixture
def calls() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
def app(calls: list[tuple[str, dict[str, Any]]]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @takes_settings(Config, without=("internal",))
    def command(out: Annotated[str, typer.Option()] = "run", *, settings: dict[str, Any]) -> None:
        calls.append((out, settings))

    return app


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("", {}),  # the dataclass decides the defaults
        ("--rate 0.1 --epochs 0 --loss bce", {"rate": 0.1, "epochs": 0, "loss": "bce"}),
        ("--hidden 512,256 --no-augment", {"hidden": (512, 256), "augment": False}),
    ],
)
def test_only_given_options_are_passed(app, calls, line, settings):
    assert CliRunner().invoke(app, line.split()).exit_code == 0
    assert calls == [("run", settings)]


def test_malformed_numbers_are_refused(app, calls):
    outcome = CliRunner().invoke(app, ["--hidden", "512;256"])
    assert outcome.exit_code == 2
    assert "such as 512,256" in outcome.stderr
    assert calls == []


def test_help_shows_choices_and_defaults(app):
    text = " ".join(CliRunner().invoke(app, ["--help"], terminal_width=120).stdout.split())
    assert "Learning rate. Default: 0.1." in text
    assert "bce|focal Loss function. Default: bce." in text
    assert "--no-augment" in text
    assert "Augment images. Default: on." in text
    assert "internal" not in text
