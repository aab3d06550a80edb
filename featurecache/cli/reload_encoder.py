"""The encoder that something was made with, found again."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.cli.output import warn

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder


def reload_encoder(
    made: Path,
    name: str,
    description: Mapping[str, Any],
    *,
    model: str | None,
    weights: Path | None,
    device: str,
) -> "Encoder":
    """Load the encoder of a cache or a run, in its precision; say where libraries differ.

    Args:
        made: the cache or the run.
        name: the encoder, as it says itself.
        description: of the encoder, as it says itself.
        model: what to load in place of the name; None for the name.
        weights: a local checkpoint; None for the usual places.
        device: where it runs.

    Raises:
        RunError: it is another encoder.
    """
    from featurecache.encoders.compatibility import library_difference
    from featurecache.encoders.loading import load_encoder

    precision = str(description.get("precision", "auto"))
    encoder = load_encoder(model or name, weights=weights, device=device, precision=precision)
    if difference := library_difference(description, encoder.image_spec, run=made):
        warn(f"{made} was made with other library versions ({difference})")
    return encoder
