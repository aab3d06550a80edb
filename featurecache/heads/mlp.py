"""The multi-layer perceptron that all three heads are built of."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def hidden_layers(dim: int, hidden: Sequence[int], *, dropout: float) -> nn.Sequential:
    """Fully connected layers with ReLU and dropout: (B, dim) to (B, hidden[-1]).

    All but the first have batch norm. The first needs none, since embeddings come in standardised,
    and must have none where text was added to them or put beside them: text is the same for every
    image, so batch norm would subtract all that it brings, and leave it no gradient either.
    """
    layers: list[nn.Module] = [nn.Linear(dim, hidden[0]), nn.ReLU(), nn.Dropout(dropout)]
    for inputs, outputs in pairwise(hidden):
        # Batch norm subtracts the mean, and with it any bias.
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)
