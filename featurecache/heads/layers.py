"""Noise and dropout that cost little more than an addition and a multiplication.

Generating a random number for every entry of every batch takes longer than the matrix products of a
head. Each layer here generates a pool of random numbers once, several times as long as a batch, and
takes for each batch a slice of it that starts at a random position.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

MIN_POOL_SIZE = 2**20
MIN_POOL_BATCHES = 4


class PooledNoise(nn.Module):
    """Base class of layers that need random numbers in the shape of their input."""

    def __init__(self) -> None:
        super().__init__()
        # Not buffers: random numbers are not saved.
        self.pool = torch.empty(0)
        self.generator: torch.Generator | None = None

    def set_generator(self, generator: torch.Generator | None) -> None:
        """Use this random generator from now on; None for torch's global one."""
        self.pool = torch.empty(0)
        self.generator = generator

    def generate(self, size: int) -> Tensor:
        """Return ``size`` random numbers, (size,) float32."""
        raise NotImplementedError

    def sample_like(self, values: Tensor) -> Tensor:
        """Return random numbers of the shape and type of ``values``."""
        size = values.numel()
        if len(self.pool) < MIN_POOL_BATCHES * size or self.pool.dtype != values.dtype:
            pool = self.generate(max(MIN_POOL_SIZE, MIN_POOL_BATCHES * size))
            self.pool = pool.to(values.dtype)
        start = int(torch.randint(len(self.pool) - size, (), generator=self.generator))
        return self.pool[start : start + size].view_as(values)


class GaussianNoise(PooledNoise):
    """Add Gaussian noise in training.

    Args:
        deviation: Standard deviation of the noise.
    """

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def generate(self, size: int) -> Tensor:
        """Return normal random numbers of mean 0 and the layer's standard deviation."""
        return self.deviation * torch.randn(size, generator=self.generator)

    def forward(self, values: Tensor) -> Tensor:
        """Return the values, with noise in training."""
        if not self.training or self.deviation == 0:
            return values
        return values + self.sample_like(values)


class Dropout(PooledNoise):
    """Inverted dropout: in training, set values to 0 and scale up the others.

    Args:
        p: Probability that a value is set to 0.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def generate(self, size: int) -> Tensor:
        """Return factors: 0 with probability p, else ``1 / (1 - p)``."""
        return (torch.rand(size, generator=self.generator) >= self.p) / (1 - self.p)

    def forward(self, values: Tensor) -> Tensor:
        """Return the values, with dropout in training."""
        if not self.training or self.p == 0:
            return values
        return values * self.sample_like(values)


def normalize_layer(size: int, batch_norm: bool) -> nn.Module:
    """Return batch norm of a layer's ``size`` outputs, or the identity."""
    return nn.BatchNorm1d(size) if batch_norm else nn.Identity()


def hidden_layers(hidden: Sequence[int], *, dropout: float, batch_norm: bool) -> nn.Sequential:
    """Return the layers after the first linear one: (B, hidden[0]) to (B, hidden[-1]).

    These are ReLU and dropout, then for each further size a linear layer, batch norm if wanted,
    ReLU and dropout.

    Args:
        hidden: Sizes of the hidden layers.
        dropout: Dropout probability.
        batch_norm: Whether to normalize the layers.
    """
    layers: list[nn.Module] = [nn.ReLU(), Dropout(dropout)]
    for inputs, outputs in pairwise(hidden):
        # Batch norm subtracts the mean, and with it any bias.
        layers.append(nn.Linear(inputs, outputs, bias=not batch_norm))
        layers += [normalize_layer(outputs, batch_norm), nn.ReLU(), Dropout(dropout)]
    return nn.Sequential(*layers)
