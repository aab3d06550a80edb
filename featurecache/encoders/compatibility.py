"""Whether two descriptions are of one encoder."""

from collections.abc import Mapping
from typing import Any

from featurecache.errors import RunError
from featurecache.io.fingerprint import first_difference


def library_difference(
    trained: Mapping[str, Any], present: Mapping[str, Any], *, run: object
) -> str | None:
    """Where an encoder differs from that of a run or cache by library versions alone, if it does.

    Other versions of the libraries may decode or resize a pixel differently; that is worth a
    warning. Anything else that differs makes the embeddings mean something else.

    Args:
        trained: ``image_spec`` of the run's or cache's encoder.
        present: of the encoder whose embeddings are to go with it.
        run: the run or cache, for the message.

    Returns:
        The difference; None for none.

    Raises:
        RunError: the weights, the preprocessing or the precision differ; the message names the
            field.
    """
    trained, present = dict(trained), dict(present)
    libraries = first_difference(trained.pop("libraries", {}), present.pop("libraries", {}))
    if difference := first_difference(trained, present):
        raise RunError(
            f"{run} was made with another encoder ({difference}): give the one that it was made "
            "with"
        )
    return libraries
