"""Convert a published checkpoint, once, into a folder that ``load_encoder`` reads."""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from featurecache.encoders.checkpoint import (
    TRANSFORMERS,
    open_checkpoint,
    read_safetensors,
    unpickle,
)
from featurecache.encoders.pretrained import load_network
from featurecache.encoders.published_layouts import LAYOUTS, PublishedLayout
from featurecache.encoders.registry import exposed_to
from featurecache.encoders.timm import load_weights, require_timm
from featurecache.errors import CheckpointError, UnknownNameError, UsageError
from featurecache.io.atomic import new_folder
from featurecache.provenance.provenance import PROVENANCE_FILE, Provenance

if TYPE_CHECKING:
    import torch

_TIMM_PREFIX: Final = "timm:"
_WRAPPERS: Final = ("state_dict", "model", "model_state_dict", "module", "teacher", "backbone")
"""Entries of a training checkpoint that may hold the weights."""


def convert_checkpoint(
    source: str | os.PathLike[str], folder: str | os.PathLike[str], *, model: str
) -> Path:
    """Convert the weights that the authors of a model publish into safetensors, with a config.

    A pickled file is read with ``weights_only=True``: no code in it is run.

    Args:
        source: The published file, such as ``eva_x_base_patch16_merged520k_mim.pt``.
        folder: Folder to create. Give it to ``load_encoder``, or put it into
            ``$FEATURECACHE_MODELS`` under the name of the model.
        model: The model: a registered name whose weights are not on the hub in a known layout,
            such as ``eva-x-base``; or ``timm:NAME`` for weights of that architecture of timm.

    Returns:
        The folder.

    Raises:
        UnknownNameError: There is no such model, or its weights need not be converted.
        UsageError: The folder exists, or an optional dependency is not installed.
        CheckpointError: The file cannot be read, holds more than weights, or does not fit.
        OSError: The disk is full or not writable.

    Example:
        >>> import featurecache as fc
        >>> fc.convert_checkpoint(
        ...     "eva_x_base_patch16_merged520k_mim.pt", "models/eva-x-base", model="eva-x-base"
        ... )  # doctest: +SKIP
        >>> fc.load_encoder("eva-x-base", weights="models/eva-x-base")  # doctest: +SKIP
    """
    layout = _layout_of(model)
    source, folder = Path(source).expanduser(), Path(folder).expanduser()
    if folder.exists():
        raise UsageError(f"{folder} already exists: give another folder, or move it away")
    if layout.architecture != "dinov2_with_registers":
        require_timm(model)
    state = layout.rename(_read_weights(source, entry=layout.entry))
    with new_folder(folder) as unfinished:
        if layout.architecture == "dinov2_with_registers":
            _write_transformers(layout, state, unfinished, source=source)
        else:
            _write_timm(layout, state, unfinished, source=source)
        provenance = Provenance(exposed_to(model)).to_json()
        (unfinished / PROVENANCE_FILE).write_text(json.dumps(provenance), encoding="utf-8")
    return folder


def _layout_of(model: str) -> PublishedLayout:
    if model.startswith(_TIMM_PREFIX):
        return PublishedLayout(architecture=model.removeprefix(_TIMM_PREFIX), preprocessing={})
    if model not in LAYOUTS:
        hint = "weights of timm's architectures are converted for timm:NAME"
        raise UnknownNameError("model to convert", model, LAYOUTS, hint=hint)
    return LAYOUTS[model]


def _write_timm(
    layout: PublishedLayout, state: "dict[str, torch.Tensor]", folder: Path, *, source: Path
) -> None:
    import timm
    from timm.models import save_for_hf

    try:
        network = timm.create_model(
            layout.architecture,
            pretrained=False,
            num_classes=0,
            pretrained_cfg_overlay=dict(layout.preprocessing),
            **layout.arguments,
        )
    except RuntimeError as error:
        raise UsageError(f"timm has no model {layout.architecture!r}: {error}") from error
    load_weights(network, state, source=str(source))
    save_for_hf(
        network,
        str(folder),
        model_config={"pretrained_cfg": dict(layout.preprocessing)},
        model_args=dict(layout.arguments),
        safe_serialization=True,
    )


def _write_transformers(
    layout: PublishedLayout, state: "dict[str, torch.Tensor]", folder: Path, *, source: Path
) -> None:
    from safetensors.torch import save_file
    from transformers import Dinov2WithRegistersConfig

    Dinov2WithRegistersConfig(**layout.arguments).save_pretrained(folder)
    save_file(
        {key: tensor.contiguous() for key, tensor in state.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    (folder / "preprocessor_config.json").write_text(
        json.dumps(dict(layout.preprocessing), indent=2), encoding="utf-8"
    )
    try:
        load_network(open_checkpoint(folder, TRANSFORMERS))
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(folder), str(source))) from error


def _read_weights(path: Path, *, entry: str | None) -> "Mapping[str, torch.Tensor]":
    """Read the state dict in a file, wherever it is in there."""
    import torch

    if not path.is_file():
        raise CheckpointError(f"{path} is not a file: give the file that was downloaded")
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file starts with the length of its JSON, whatever its suffix is.
    if start[8:] == b"{":
        content: Any = read_safetensors(path)
    else:
        content = _unpickle(path)
    while not isinstance(content, Mapping) or not any(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        names = [entry] if entry else [name for name in _WRAPPERS if name in (content or ())]
        if not isinstance(content, Mapping) or len(names) != 1 or names[0] not in content:
            held = ", ".join(map(str, content)) if isinstance(content, Mapping) else "no weights"
            raise CheckpointError(
                f"{path} does not say which of its entries are the weights ({held}): save those "
                "alone with torch.save"
            )
        content, entry = content[names[0]], None
    return {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}


def _unpickle(path: Path) -> Any:
    """Read a file of ``torch.save``: tensors, numbers and arguments, and no other objects."""
    import torch

    # Training checkpoints hold their arguments, and the loss as a number of numpy.
    numbers = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)]
    scalar = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [
        argparse.Namespace,
        np.dtype,
        *numbers,
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
    ]
    with torch.serialization.safe_globals(allowed):
        return unpickle(
            path,
            holds="weights",
            advice="load it where its code is trusted, and save the weights alone, with "
            "torch.save(model.state_dict(), FILE)",
        )
