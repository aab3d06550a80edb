"""Noise and dropout at the price of a sum and a product.

Drawing a random number for every entry of every batch takes longer than the matrix products of a
head. Here a supply is drawn once, several times as long as a batch, and each batch is given a
stretch of it from a random place on.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

SUPPLY = 2**20
"""The fewest numbers of a supply."""
BATCHES = 4
"""A supply holds those of at least so many batches."""


class PooledNoise(nn.Module):
    """In training, gives each batch random numbers of its own shape; see ``draw``."""

    def __init__(self) -> None:
        super().__init__()
        # No buffers: they are not saved.
        self.supply = torch.empty(0)
        self.generator: torch.Generator | None = None

    def draw_from(self, generator: torch.Generator | None) -> None:
        """Draw from this generator from now on, or, of None, from torch's own."""
        self.supply = torch.empty(0)
        self.generator = generator

    def draw(self, number: int) -> Tensor:
        """So many random numbers, float32."""
        raise NotImplementedError

    def stretch(self, values: Tensor) -> Tensor:
        """Random numbers of the shape and type of ``values``."""
        number = values.numel()
        if len(self.supply) < BATCHES * number or self.supply.dtype != values.dtype:
            self.supply = self.draw(max(SUPPLY, BATCHES * number)).to(values.dtype)
        start = int(torch.randint(len(self.supply) - number, (), generator=self.generator))
        return self.supply[start : start + number].view_as(values)


class GaussianNoise(PooledNoise):
    """Adds Gaussian noise in training."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def draw(self, number: int) -> Tensor:
        """Of mean 0 and the noise's deviation."""
        return self.deviation * torch.randn(number, generator=self.generator)

    def forward(self, values: Tensor) -> Tensor:
        """The values, in training with noise."""
        if not self.training or self.deviation == 0:
            return values
        return values + self.stretch(values)


class Dropout(PooledNoise):
    """Inverted dropout: in training, a share p of the values becomes 0, the others scale up."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def draw(self, number: int) -> Tensor:
        """Of 0, with probability p, and ``1 / (1 - p)``."""
        return (torch.rand(number, generator=self.generator) >= self.p) / (1 - self.p)

    def forward(self, values: Tensor) -> Tensor:
        """The values, in training thinned out."""
        if not self.training or self.p == 0:
            return values
        return values * self.stretch(values)


def hidden_layers(hidden: Sequence[int], *, dropout: float) -> nn.Sequential:
    """What follows the first of several hidden layers: (B, hidden[0]) to (B, hidden[-1]).

    ReLU and dropout, then the other layers with batch norm, ReLU and dropout. The first has no
    batch norm. It needs none, since embeddings come in standardised, and must have none where text
    was added to them or put beside them: text is the same for every image, so batch norm would
    subtract all that it brings, and leave it no gradient either.
    """
    layers: list[nn.Module] = [nn.ReLU(), Dropout(dropout)]
    for inputs, outputs in pairwise(hidden):
        # Batch norm subtracts the mean, and with it any bias.
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
        layers.append(Dropout(dropout))
    return nn.Sequential(*layers)
