"""The multi-layer perceptron that all three heads are built of."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Inverted dropout whose probability is a multiple of 1/256, drawn eight entries at a time.

    torch's own draws a random number of its own for every entry, which in a head of this size takes
    as long as its matrix products.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropped = min(255, round(p * 256))

    def forward(self, values: Tensor) -> Tensor:
        """In training, a share of the values set to 0 and the others scaled up; else all as is."""
        if not self.training or self.dropped == 0:
            return values
        eights = torch.empty(-(-values.numel() // 8), dtype=torch.int64, device=values.device)
        draws = eights.random_(_LEAST, None).view(torch.uint8)[: values.numel()]
        kept = draws.view(values.shape) >= self.dropped
        return values * kept / (1 - self.dropped / 256)


_LEAST = torch.iinfo(torch.int64).min
"""Without it only numbers from 0 would be drawn, and every eighth byte would be below 128."""


def hidden_layers(dim: int, hidden: Sequence[int], *, dropout: float) -> nn.Sequential:
    """Fully connected layers with ReLU and dropout: (B, dim) to (B, hidden[-1]).

    All but the first have batch norm. The first needs none, since embeddings come in standardised,
    and must have none where text was added to them or put beside them: text is the same for every
    image, so batch norm would subtract all that it brings, and leave it no gradient either.
    """
    layers: list[nn.Module] = [nn.Linear(dim, hidden[0]), nn.ReLU(), Dropout(dropout)]
    for inputs, outputs in pairwise(hidden):
        # Batch norm subtracts the mean, and with it any bias.
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
        layers.append(Dropout(dropout))
    return nn.Sequential(*layers)
