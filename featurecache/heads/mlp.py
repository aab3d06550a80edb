"""The multi-layer perceptron that all three heads are built of."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def hidden_layers(dim: int, hidden: Sequence[int], *, dropout: float) -> nn.Sequential:
    """Fully connected layers, each with batch norm, ReLU and dropout: (B, dim) to (B, hidden[-1]).

    Batch norm belongs on a branch that sees the images of a batch, not on one that sees the same
    text for all of them.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((dim, *hidden)):
        # Batch norm subtracts the mean, and with it any bias.
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)
