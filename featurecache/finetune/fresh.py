"""Starting from fresh weights: an architecture becomes a checkpoint like any other."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder


def fresh_encoder(
    model: str, *, folder: Path, seed: int, weights: Path | None = None, device: str, precision: str
) -> "Encoder":
    """An encoder with a model's architecture, and weights that the seed draws.

    They are written as a checkpoint under ``folder``, once: its hash is then in the description of
    the encoder, and a training that goes on starts from the same file.

    Args:
        model: as ``load_encoder`` takes it; a folder needs no weights.
        folder: where checkpoints with fresh weights are kept.
        seed: decides every weight.
        weights: a local checkpoint of a registered model.
        device: as ``load_encoder`` takes it.
        precision: likewise.

    Raises:
        UnknownNameError: no such model.
        UsageError: the model cannot be trained.
        CheckpointError: a file is missing, or the model is of an unsupported shape.
    """
    from featurecache.encoders.loading import load_architecture, load_encoder
    from featurecache.store.schema import safe_name

    architecture = Path(model).expanduser()
    if architecture.is_dir():
        source = load_architecture(architecture, device=device)
    else:
        source = load_encoder(model, weights=weights, device=device)
    start = folder / f"seed-{seed}" / safe_name(source.name)
    if not start.is_dir():
        source.trainable(fresh_seed=seed).save(start)
    return load_encoder(str(start), device=device, precision=precision)
