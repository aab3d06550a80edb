"""The exceptions: exit codes, built-in base classes, and messages with the closest names."""

import pytest

from featurecache import errors
from featurecache.errors import (
    AlignmentError,
    CacheError,
    CheckpointError,
    DatasetError,
    FeaturecacheError,
    ImageError,
    PromptError,
    RunError,
    UnknownNameError,
    UsageError,
)

MODELS = ["clip", "medclip", "xraysiglip", "rad-dino"]
USAGE_ERRORS = [
    UsageError,
    DatasetError,
    PromptError,
    CheckpointError,
    CacheError,
    RunError,
    AlignmentError,
]


@pytest.mark.parametrize("error", USAGE_ERRORS)
def test_a_user_error_exits_with_2_and_is_a_value_error(error: type[UsageError]) -> None:
    assert error.exit_code == 2
    assert issubclass(error, UsageError)
    assert issubclass(error, ValueError)
    # An OSError of our own would be reported as one of the operating system.
    assert not issubclass(error, OSError)


@pytest.mark.parametrize("error", [FeaturecacheError, ImageError])
def test_a_failure_exits_with_1(error: type[FeaturecacheError]) -> None:
    assert error.exit_code == 1
    assert not issubclass(error, UsageError)


def test_an_unknown_name_is_a_lookup_error_and_an_image_error_a_value_error() -> None:
    assert issubclass(UnknownNameError, UsageError)
    assert issubclass(UnknownNameError, LookupError)
    assert issubclass(ImageError, ValueError)


def test_all_exceptions_share_one_base() -> None:
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type)
        and value.__module__ == errors.__name__
        and not issubclass(value, Warning)
    ]
    assert FeaturecacheError in classes
    assert all(issubclass(value, FeaturecacheError) for value in classes)


@pytest.mark.parametrize("error", [*USAGE_ERRORS, FeaturecacheError, ImageError])
def test_the_message_is_the_text_unchanged(error: type[FeaturecacheError]) -> None:
    # str() of a KeyError would be quoted, that of an OSError rearranged.
    assert str(error("cache/a.h5 is 'damaged'")) == "cache/a.h5 is 'damaged'"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("xraysigllip", "unknown model 'xraysigllip': did you mean xraysiglip?"),
        ("raddino", "unknown model 'raddino': did you mean rad-dino?"),
        ("cclip", "unknown model 'cclip': did you mean clip or medclip?"),
        ("resnet", "unknown model 'resnet': choose from clip, medclip, rad-dino, xraysiglip"),
        ("", "unknown model '': choose from clip, medclip, rad-dino, xraysiglip"),
    ],
)
def test_an_unknown_name_gets_the_closest_names(name: str, message: str) -> None:
    assert str(UnknownNameError("model", name, MODELS)) == message


def test_a_hint_follows_the_names() -> None:
    message = str(UnknownNameError("model", "raddino", MODELS, hint="a folder will do, too"))
    assert message == "unknown model 'raddino': did you mean rad-dino?; a folder will do, too"


def test_at_most_three_names_are_offered() -> None:
    message = str(UnknownNameError("head", "headx", [f"head{i}" for i in range(9)]))
    assert message.count(" or ") == 2


def test_the_valid_names_may_be_any_iterable() -> None:
    message = str(UnknownNameError("label", "Mas", (name for name in ["Mass", "Nodule"])))
    assert message == "unknown label 'Mas': did you mean Mass?"
