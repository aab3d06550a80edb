"""Check that the encoder at hand is the one that a cache or a run was made with."""

from collections.abc import Mapping, Sequence
from typing import Any

from featurecache.errors import RunError, UsageError
from featurecache.io.fingerprint import first_difference
from featurecache.provenance.encoder_spec import DEFAULTS
from featurecache.wording import count_noun


def library_difference(
    expected: Mapping[str, Any], actual: Mapping[str, Any], *, source: object
) -> str | None:
    """Return where two encoder specs differ if they differ by library versions alone.

    Other versions of the libraries may decode or resize a pixel slightly differently, which is
    worth a warning. Any other difference makes the embeddings incomparable.

    Args:
        expected: Spec of the encoder that a run or cache was made with.
        actual: Spec of the encoder whose embeddings are to be used with it.
        source: The run or cache, named in the message.

    Returns:
        The difference, such as ``torch: '2.12' against '2.13'``; None if there is none.

    Raises:
        RunError: The weights, the preprocessing or the precision differ; the message names the
            field.
    """
    expected, actual = dict(expected), dict(actual)
    libraries = first_difference(expected.pop("libraries", {}), actual.pop("libraries", {}))
    for name, default in DEFAULTS.items():
        value, other = (spec.pop(name, default) for spec in (expected, actual))
        if value != other:
            raise RunError(
                f"{source} used `{name}` {value!r}, but these embeddings `{name}` {other!r}: use "
                f"embeddings extracted with `{name}` {value!r}"
            )
    if difference := first_difference(expected, actual):
        raise RunError(
            f"{source} was made with another encoder ({difference}): give the one that it was made "
            "with"
        )
    return libraries


def check_encoder_specs(
    expected: Sequence[Mapping[str, Any]],
    actual: Sequence[Mapping[str, Any]],
    *,
    source: object,
) -> list[str]:
    """Check that the encoders of a cache are those that a model was trained on, in their order.

    Args:
        expected: Specs of the encoders that the model was trained on.
        actual: Specs of the encoders of the cache.
        source: The run of the model, named in messages.

    Returns:
        The differences of encoders that ran with other library versions; see
        ``library_difference``.

    Raises:
        UsageError: The number of encoders differs.
        RunError: An encoder differs; the message names the field.
    """
    if len(expected) != len(actual):
        raise UsageError(
            f"{source} takes the embeddings of {count_noun(len(expected), 'encoder')}, but `cache` "
            f"gives {len(actual)}: give the caches of its encoders, in their order"
        )
    differences = (
        library_difference(old, new, source=source)
        for old, new in zip(expected, actual, strict=True)
    )
    return [difference for difference in differences if difference]
