"""MedCLIP's network: build it, read its published state dict, and write it back in that layout.

Both towers are built from their configurations, since the checkpoint overwrites every weight.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.encoders.checkpoint import Checkpoint, check_keys, read_tensors
from featurecache.encoders.trainable import ModuleGroups
from featurecache.errors import CheckpointError

if TYPE_CHECKING:
    import torch

MODEL_TYPE = "medclip"
"""The ``model_type`` in the ``config.json`` of saved weights; the published ones have no config."""

SIDE = 224
SWIN: dict[str, Any] = {
    "patch_size": 4,
    "embed_dim": 96,
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
}
"""Configuration of Swin-T."""
_VOCABULARY_SIZE = 28_996
EMBEDDING_SIZE = 512
HIDDEN_SIZE = 768
_INITIAL_LOGIT_SCALE = math.log(1 / 0.07)

# How transformers renamed Swin's modules after 5.0, in the order in which the names must be
# replaced: "output.dense" is also the end of "attention.output.dense".
_SWIN_RENAMES = (
    ("attention.self.relative_position_", "attention.relative_position_bias.relative_position_"),
    ("attention.self.query", "attention.q_proj"),
    ("attention.self.key", "attention.k_proj"),
    ("attention.self.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)
# Constants that old releases of transformers saved and current ones compute.
_COMPUTED = ("relative_position_index", "embeddings.position_ids")


def build_network() -> "torch.nn.ModuleDict":
    """Build both towers and the logit scale with random weights, in eval mode.

    The keys are those of the published state dict, except that Swin's modules have the names of
    the installed transformers.
    """
    import torch
    from torch.nn import Linear, ModuleDict, Parameter
    from transformers import BertConfig, BertModel, SwinConfig, SwinModel

    swin = SwinConfig(image_size=SIDE, **SWIN)
    bert = BertConfig(vocab_size=_VOCABULARY_SIZE)
    towers = {"vision_model": SwinModel(swin), "text_model": BertModel(bert)}
    network = ModuleDict(
        {
            name: ModuleDict(
                {
                    "model": tower,
                    "projection_head": Linear(HIDDEN_SIZE, EMBEDDING_SIZE, bias=False),
                }
            )
            for name, tower in towers.items()
        }
    )
    network.register_parameter("logit_scale", Parameter(torch.tensor(_INITIAL_LOGIT_SCALE)))
    return network.eval()


def read_network(checkpoint: Checkpoint) -> "torch.nn.ModuleDict":
    """Read the network of a checkpoint; every weight must fit.

    Raises:
        CheckpointError: There are no weights, they cannot be read, or they do not fit.
    """
    from transformers.initialization import no_init_weights

    checkpoint.require_weights()
    with no_init_weights():  # random weights would take longer than reading the checkpoint's
        network = build_network()
    expected = set(network.state_dict())
    state = {
        _current_name(key, expected): tensor
        for file in checkpoint.weights
        for key, tensor in read_tensors(file).items()
        if key in expected or not key.endswith(_COMPUTED)
    }
    path = checkpoint.weights[0]
    check_keys(path, missing=expected - state.keys(), unexpected=state.keys() - expected)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:  # a tensor of another shape
        raise CheckpointError(f"the weights in {path} are not MedCLIP-ViT's: {error}") from error
    return network


def write_network(network: "torch.nn.ModuleDict", folder: Path) -> None:
    """Write ``model.safetensors`` with the published names, and a ``config.json``.

    Raises:
        OSError: The disk is full or not writable.
    """
    from safetensors.torch import save_file

    constants = {name: value for name, value in network.named_buffers() if name.endswith(_COMPUTED)}
    state = {
        _published_name(name): value.contiguous()
        for name, value in (constants | network.state_dict()).items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": MODEL_TYPE}), encoding="utf-8")


def module_groups(network: Any) -> ModuleGroups:
    """Return the groups of the network; the blocks are the twelve of Swin's four stages."""
    from torch.nn import ModuleList

    vision = network["vision_model"]
    swin, projection = vision["model"], vision["projection_head"]
    blocks = []
    for stage in swin.encoder.layers:
        *first_blocks, last_block = stage.blocks
        patch_merging = [] if stage.downsample is None else [stage.downsample]
        blocks += [*first_blocks, ModuleList([last_block, *patch_merging])]
    return ModuleGroups(
        vision=(vision,),
        blocks=tuple(blocks),
        tail=(swin.layernorm, projection),
        projections=(projection, network["text_model"]["projection_head"]),
    )


def _current_name(key: str, expected: set[str]) -> str:
    # The built network decides which names are current, not a version number.
    if key in expected or not key.startswith("vision_model."):
        return key
    for old, new in _SWIN_RENAMES:
        key = key.replace(old, new)
    return key


def _published_name(key: str) -> str:
    if not key.startswith("vision_model."):
        return key
    for old, new in _SWIN_RENAMES:
        key = key.replace(new, old)
    return key
