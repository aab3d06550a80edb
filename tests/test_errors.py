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


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (FeaturecacheError, 1),
        (ImageError, 1),
        (UsageError, 2),
        (UnknownNameError, 2),
        (DatasetError, 2),
        (PromptError, 2),
        (CheckpointError, 2),
        (CacheError, 2),
        (RunError, 2),
        (AlignmentError, 2),
    ],
)
def test_a_users_mistake_exits_with_2_and_a_failure_with_1(
    error: type[FeaturecacheError], exit_code: int
) -> None:
    assert error.exit_code == exit_code
    assert issubclass(error, UsageError) == (exit_code == 2)


def test_every_exception_has_the_one_base() -> None:
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    classes = [value for value in found if value.__module__ == errors.__name__]
    assert FeaturecacheError in classes
    assert all(issubclass(value, FeaturecacheError) for value in classes)
    # An OSError or a ValueError of our own would be swallowed where Python's are caught.
    assert not any(issubclass(value, OSError | ValueError) for value in classes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("xraysigllip", "unknown model 'xraysigllip': did you mean xraysiglip?"),
        ("raddino", "unknown model 'raddino': did you mean rad-dino?"),
        ("cclip", "unknown model 'cclip': did you mean clip or medclip?"),
        ("resnet", "unknown model 'resnet': known: clip, medclip, rad-dino, xraysiglip"),
        ("", "unknown model '': known: clip, medclip, rad-dino, xraysiglip"),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(name: str, message: str) -> None:
    assert str(UnknownNameError("model", name, MODELS)) == message


def test_at_most_three_names_are_offered() -> None:
    message = str(UnknownNameError("head", "headx", [f"head{i}" for i in range(9)]))
    assert message.count(" or ") == 2


def test_the_known_names_may_come_from_any_iterable() -> None:
    message = str(UnknownNameError("label", "Mas", (name for name in ["Mass", "Nodule"])))
    assert message == "unknown label 'Mas': did you mean Mass?"
