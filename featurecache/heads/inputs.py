"""What every head does to an image embedding first; part of the head, so it is saved with it."""

import torch
from torch import Tensor, nn


class InputScaling(nn.Module):
    """Scale embeddings to unit length, then each dimension to mean 0 and variance 1.

    The mean and deviation are those of the training rows. In training, Gaussian noise is added.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int, *, noise: float) -> None:
        super().__init__()
        self.noise = noise
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    @torch.no_grad()
    def fit(self, embedding: Tensor) -> None:
        """Take mean and deviation from training rows, (N, D)."""
        unit = nn.functional.normalize(embedding.double(), dim=1)
        self.mean.copy_(unit.mean(dim=0))
        # A dimension that never varies says nothing; dividing by its deviation would blow it up.
        deviation = unit.std(dim=0, correction=0)
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) embeddings of any length to (B, D) standardised ones."""
        unit = nn.functional.normalize(embedding, dim=1)
        scaled = (unit - self.mean) / self.deviation
        if self.training and self.noise > 0:
            scaled = scaled + self.noise * torch.randn_like(scaled)
        return scaled
