"""The multi-layer perceptron that all three heads are built of."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from featurecache.heads.noise import Dropout


def after_first_layer(hidden: Sequence[int], *, dropout: float) -> nn.Sequential:
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
