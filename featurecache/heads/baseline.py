"""The baseline head: image embedding alone through an MLP."""

from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.inputs import InputScaling
from featurecache.heads.mlp import hidden_layers


class Baseline(nn.Module):
    """Hidden layers of decreasing size, then one logit per label.

    The sanity check and floor of "squeezing every drop out of CLIP features": what the image
    embedding can do by itself.
    """

    def __init__(self, dim: int, labels: int, config: HeadConfig) -> None:
        super().__init__()
        self.scaling = InputScaling(dim, noise=config.noise)
        self.hidden = hidden_layers(dim, config.hidden, dropout=config.dropout)
        self.output = nn.Linear(config.hidden[-1], labels)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) image embeddings to (B, C) logits."""
        logits: Tensor = self.output(self.hidden(self.scaling(embedding)))
        return logits
