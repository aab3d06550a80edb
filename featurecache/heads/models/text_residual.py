"""The text-residual head: the zero-shot score, plus what images teach beyond it."""

import torch
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.gradient import GradientHead
from featurecache.heads.layers import Dropout
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import TrainedHead, TrainingJob
from featurecache.losses import log_prior_odds


class TextResidual(GradientHead):
    """``w . MLP(x * t) + gamma s (<x, t+> - <x, t->) + b`` per label, with one MLP for all labels.

    The head represents a label by its text, except for small deviations of gamma and b from the
    values that labels share. It can therefore score labels that it was not trained on; see
    ``for_texts``. Training starts from the zero-shot score: the last layer of the MLP is 0 and
    gamma is 1.
    """

    positive: Tensor
    contrast: Tensor

    def __init__(self, dim: int, labels: int, texts: LabelTexts, config: HeadConfig) -> None:
        super().__init__(dim, config)
        assert config.hidden is not None
        first, *rest = config.hidden
        self._set_texts(texts)
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

    def _set_texts(self, texts: LabelTexts) -> None:
        dim = texts.positive.shape[1]
        # Entries of magnitude 1, like the standardized embeddings that they multiply.
        self.register_buffer("positive", torch.from_numpy(texts.positive) * dim**0.5)
        self.register_buffer("contrast", texts.factor * torch.from_numpy(texts.contrast()))

    def for_texts(self, texts: LabelTexts) -> "TextResidual":
        """Return a head for other labels, given by their texts alone; it shares this one's weights.

        Args:
            texts: Text embeddings of the other labels.
        """
        other = TextResidual.__new__(TextResidual)
        nn.Module.__init__(other)
        other.scaling, other.noise = self.scaling, self.noise
        other._set_texts(texts)
        other.first, other.hidden, other.output = self.first, self.hidden, self.output
        labels = len(texts.positive)
        other.gamma, other.bias = self.gamma, self.bias
        other.gamma_of_label = nn.Parameter(torch.zeros(labels))
        other.bias_of_label = nn.Parameter(torch.zeros(labels))
        return other.eval()

    def fit(self, job: TrainingJob) -> TrainedHead:
        """Train by gradient descent, starting from the frequencies of the labels."""
        prior = log_prior_odds(job.data.targets(job.data.train))
        with torch.no_grad():
            self.bias.copy_(prior.mean())
            self.bias_of_label.copy_(prior - prior.mean())
        return super().fit(job)

    def logits(self, scaled: Tensor) -> Tensor:
        """Return the logits (B, C) of standardized embeddings (B, D)."""
        labels, units = len(self.positive), len(self.first.bias)
        # W (x * t) = (W * t) x, for all labels in one product.
        weight = (self.first.weight * self.positive[:, None]).reshape(labels * units, -1)
        interaction = nn.functional.linear(self.noise(scaled), weight).view(-1, labels, units)
        learned = self.output(self.hidden(interaction + self.first.bias)).squeeze(-1)
        # <x, t> of x at unit length, recovered from its standardized form.
        text = nn.functional.linear(
            scaled, self.contrast * self.scaling.deviation, self.contrast @ self.scaling.mean
        )
        gamma, bias = self.gamma + self.gamma_of_label, self.bias + self.bias_of_label
        logits: Tensor = learned + gamma * text + bias
        return logits
