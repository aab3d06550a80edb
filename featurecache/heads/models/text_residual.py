"""The text-residual head: the zero-shot score, and what images teach beyond it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.head import GradientHead
from featurecache.heads.layers import Dropout
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import TrainedHead, Training
from featurecache.losses import log_prior_odds


class TextResidual(GradientHead):
    """``w . MLP(x * t) + gamma s (<x, t+> - <x, t->) + b`` for each label, one MLP for all labels.

    A label is known to it by its text alone but for what gamma and b deviate from those that labels
    share, so it can score labels that it was not trained on; see ``for_texts``. It begins as the
    zero-shot score: the MLP's last layer is 0 and gamma 1.
    """

    positive: Tensor
    contrast: Tensor

    def __init__(self, dim: int, labels: int, texts: LabelTexts, config: HeadConfig) -> None:
        super().__init__(dim, config)
        assert config.hidden is not None
        first, *rest = config.hidden
        self._take(texts)
        self.first = nn.Linear(dim, first)
        layers: list[nn.Module] = [nn.ReLU(), Dropout(config.dropout)]
        for units in rest:
            layers += [nn.Linear(first, units), nn.ReLU(), Dropout(config.dropout)]
            first = units
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(first, 1, bias=False)
        nn.init.zeros_(self.output.weight)
        self.gamma = nn.Parameter(torch.ones(()))
        self.gamma_of_label = nn.Parameter(torch.zeros(labels))
        self.bias = nn.Parameter(torch.zeros(()))
        self.bias_of_label = nn.Parameter(torch.zeros(labels))

    def _take(self, texts: LabelTexts) -> None:
        dim = texts.positive.shape[1]
        # Entries of about 1, as those of the standardised images that they multiply.
        self.register_buffer("positive", torch.from_numpy(texts.positive) * dim**0.5)
        self.register_buffer("contrast", texts.factor * torch.from_numpy(texts.contrast()))

    def for_texts(self, texts: LabelTexts) -> "TextResidual":
        """The head for other labels, known by their texts alone; it shares this one's weights."""
        other = TextResidual.__new__(TextResidual)
        nn.Module.__init__(other)
        other.scaling, other.noise = self.scaling, self.noise
        other._take(texts)
        other.first, other.hidden, other.output = self.first, self.hidden, self.output
        labels = len(texts.positive)
        other.gamma, other.bias = self.gamma, self.bias
        other.gamma_of_label = nn.Parameter(torch.zeros(labels))
        other.bias_of_label = nn.Parameter(torch.zeros(labels))
        return other.eval()

    def fit(self, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
        """Train by gradient, from the labels' own frequencies on."""
        prior = log_prior_odds(torch.from_numpy(training.data.labels[rows]))
        with torch.no_grad():
            self.bias.copy_(prior.mean())
            self.bias_of_label.copy_(prior - prior.mean())
        return super().fit(training, rows)

    def logits(self, scaled: Tensor) -> Tensor:
        """(B, D) standardised embeddings to (B, C) logits."""
        labels, units = len(self.positive), len(self.first.bias)
        # W (x * t) = (W * t) x, of all labels in one product.
        weight = (self.first.weight * self.positive[:, None]).reshape(labels * units, -1)
        seen = nn.functional.linear(self.noise(scaled), weight).view(-1, labels, units)
        learned = self.output(self.hidden(seen + self.first.bias)).squeeze(-1)
        # <x, t> of x at unit length, which is what was standardised.
        text = nn.functional.linear(
            scaled, self.contrast * self.scaling.deviation, self.contrast @ self.scaling.mean
        )
        gamma, bias = self.gamma + self.gamma_of_label, self.bias + self.bias_of_label
        logits: Tensor = learned + gamma * text + bias
        return logits
