"""Start from random weights: an architecture becomes a checkpoint like any other."""

import os
from pathlib import Path

from featurecache.encoders.encoder import Encoder
from featurecache.encoders.loading import as_encoder, load_architecture, load_encoder
from featurecache.errors import UsageError
from featurecache.store.layout import to_file_name


def load_source(
    model: str | os.PathLike[str] | Encoder,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str,
    precision: str,
) -> Encoder:
    """Load an encoder for its architecture; a model folder needs no weights.

    Args:
        model: See ``as_encoder``.
        weights: Local checkpoint of a registered model.
        device: See ``load_encoder``.
        precision: See ``load_encoder``.

    Raises:
        UnknownNameError: There is no such model.
        UsageError: The arguments contradict each other.
        CheckpointError: A file is missing, or the architecture is not supported.
    """
    if not isinstance(model, Encoder) and (folder := Path(model).expanduser()).is_dir():
        if weights is not None:
            raise UsageError(
                f"{model} gives the architecture, and its weights are drawn at random, so "
                f"{os.fspath(weights)} would not be used: leave out `weights`"
            )
        return load_architecture(folder, device=device)
    return as_encoder(model, weights=weights, device=device, precision=precision)


def randomly_initialized(source: Encoder, *, folder: Path, seed: int, precision: str) -> Encoder:
    """Return an encoder with the architecture of another, and random weights.

    The weights are written as a checkpoint under ``folder``, once: their hash is part of the
    encoder's spec, and a training that continues starts from the same file.

    Args:
        source: An encoder loaded by ``load_source``.
        folder: Where checkpoints with random weights are kept.
        seed: Seed of all weights.
        precision: See ``load_encoder``.

    Raises:
        UsageError: The model cannot be trained.
    """
    start = folder / f"seed-{seed}" / to_file_name(source.name)
    if not start.is_dir():
        source.trainable(init_seed=seed).save(start)
    return load_encoder(str(start), device=source.device, precision=precision)
