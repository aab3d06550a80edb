"""Low-rank adapters (LoRA) on the linear layers of a network's blocks.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685): a frozen
weight W becomes W + B A, where A and B have a small rank; B starts at zero, so training starts from
W. The adapters are those of the peft library.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from featurecache.encoders.seeding import seeded
from featurecache.errors import UsageError

if TYPE_CHECKING:
    from torch import nn


def add_lora(network: "nn.Module", blocks: "Sequence[nn.Module]", *, rank: int, seed: int) -> None:
    """Put an adapter on every linear layer of the blocks, and freeze all other weights.

    Args:
        network: Changed in place. Its outputs stay the same, because the adapters start at zero.
        blocks: Modules of the network.
        rank: Rank of the adapters. Their product is added unscaled (in the paper's terms,
            alpha = r).
        seed: Seed of the initial weights of the adapters.

    Raises:
        UsageError: peft is not installed, or the blocks have no linear layer.
    """
    if find_spec("peft") is None:
        raise UsageError("training lora-R needs peft: pip install 'featurecache[lora]'")
    from peft import LoraConfig, inject_adapter_in_model
    from torch import nn

    inside = {id(module) for block in blocks for module in block.modules()}
    names = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inside
    ]
    if not names:
        raise UsageError(
            "training lora-R needs linear layers, and the vision tower of this model, a "
            "convolutional one, has none: set `trainable` to last-N"
        )
    with seeded(seed):
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=names), network)


def merge_lora(network: "nn.Module") -> None:
    """Add the adapters to the weights they sit on, and remove them from the network."""
    if "peft" not in sys.modules:
        return  # no adapter can have been added, and importing peft takes seconds
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapters = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, BaseTunerLayer)
    ]
    for name, adapter in adapters:
        adapter.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, adapter.get_base_layer())
