"""Configuration dataclasses validate themselves."""

from dataclasses import dataclass
from typing import Literal

import pytest

from featurecache.errors import UnknownNameError, UsageError
from featurecache.settings import check_settings, choices, setting


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
