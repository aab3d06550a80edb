"""Read the weights of a run from a safetensors file, which may be untrusted."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.errors import RunError
from featurecache.io.system_errors import raise_if_inaccessible
from featurecache.runs.folder import run_file

if TYPE_CHECKING:
    from torch import Tensor

MAX_PRODUCT = 2**28
"""Limit on the entries of a matrix between two layers: a gigabyte of float32."""


def read_weights(folder: Path, name: str, *, sizes: Sequence[int]) -> "dict[str, Tensor]":
    """Read the tensors of a run's weight file, before a network is built for them.

    A network takes the memory that the sizes in ``config.json`` ask for, and a few digits there
    could ask for any amount. So each size must be the length of a side of some tensor in the file.

    Args:
        folder: The run folder.
        name: Name of the file.
        sizes: Lengths of embeddings, labels and hidden layers.

    Returns:
        Tensors by name.

    Raises:
        RunError: The file is missing or damaged, holds values that are not finite, or has other
            sizes.
        OSError: The file cannot be accessed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = run_file(folder, name)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise_if_inaccessible(error, path)
        raise RunError(
            f"{path} is damaged ({error}): restore it, or train the head again"
        ) from error
    if broken := [key for key, tensor in state.items() if not tensor.isfinite().all()]:
        raise RunError(f"{path} is damaged ({broken[0]} is not finite): train the head again")
    sides = {side for tensor in state.values() if tensor.numel() for side in tensor.shape}
    largest = sorted(sizes)[-2:]
    if not sides.issuperset(sizes) or largest[0] * largest[-1] > MAX_PRODUCT:
        raise RunError(
            f"run folder {folder} contradicts itself: its config asks for the sizes "
            f"{', '.join(map(str, sizes))}, which {name} does not have: restore it, or train the "
            "head again"
        )
    return state
