"""The baseline head: an MLP on the image embedding alone."""

from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.gradient import GradientHead
from featurecache.heads.layers import hidden_layers


class Baseline(GradientHead):
    """Hidden layers of decreasing size, then one logit per label.

    The reference for heads that use text: what the image embedding can do by itself, as in
    "squeezing every drop out of CLIP features".
    """

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__(dim, config)
        assert config.hidden is not None
        self.first = nn.Linear(dim, config.hidden[0])
        self.hidden = hidden_layers(config.hidden, dropout=config.dropout)
        self.output = nn.Linear(config.hidden[-1], labels)

    def logits(self, scaled: Tensor) -> Tensor:
        """Return the logits (B, C) of standardized embeddings (B, D)."""
        logits: Tensor = self.output(self.hidden(self.first(self.noise(scaled))))
        return logits
