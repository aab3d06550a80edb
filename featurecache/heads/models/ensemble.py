"""Several heads as one: of several encoders (late fusion), or of several seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor, nn, split, stack
from torch.nn.functional import logsigmoid

from featurecache.heads.models.attentive import Attentive
from featurecache.heads.types import Head, TrainedHead, TrainingJob


class _Ensemble(Head):
    """Heads that are one.

    Args:
        members: The heads.
    """

    def __init__(self, members: Sequence[Head]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def resize_buffers_for(self, state: Mapping[str, Tensor]) -> None:
        """Resize the buffers of every member."""
        for index, member in enumerate(self.members):
            assert isinstance(member, Head)
            prefix = f"members.{index}."
            member.resize_buffers_for(
                {
                    name.removeprefix(prefix): tensor
                    for name, tensor in state.items()
                    if name.startswith(prefix)
                }
            )


class LogitEnsemble(_Ensemble):
    """``mean_k head_k(x_k)`` of concatenated embeddings x_1, x_2, ...

    Each member is trained alone, on its own encoder's embeddings and texts. The mean of log-odds is
    the geometric mean of odds, in which confident members count for more than in a mean of
    probabilities.

    Args:
        members: One head per encoder.
        dims: Dimension of each encoder's embeddings.
    """

    def __init__(self, members: Sequence[Head], dims: Sequence[int]) -> None:
        super().__init__(members)
        self.dims = list(dims)

    def fit(self, job: TrainingJob) -> TrainedHead:
        """Train every member on the same rows, one after another."""
        trained = []
        for member, data in zip(self.members, job.data.per_encoder, strict=True):
            assert isinstance(member, Head)
            trained.append(member.fit(replace(job, data=data)))
        return TrainedHead(
            self.eval(),
            trained[0].config,
            job.data.train,
            members=tuple(trained),
            converged=all(member.converged for member in trained),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the logits (B, C) of concatenated embeddings (B, D_1 + D_2 + ...)."""
        per_encoder = split(embedding, self.dims, dim=1)
        logits = [member(x) for member, x in zip(self.members, per_encoder, strict=True)]
        return stack(logits).mean(dim=0)


class SeedEnsemble(_Ensemble):
    """The mean probability of heads that were trained alike with several seeds.

    Probabilities are averaged, not logits, so that the spread of the members beside the mean is in
    its units (a deep ensemble; Lakshminarayanan et al. 2017).
    """

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the log odds (B, C), float64, of the mean probability."""
        logits = self.member_logits(embedding).double()
        # The number of members cancels in log(sum p) - log(sum (1 - p)).
        return logsigmoid(logits).logsumexp(dim=0) - logsigmoid(-logits).logsumexp(dim=0)

    def member_logits(self, embedding: Tensor) -> Tensor:
        """Return the logits of each of K members, (K, B, C)."""
        return stack([member(embedding) for member in self.members])

    def attention(self, embedding: Tensor) -> Tensor | None:
        """Return the mean attention of the members, (B, C, T); None for heads without one."""
        attentions = [
            member.attention(embedding) for member in self.members if isinstance(member, Attentive)
        ]
        return stack(attentions).mean(dim=0) if attentions else None


def join_seeds(heads: Sequence[TrainedHead]) -> TrainedHead:
    """Return heads of several seeds as one, which learned from the rows of all."""
    return TrainedHead(
        SeedEnsemble([head.module for head in heads]).eval(),
        heads[0].config,
        np.unique(np.concatenate([head.train_rows for head in heads])),
        members=tuple(heads),
        converged=all(head.converged for head in heads),
    )
