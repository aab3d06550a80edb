"""An encoder in training: its network with gradients, which weights train, and how to save it."""

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
    """The modules of an encoder that can be trained separately.

    Attributes:
        vision: The whole vision tower with its projection.
        blocks: The blocks of the vision tower in order, each with what follows it before the next
            block, such as the patch merging of a Swin transformer.
        tail: What follows the last block: the final norm, a pooling head, the projection.
        projections: What maps the output of each tower into the joint embedding space; empty
            without one. In SigLIP's vision tower that is the pooling head.
    """

    vision: "tuple[nn.Module, ...]"
    blocks: "tuple[nn.Module, ...]"
    tail: "tuple[nn.Module, ...]"
    projections: "tuple[nn.Module, ...]"


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainableEncoder:
    """A network in fp32 with gradients, separate from the one its encoder uses for inference.

    It starts in eval mode, so that it embeds as the encoder does, with every parameter trainable;
    ``module.train()`` enables dropout where there is any. The caller decides on autocast.

    Attributes:
        module: Holds every parameter of the encoder, logit scale and bias included.
        groups: The modules that can be trained separately; see ``set_trainable``.
        embed_images: Maps pixels, float32 of shape (B, 3, H, W) on the module's device, to
            embeddings (B, D), not normalized, as ``Encoder.embed_pixels`` does.
        embed_texts: Maps T texts to embeddings (T, D), not normalized, as
            ``Encoder.encode_texts`` does. Raises UsageError without a text tower.
        warn_of_cut_texts: Warns where the end of texts is cut, as ``Encoder.encode_texts`` does.
        write_network: Writes config.json and model.safetensors into an empty folder.
        files: The files of the image processor and the tokenizer, which training does not change.
        log_scale_range: The range that the model's own training clamps ``log_scale`` to; None for
            no clamping.
    """

    module: "nn.Module"
    groups: ModuleGroups
    embed_images: "Callable[[Tensor], Tensor]"
    embed_texts: "Callable[[Sequence[str]], Tensor]"
    warn_of_cut_texts: Callable[[Sequence[str]], None]
    write_network: Callable[[Path], None]
    files: tuple[Path, ...]
    log_scale_range: tuple[float, float] | None = None

    @property
    def log_scale(self) -> "nn.Parameter | None":
        """Logarithm of the factor on the cosine, one element; None without a joint space."""
        parameter: nn.Parameter | None = getattr(self.module, "logit_scale", None)
        return parameter

    @property
    def bias(self) -> "nn.Parameter | None":
        """SigLIP's additive logit bias, one element; None if there is none."""
        parameter: nn.Parameter | None = getattr(self.module, "logit_bias", None)
        return parameter

    @property
    def contrastive(self) -> Literal["softmax", "sigmoid"] | None:
        """The contrastive loss of the model's own training; None without a joint space."""
        if self.log_scale is None:
            return None
        return "softmax" if self.bias is None else "sigmoid"

    def scale(self) -> "Tensor | None":
        """Return ``exp(log_scale)`` with its gradient; None without a joint space.

        A parameter that has left ``log_scale_range`` is first set to the end of the range, as in
        MedCLIP's own training. Clamping inside the graph would leave it without a gradient, so
        that it could never come back.
        """
        import torch

        if self.log_scale is None:
            return None
        if self.log_scale_range is not None:
            with torch.no_grad():
                self.log_scale.clamp_(*self.log_scale_range)
        return self.log_scale.exp()

    def set_trainable(self, which: str, *, seed: int = 0) -> int:
        """Freeze all weights but one group. The logit scale and bias always train.

        Args:
            which: ``all``; ``vision``, the vision tower with its projection; ``last-N``, the last
                N blocks of the vision tower with what follows them; ``lora-R``, LoRA adapters of
                rank R on the linear layers of the blocks of the vision tower; ``head``, only the
                projections into the joint embedding space.
            seed: Seed of the initial weights of the adapters.

        Returns:
            The number of trainable parameters; 0 for the ``head`` of a vision-only encoder.

        Raises:
            UsageError: There is no such group, or an optional dependency is missing. Nothing has
                been changed then.
        """
        if rank := _number(which, "lora"):
            add_lora(self.module, self.groups.blocks, rank=rank, seed=seed)
        else:
            modules = self._modules_of(which)
            self.module.requires_grad_(False)
            for module in modules:
                module.requires_grad_(True)
        for parameter in (self.log_scale, self.bias):
            if parameter is not None:
                parameter.requires_grad_(True)
        return sum(value.numel() for value in self.module.parameters() if value.requires_grad)

    def merge_lora(self) -> None:
        """Add the products of LoRA adapters to the weights, and remove the adapters."""
        merge_lora(self.module)

    def save(self, folder: Path) -> None:
        """Write a checkpoint folder for ``load_encoder``, completely or not at all.

        For all models but MedCLIP, transformers' ``AutoModel.from_pretrained`` reads it as well.
        Its ``get_image_features`` gives the embeddings of the encoder, except for a dual encoder
        with a BiT such as tiny, whose pooled maps it does not flatten.
        The files of the image processor and the tokenizer are copied from the source.

        Raises:
            UsageError: ``folder`` exists.
            OSError: The disk is full or not writable.
        """
        if folder.exists():
            raise UsageError(f"{folder} already exists: give another folder, or move it away")
        with new_folder(folder) as unfinished:
            self.write_network(unfinished)
            for path in self.files:
                shutil.copyfile(path, unfinished / path.name)

    def _modules_of(self, which: str) -> "tuple[nn.Module, ...]":
        blocks = self.groups.blocks
        by_name = {
            "all": (self.module,),
            "vision": self.groups.vision,
            "head": self.groups.projections,
        }
        if which in by_name:
            return by_name[which]
        last = _number(which, "last")
        if last == 0 or last > len(blocks):
            raise UsageError(
                f"cannot train {which!r}: the vision tower has {len(blocks)} blocks, so set "
                f"`trainable` to last-1 to last-{len(blocks)}, lora-1 and more, or one of "
                f"{', '.join(by_name)}"
            )
        return (*blocks[-last:], *self.groups.tail)


def _number(which: str, kind: str) -> int:
    """Return N of "kind-N"; 0 for anything else."""
    match = re.fullmatch(f"{kind}-([1-9][0-9]*)", which)
    return int(match[1]) if match else 0
