"""Configuration dataclasses validate themselves."""

import inspect
from dataclasses import dataclass, fields
from typing import Literal

import pytest

from featurecache.errors import UnknownNameError, UsageError
from featurecache.settings import (
    accept_settings,
    check_settings,
    choices,
    describe_settings,
    setting,
)


@dataclass(frozen=True)
class Config:
    loss: Literal["bce", "mse"] = setting("bce", help="Loss.")
    kind: Literal["a", "b"] | None = setting(None, help="Kind.")
    rate: float = setting(0.1, help="Rate.", above=0, below=1)
    epochs: int | None = setting(None, help="Epochs.", minimum=1)

    def __post_init__(self) -> None:
        check_settings(self)


@pytest.mark.parametrize(
    "valid", [{}, {"loss": "mse", "kind": "a", "rate": 0.5, "epochs": 1}, {"epochs": None}]
)
def test_valid_settings_are_accepted(valid):
    Config(**valid)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", 0),
        ("rate", 1.0),
        ("rate", float("nan")),
        ("rate", float("inf")),
        ("epochs", 0),
        ("epochs", -3),
    ],
)
def test_number_out_of_range_is_refused(name, value):
    with pytest.raises(UsageError, match=f"`{name}` is {value}: must be "):
        Config(**{name: value})


def test_error_states_the_whole_range():
    with pytest.raises(UsageError, match=r"`rate` is 2\.0: must be finite and above 0 and below 1"):
        Config(rate=2.0)


@pytest.mark.parametrize(("name", "value"), [("loss", "bcee"), ("kind", "c")])
def test_unknown_choice_is_refused(name, value):
    with pytest.raises(UnknownNameError, match=f"unknown {name} '{value}'"):
        Config(**{name: value})


def test_choices_of_a_literal_are_its_values():
    assert choices(Literal["a", "b"]) == ("a", "b")
    assert choices(Literal["a", "b"] | None) == ("a", "b")
    assert choices(int | None) == choices(str) == ()


def test_help_is_added_to_the_docstring():
    described = describe_settings(Config)
    assert f"        rate: {_help('rate')}" in described.__doc__


def test_function_shows_the_settings_that_it_accepts():
    @accept_settings(Config)
    def function(data, *, epochs=7, **settings):
        """Do something.

        Args:
            data: The data.
            epochs: Its own argument.
            **settings: see ``Config``.
        """

    parameters = inspect.signature(function).parameters
    assert list(parameters) == ["data", "epochs", "loss", "kind", "rate"]
    assert parameters["epochs"].default == 7
    assert f"rate: {_help('rate')}" in function.__doc__
    assert "**settings" not in function.__doc__


def _help(name):
    return next(field.metadata["help"] for field in fields(Config) if field.name == name)
