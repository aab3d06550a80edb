"""An encoder in training: its network with gradients, which parts move, and back to a folder."""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from featurecache.encoders.lora import add_lora, merge_lora
from featurecache.errors import UsageError
from featurecache.io.atomic import new_folder

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ModuleGroups:
    """Where an encoder can be cut for training.

    Attributes:
        vision: the whole vision tower with its projection.
        blocks: the tower's blocks in order, each with what stands between it and the next: in a
            Swin, the merging of patches.
        tail: what follows the last block: the final norm, a pooling head, the projection.
        projections: what maps each tower's output into the joint space; empty without one. In
            SigLIP's vision tower that is the pooling head.
    """

    vision: "tuple[nn.Module, ...]"
    blocks: "tuple[nn.Module, ...]"
    tail: "tuple[nn.Module, ...]"
    projections: "tuple[nn.Module, ...]"


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainableEncoder:
    """A network in fp32 with gradients, apart from the one that its encoder infers with.

    It is made in eval mode, so that it embeds as the encoder does, with every parameter trainable;
    ``module.train()`` switches on the dropout of those that have any. Precision is the caller's:
    what runs under autocast gives what autocast gives.

    Attributes:
        module: holds every parameter of the encoder, logit scale and bias included.
        parts: where it can be cut; see ``set_trainable``.
        embed_images: pixels, float32 of shape (B, 3, H, W) on the module's device, to (B, D), not
            normalised, as ``Encoder.embed_pixels`` has it.
        embed_texts: T texts to (T, D), not normalised, tokenised and padded as in
            ``Encoder.encode_texts``. UsageError where there is no text tower.
        write_network: writes config.json and model.safetensors into an empty folder.
        files: the files of the image processor and the tokenizer, which training leaves alone.
        log_scale_range: what the model's own training clamped ``log_scale`` to; None: nothing.
    """

    module: "nn.Module"
    parts: ModuleGroups
    embed_images: "Callable[[Tensor], Tensor]"
    embed_texts: "Callable[[Sequence[str]], Tensor]"
    write_network: Callable[[Path], None]
    files: tuple[Path, ...]
    log_scale_range: tuple[float, float] | None = None

    @property
    def log_scale(self) -> "nn.Parameter | None":
        """The logarithm of the factor on the cosine, one element; None without a joint space."""
        parameter: nn.Parameter | None = getattr(self.module, "logit_scale", None)
        return parameter

    @property
    def bias(self) -> "nn.Parameter | None":
        """SigLIP's additive logit bias, one element; None where there is none."""
        parameter: nn.Parameter | None = getattr(self.module, "logit_bias", None)
        return parameter

    @property
    def contrastive(self) -> Literal["softmax", "sigmoid"] | None:
        """The contrastive loss that its logits are made for; None without a joint space."""
        if self.log_scale is None:
            return None
        return "softmax" if self.bias is None else "sigmoid"

    def scale(self) -> "Tensor | None":
        """``exp(log_scale)`` with its gradient; None where ``log_scale`` is None.

        A parameter that has left ``log_scale_range`` is first set to the range's end, as in
        MedCLIP's own training. Clamping in the graph instead would leave it without a gradient,
        and so outside for good.
        """
        import torch

        if self.log_scale is None:
            return None
        if self.log_scale_range is not None:
            with torch.no_grad():
                self.log_scale.clamp_(*self.log_scale_range)
        return self.log_scale.exp()

    def set_trainable(self, part: str, *, seed: int = 0) -> int:
        """Freeze everything but one part; a logit scale and bias train with any part.

        Args:
            part: ``all``; ``vision``, the vision tower with its projection; ``last-N``, the last
                N blocks of the vision tower with what follows them; ``lora-R``, adapters of rank R
                on the linear layers of the vision tower's blocks; ``head``, none of the towers,
                only the projections into the joint space.
            seed: of the adapters' first weights.

        Returns:
            The number of trainable parameters; 0 for the ``head`` of a vision-only encoder.

        Raises:
            UsageError: there is no such part, or an extra is missing; everything is as it was.
        """
        if rank := _number(part, "lora"):
            add_lora(self.module, self.parts.blocks, rank=rank, seed=seed)
        else:
            chosen = self._modules_of(part)
            self.module.requires_grad_(False)
            for module in chosen:
                module.requires_grad_(True)
        for parameter in (self.log_scale, self.bias):
            if parameter is not None:
                parameter.requires_grad_(True)
        return sum(value.numel() for value in self.module.parameters() if value.requires_grad)

    def merge_lora(self) -> None:
        """End training with ``lora-R``: the adapters' products become part of the weights."""
        merge_lora(self.module)

    def save(self, folder: Path) -> None:
        """Write a checkpoint folder that ``load_encoder`` reads, whole or not at all.

        For all but MedCLIP, transformers' ``AutoModel.from_pretrained`` reads it as well. The
        files of the image processor and the tokenizer are those of the source, byte for byte.

        Raises:
            UsageError: something is at ``folder`` already.
            OSError: the disk is full or not writable.
        """
        if folder.exists():
            raise UsageError(f"{folder} is there already: give another folder, or move it away")
        with new_folder(folder) as unfinished:
            self.write_network(unfinished)
            for path in self.files:
                shutil.copyfile(path, unfinished / path.name)

    def _modules_of(self, part: str) -> "tuple[nn.Module, ...]":
        blocks = self.parts.blocks
        named = {"all": (self.module,), "vision": self.parts.vision, "head": self.parts.projections}
        if part in named:
            return named[part]
        last = _number(part, "last")
        if last == 0 or last > len(blocks):
            raise UsageError(
                f"there is no part {part!r} to train: the vision tower has {len(blocks)} blocks, "
                f"so last-1 to last-{len(blocks)} are known, lora-1 and more, and "
                f"{', '.join(named)}"
            )
        return (*blocks[-last:], *self.parts.tail)


def _number(part: str, kind: str) -> int:
    """N of a part "kind-N"; 0 where it is none."""
    found = re.fullmatch(f"{kind}-([1-9][0-9]*)", part)
    return int(found[1]) if found else 0
