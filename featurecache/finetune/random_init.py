"""Starting from fresh weights: an architecture becomes a checkpoint like any other."""

from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.errors import UsageError

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder


def load_source(
    model: str, *, weights: Path | None = None, device: str, precision: str
) -> "Encoder":
    """The encoder that lends its architecture; a folder needs no weights.

    Args:
        model: as ``load_encoder`` takes it.
        weights: a local checkpoint of a registered model.
        device: as ``load_encoder`` takes it.
        precision: likewise.

    Raises:
        UnknownNameError: no such model.
        UsageError: the options contradict each other.
        CheckpointError: a file is missing, or the model is of an unsupported shape.
    """
    from featurecache.encoders.loading import load_architecture, load_encoder

    architecture = Path(model).expanduser()
    if architecture.is_dir():
        if weights is not None:
            raise UsageError(
                f"--weights {weights} would not be used, for {model} gives the architecture and "
                "fresh weights are drawn: leave one of them out"
            )
        return load_architecture(architecture, device=device)
    return load_encoder(model, weights=weights, device=device, precision=precision)


def randomly_initialized(
    source: "Encoder", *, folder: Path, seed: int, precision: str
) -> "Encoder":
    """An encoder with the architecture of another, and weights that the seed draws.

    They are written as a checkpoint under ``folder``, once: its hash is then in the description of
    the encoder, and a training that goes on starts from the same file.

    Args:
        source: as ``load_source`` gives it.
        folder: where checkpoints with fresh weights are kept.
        seed: decides every weight.
        precision: as ``load_encoder`` takes it.

    Raises:
        UsageError: the model cannot be trained.
    """
    from featurecache.encoders.loading import load_encoder
    from featurecache.store.layout import to_file_name

    start = folder / f"seed-{seed}" / to_file_name(source.name)
    if not start.is_dir():
        source.trainable(init_seed=seed).save(start)
    return load_encoder(str(start), device=source.device, precision=precision)
