"""Late fusion: a head for each of several encoders, and the mean of their logits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn, split, stack

from featurecache.heads.types import Head, TrainedHead, TrainingJob


class LogitEnsemble(Head):
    """``mean_k head_k(x_k)`` of concatenated embeddings x_1, x_2, ...

    Each member is trained alone, on its own encoder's embeddings and texts. The mean of log-odds is
    the geometric mean of odds, in which confident members count for more than in a mean of
    probabilities.

    Args:
        members: One head per encoder.
        dims: Dimension of each encoder's embeddings.
    """

    def __init__(self, members: Sequence[Head], dims: Sequence[int]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
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
