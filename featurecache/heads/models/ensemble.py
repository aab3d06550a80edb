"""A head on each of several encoders' embeddings, and the mean of their logits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn, split, stack

from featurecache.heads.head import Head
from featurecache.heads.types import TrainedHead, Training


class LogitEnsemble(Head):
    """``mean_k head_k(x_k)`` of embeddings x_1, x_2, ... that stand side by side.

    Each member learns alone, from its own encoder's embeddings and texts. The mean of log-odds is
    the geometric mean of odds: members that are sure count for more than in a mean of
    probabilities.
    """

    def __init__(self, members: Sequence[Head], dims: Sequence[int]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.dims = list(dims)

    def fit(self, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
        """Train every member on the same rows, one after another."""
        trained = []
        for member, data in zip(self.members, training.data.parts, strict=True):
            assert isinstance(member, Head)
            trained.append(member.fit(replace(training, data=data), rows))
        return TrainedHead(
            self.eval(), trained[0].config, (), None, trained[0].train_rows, tuple(trained)
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) embeddings side by side to (B, C) logits."""
        shares = split(embedding, self.dims, dim=1)
        logits = [member(share) for member, share in zip(self.members, shares, strict=True)]
        return stack(logits).mean(dim=0)

    def resize_buffers_for(self, state: Mapping[str, Tensor]) -> None:
        """As every head has it, for each member."""
        for number, member in enumerate(self.members):
            assert isinstance(member, Head)
            prefix = f"members.{number}."
            member.resize_buffers_for(
                {
                    name.removeprefix(prefix): t
                    for name, t in state.items()
                    if name.startswith(prefix)
                }
            )
