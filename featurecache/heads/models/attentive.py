"""The attentive head: each label attends to the tokens of an image with a query of its own."""

import math

import torch
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.gradient import GradientHead
from featurecache.heads.layers import hidden_layers


class Attentive(GradientHead):
    """One learned query per label over the tokens of an image.

    With z_t the hidden layers of token t, shared by all labels, and for each label c a query q_c
    and weights w_c::

        a_ct = softmax_t(q_c z_t / sqrt(H))
        logit_c = w_c sum_t a_ct z_t + u_c z + b_c

    It is attention-based pooling (Ilse et al. 2018, "Attention-based deep multiple instance
    learning") with a query for each label. z is what the head knows of the whole image: the hidden
    layers of the class token, which is also one of the tokens, or, without one, their mean.
    """

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__(dim, config)
        assert config.hidden is not None
        self.dim = dim
        self.first = nn.Linear(dim, config.hidden[0])
        self.hidden = hidden_layers(config.hidden, dropout=config.dropout, batch_norm=False)
        # The attention is uniform at first.
        self.query = nn.Parameter(torch.zeros(labels, config.hidden[-1]))
        self.output = nn.Linear(config.hidden[-1], labels)
        self.whole = nn.Linear(config.hidden[-1], labels, bias=False)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the logits (B, C) of tokens (B, T, D), or (B, T * D), of any length."""
        return super().forward(self._as_tokens(embedding))

    def logits(self, scaled: Tensor) -> Tensor:
        """Return the logits (B, C) of standardized tokens (B, T, D)."""
        hidden = self._hidden(scaled)
        # (a z) w = a (z w), which needs no (B, C, H).
        of_places = (self._attention(hidden) * (hidden @ self.output.weight.T)).sum(dim=1)
        n_tokens = hidden.shape[1]
        # Patches are on a square grid, so one more token is the class token.
        has_class_token = math.isqrt(n_tokens) ** 2 < n_tokens
        whole = hidden[:, 0] if has_class_token else hidden.mean(dim=1)
        logits: Tensor = of_places + self.whole(whole) + self.output.bias
        return logits

    def attention(self, embedding: Tensor) -> Tensor:
        """Return how much each label looks at each token, (B, C, T), a sum of 1 for each label.

        Args:
            embedding: Tokens (B, T, D), or (B, T * D), of any length.
        """
        hidden = self._hidden(self.scaling(self._as_tokens(embedding)))
        return self._attention(hidden).transpose(1, 2)

    def _as_tokens(self, embedding: Tensor) -> Tensor:
        return embedding.reshape(len(embedding), -1, self.dim)

    def _hidden(self, scaled: Tensor) -> Tensor:
        """Return the hidden layers of each token, (B, T, H)."""
        hidden: Tensor = self.hidden(self.first(self.noise(scaled)))
        return hidden

    def _attention(self, hidden: Tensor) -> Tensor:
        """Return the weights of hidden tokens (B, T, H) for each label, (B, T, C)."""
        scores = hidden @ self.query.T / math.sqrt(hidden.shape[2])
        return scores.float().softmax(dim=1)
