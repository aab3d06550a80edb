"""An image network as one torch module, for libraries that convert modules."""

from collections.abc import Callable

import torch

ImageFeatures = Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]
"""Embeds a batch of pixels by a network, (B, 3, H, W) to (B, D)."""


class ImageModule(torch.nn.Module):
    """Embeds pixels, (B, 3, H, W) to (B, D), by a network that may have more than this task.

    Args:
        network: The network.
        features: Embeds by it.
    """

    def __init__(self, network: torch.nn.Module, features: ImageFeatures) -> None:
        super().__init__()
        self.network = network
        self._features = features

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed a batch."""
        return self._features(self.network, pixels)
