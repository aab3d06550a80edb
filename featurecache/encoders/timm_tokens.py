"""The tokens of any network of timm."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from featurecache.encoders.vision import VisionLayout, map_tokens, recorded

if TYPE_CHECKING:
    import torch


class TimmTokens:
    """Where networks of one architecture of timm have their tokens.

    Args:
        skeleton: A network of this architecture, on the device "meta".
        pixels_shape: Channels, height and width of its images.
    """

    def __init__(self, skeleton: Any, pixels_shape: tuple[int, int, int]) -> None:
        self._skeleton = skeleton
        self._pixels_shape = pixels_shape

    def layout(self, *, pooled: int | None, projected: int | None = None) -> VisionLayout | None:
        """Return what the network computes, as a forward pass without values shows.

        Args:
            pooled: See ``VisionLayout``.
            projected: Likewise.

        Returns:
            None if nothing but its embedding can be had.
        """
        import torch

        pixels = torch.empty(1, *self._pixels_shape, device="meta")
        layers = range(-len(self._layers(self._skeleton)), -1)
        try:
            tokens_by_layer, output = self.compute(self._skeleton, pixels, layers)
        except (NotImplementedError, RuntimeError, TypeError):  # it needs values, or has no tokens
            return None
        last = tokens_by_layer[-1]
        grid = self._grid(output)
        if last.shape[1] != grid[0] * grid[1] + self._class_token:
            return None
        widths = [last.shape[2]]
        for layer in reversed(layers):
            tokens = tokens_by_layer[layer]
            if self._class_token and tokens.shape[1] != last.shape[1]:
                break  # these have no class token yet
            widths.insert(0, tokens.shape[2])
        return VisionLayout(
            widths=tuple(widths),
            grid=grid,
            class_token=self._class_token,
            pooled=pooled,
            projected=projected,
        )

    def compute(
        self, network: Any, pixels: "torch.Tensor", layers: Collection[int]
    ) -> "tuple[dict[int, torch.Tensor], torch.Tensor]":
        """Return the tokens of the last layer and of others, and what ``forward_head`` takes.

        Args:
            network: The network.
            pixels: Its images, (B, C, H, W).
            layers: The layers, -1 for the last.
        """
        with recorded(self._layers(network), set(layers) - {-1}) as outputs:
            last = network.forward_features(pixels)
        norm, is_applied = self._token_norm(network)
        tokens = {-1: self._tokens(last if is_applied or last.ndim == 4 else norm(last))}
        for layer, one in outputs.items():  # The norm fits no width but that of the last layer.
            tokens[layer] = self._tokens(norm(one) if one.ndim == 3 else one)
        return tokens, last

    def _grid(self, output: "torch.Tensor") -> tuple[int, int]:
        if output.ndim == 4:
            rows, columns = output.shape[1:3] if self._is_channels_last else output.shape[2:4]
        else:
            reduction = self._skeleton.feature_info[-1]["reduction"]
            rows, columns = (side // reduction for side in self._pixels_shape[1:])
        return rows, columns

    @property
    def _is_channels_last(self) -> bool:
        return getattr(self._skeleton, "output_fmt", None) == "NHWC"

    @property
    def _class_token(self) -> bool:
        return getattr(self._skeleton, "cls_token", None) is not None

    def _layers(self, network: Any) -> list[Any]:
        """The blocks of a transformer, or the stages of another network."""
        infos = getattr(network, "feature_info", ())
        return [network.get_submodule(info["module"]) for info in infos]

    def _token_norm(self, network: Any) -> tuple[Any, bool]:
        """Return the last layer norm, and whether ``forward_features`` applies it.

        Some transformers average their tokens first: then it is ``fc_norm``.
        """
        norm, fc_norm = (getattr(network, name, None) for name in ("norm", "fc_norm"))
        if type(norm).__name__ == "Identity" and fc_norm is not None:
            return fc_norm, False
        return norm, True

    def _tokens(self, output: "torch.Tensor") -> "torch.Tensor":
        """Return the output of a layer as tokens: the class token, then the patches."""
        import torch

        if output.ndim == 4:
            return output.flatten(1, 2) if self._is_channels_last else map_tokens(output)
        n_prefix = getattr(self._skeleton, "num_prefix_tokens", None)
        if n_prefix is None:
            raise NotImplementedError  # in which order the patches come is not known
        if not self._class_token:
            return output[:, n_prefix:]
        return torch.cat([output[:, :1], output[:, n_prefix:]], dim=1)
