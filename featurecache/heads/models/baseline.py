"""The baseline head: an MLP on the image embedding alone."""

from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.gradient import GradientHead
from featurecache.heads.layers import hidden_layers, normalize_layer


class Baseline(GradientHead):
    """Hidden layers of decreasing size, then one logit per label.

    The reference for heads that use text: what the image embedding can do by itself, as in
    "squeezing every drop out of CLIP features". By default the first hidden layer has batch norm,
    as the image branch of ``concat`` and ``weighted_sum`` has, so that the three differ in their
    text alone.
    """

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__(dim, config)
        assert config.hidden is not None
        first = config.hidden[0]
        self.first = nn.Linear(dim, first, bias=not config.normalizes_first)
        self.norm = normalize_layer(first, config.normalizes_first)
        self.hidden = hidden_layers(
            config.hidden, dropout=config.dropout, batch_norm=config.normalizes_later
        )
        self.output = nn.Linear(config.hidden[-1], labels)

    def logits(self, scaled: Tensor) -> Tensor:
        """Return the logits (B, C) of standardized embeddings (B, D)."""
        first = self.norm(self.first(self.noise(scaled)))
        logits: Tensor = self.output(self.hidden(first))
        return logits
