"""The baseline head: image embedding alone through an MLP."""

from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.head import GradientHead
from featurecache.heads.layers import hidden_layers


class Baseline(GradientHead):
    """Hidden layers of decreasing size, then one logit per label.

    The sanity check and floor of "squeezing every drop out of CLIP features": what the image
    embedding can do by itself.
    """

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__(dim, config)
        assert config.hidden is not None
        self.first = nn.Linear(dim, config.hidden[0])
        self.hidden = hidden_layers(config.hidden, dropout=config.dropout)
        self.output = nn.Linear(config.hidden[-1], labels)

    def logits(self, scaled: Tensor) -> Tensor:
        """(B, D) standardised embeddings to (B, C) logits."""
        logits: Tensor = self.output(self.hidden(self.first(self.noise(scaled))))
        return logits
