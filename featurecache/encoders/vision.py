"""What an image network computes before its embedding, and the features that are made of it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featurecache.features import POOLED, PROJECTED, Features

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class VisionLayout:
    """What an image network can offer, as its configuration says.

    Attributes:
        widths: Length of a token after each layer, from the first layer to the last. A layer is a
            block of a transformer, or a stage of a network whose resolution falls from stage to
            stage.
        grid: Rows and columns of patches after the last layer.
        class_token: Whether the network has a class token.
        pooled: Length of the pooled vector; None if the network has none, or if its pooling is its
            projection.
        projected: Length of an embedding in the space that images share with texts; None if there
            is no such space.
    """

    widths: tuple[int, ...]
    grid: tuple[int, int]
    class_token: bool
    pooled: int | None = None
    projected: int | None = None

    @property
    def default(self) -> Features:
        """The features that are used where none are asked for."""
        return PROJECTED if self.projected else POOLED

    @property
    def offered(self) -> tuple[str, ...]:
        """The features, with all layers and with the finest grid to choose from."""
        layers = f"layers:-1,...,-{len(self.widths)}"
        return (
            *(["projected"] if self.projected else []),
            *(["pooled"] if self.pooled else []),
            *(["cls"] if self.class_token else []),
            "mean",
            *(["cls+mean", layers] if self.class_token else []),
            f"{layers}+mean",
            f"tokens:1,...,{min(self.grid)}",
        )

    def why_not(self, features: Features) -> str | None:
        """Return why the network cannot offer some features, in words; None if it can."""
        if features.name == "projected" and not self.projected:
            return "it projects into no space of images and texts"
        if features.name == "pooled" and not self.pooled:
            return "it has no pooled vector before a projection"
        if features.layers and -min(features.layers) > len(self.widths):
            return f"it has {len(self.widths)} layers"
        if features.grid is not None and features.grid > min(self.grid):
            return f"its grid is of {self.grid[0]} x {self.grid[1]} patches"
        if features.class_token and not self.class_token and not features.grid:
            if features.name in ("cls", "cls+mean"):
                return "it has no class token"
            if not features.mean:  # else the means alone
                return f"it has no class token: add +mean, as in {features}+mean"
        return None

    def n_tokens(self, features: Features) -> int | None:
        """Return the number of tokens of an image; None if the features are one vector."""
        return None if features.grid is None else features.grid**2 + self.class_token

    def dim(self, features: Features) -> int:
        """Return the length of an image's features; of all its tokens together."""
        if not features.layers:
            dim = self.projected if features.name == "projected" else self.pooled
            assert dim is not None
            return dim
        vectors = self.n_tokens(features) or (
            int(features.class_token and self.class_token) + features.mean
        )
        return vectors * sum(self.widths[layer] for layer in features.layers)


@dataclass(frozen=True)
class VisionOutput:
    """What an image network computed for B images.

    Attributes:
        layers: Tokens of the requested layers, (B, T, W) by layer, -1 for the last: the class
            token, if there is one, then the patch tokens row by row, without register tokens.
        pooled: The pooled vectors, (B, W); None if there are none.
        projected: The embeddings in the space that images share with texts, (B, D); None likewise.
    """

    layers: "Mapping[int, torch.Tensor]"
    pooled: "torch.Tensor | None" = None
    projected: "torch.Tensor | None" = None

    def select(self, features: Features, layout: VisionLayout) -> "torch.Tensor":
        """Return the features of the images, (B, D); tokens one after the other."""
        import torch

        if not features.layers:
            vectors = self.projected if features.name == "projected" else self.pooled
            assert vectors is not None
            return vectors
        first_patch = int(layout.class_token)
        if features.grid is not None:
            tokens = self.layers[-1]
            return torch.cat(
                [
                    tokens[:, :first_patch].flatten(1),
                    _average(tokens[:, first_patch:], layout.grid, features.grid).flatten(1),
                ],
                dim=1,
            )
        vectors_of_layers = []
        for layer in features.layers:
            tokens = self.layers[layer]
            if features.class_token and layout.class_token:
                vectors_of_layers.append(tokens[:, 0])
            if features.mean:
                vectors_of_layers.append(tokens[:, first_patch:].mean(dim=1))
        return torch.cat(vectors_of_layers, dim=1)


def _average(patches: "torch.Tensor", grid: tuple[int, int], side: int) -> "torch.Tensor":
    """Average patch tokens, (B, P, W), to a grid of ``side`` x ``side``: (B, side * side, W)."""
    from torch.nn.functional import adaptive_avg_pool2d

    maps = patches.transpose(1, 2).reshape(-1, patches.shape[2], *grid)
    return adaptive_avg_pool2d(maps, side).flatten(2).transpose(1, 2)


def map_tokens(maps: "torch.Tensor") -> "torch.Tensor":
    """Return the cells of feature maps, (B, W, rows, columns), as tokens (B, P, W)."""
    return maps.flatten(2).transpose(1, 2)


_recorded: "ContextVar[tuple[dict[int, torch.Tensor], Collection[int]]]" = ContextVar("recorded")


@contextmanager
def recorded(
    layers: "Sequence[torch.nn.Module]", wanted: Collection[int]
) -> "Iterator[Mapping[int, torch.Tensor]]":
    """Record what layers of a network return in the body, in this thread.

    Only these outputs are kept, where ``output_hidden_states`` of transformers keeps those of all
    layers in memory.

    Args:
        layers: The layers, from the first to the last.
        wanted: Those to record, -1 for the last.

    Yields:
        The outputs by layer, filled in by a forward pass in the body.
    """
    for layer in wanted:
        module: Any = layers[layer]
        # Each call has outputs of its own, but hooks belong to all calls: they stay, one a layer.
        if not any(isinstance(hook, _Recorder) for hook in module._forward_hooks.values()):
            module.register_forward_hook(_Recorder(layer))
    outputs: dict[int, torch.Tensor] = {}
    token = _recorded.set((outputs, wanted))
    try:
        yield outputs
    finally:
        _recorded.reset(token)


@dataclass(frozen=True)
class _Recorder:
    """A hook that keeps what a layer returns, if the thread that runs it asked for it."""

    layer: int

    def __call__(self, module: "torch.nn.Module", inputs: object, output: Any) -> None:
        outputs, wanted = _recorded.get(({}, ()))
        if self.layer in wanted:
            outputs[self.layer] = output[0] if isinstance(output, tuple) else output
