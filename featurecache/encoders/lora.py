"""Low-rank adapters (LoRA) on the linear layers of a network's blocks.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685): a frozen
weight W becomes W + B A, where A and B have a small rank; B starts at zero, so training starts from
W. The adapters themselves are those of the peft library.
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
    """Put an adapter on every linear layer of the blocks, and freeze all else.

    Args:
        network: changed in place; what it gives is as before, for the adapters start at zero.
        blocks: parts of it.
        rank: of the adapters. Their product is added as it is (in the paper's terms, alpha = r).
        seed: of their first weights.

    Raises:
        UsageError: the library that adapters need is not installed, or the blocks have no linear
            layer.
    """
    if find_spec("peft") is None:
        raise UsageError(
            "--trainable lora-R needs the library peft: pip install 'featurecache[lora]'"
        )
    from peft import LoraConfig, inject_adapter_in_model
    from torch import nn

    inside = {id(part) for block in blocks for part in block.modules()}
    names = [
        name
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear) and id(part) in inside
    ]
    if not names:
        raise UsageError(
            "--trainable lora-R needs linear layers, and the vision blocks of this model, a "
            "convolutional one, have none: take --trainable last-N"
        )
    with seeded(seed):
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=names), network)


def merge_lora(network: "nn.Module") -> None:
    """Add the adapters into the weights they sit on, and take them out of the network again."""
    if "peft" not in sys.modules:
        return  # nobody can have put an adapter in; importing it takes seconds
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [
        (name, part) for name, part in network.named_modules() if isinstance(part, BaseTunerLayer)
    ]
    for name, part in adapted:
        part.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, part.get_base_layer())
