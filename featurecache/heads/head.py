"""What all heads have in common."""

from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.inputs import InputScaling
from featurecache.heads.noise import GaussianNoise


class Head(nn.Module):
    """Maps image embeddings to one logit a label, by way of ``InputScaling``."""

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.scaling = InputScaling(dim)
        self.noise = GaussianNoise(config.noise)

    def logits(self, scaled: Tensor) -> Tensor:
        """(B, D) standardised embeddings to (B, C) logits; in training, noise is added to them."""
        raise NotImplementedError

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) embeddings of any length to (B, C) logits."""
        return self.logits(self.scaling(embedding))
