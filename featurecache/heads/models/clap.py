"""CLAP: a linear probe that starts from the text embeddings and is penalized for leaving them."""

import numpy as np
import torch
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.logistic import Weights, fit_logistic
from featurecache.heads.standardize import l2_normalize
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import Head, TrainedHead, TrainingJob


class Clap(Head):
    """``s <x, w> + b`` with a penalty ``lambda |w - t|^2`` that keeps each w near its text t.

    Silva-Rodriguez et al. 2024, "A closer look at the few-shot adaptation of large vision-language
    models", for several labels at once; t is the label's positive minus its negative text. lambda
    is the mean zero-shot probability of the label on its own positives, so texts that recognize
    their finding hold the probe more tightly. No validation images are used, which suits data sets
    too small to spare any.
    """

    def __init__(self, dim: int, labels: int, texts: LabelTexts, config: HeadConfig) -> None:
        super().__init__()
        self.texts = texts
        self.output = nn.Linear(dim, labels)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the logits (B, C) of embeddings (B, D) of any length."""
        logits: Tensor = self.output(l2_normalize(embedding))
        return logits

    @torch.no_grad()
    def fit(self, job: TrainingJob) -> TrainedHead:
        """Learn from the training rows."""
        data, scale = job.data, self.texts.factor
        x, y = data.normalized(data.train), data.targets(data.train)
        positive = (y == 1).double()
        probability = zero_shot_probabilities(x, self.texts)
        penalty = (positive * probability).sum(dim=0) / positive.sum(dim=0).clamp(min=1)
        # A label without positives relies on its text alone.
        penalty[positive.sum(dim=0) == 0] = 1
        center = Weights(
            scale * self.texts.contrast().astype(np.float64), np.zeros(data.labels.shape[1])
        )
        # The fitted weights are s w, at s times the distance from s t that w has from t.
        fitted = fit_logistic(x, y, penalty.numpy() / scale**2, center=center)
        self.output.weight.copy_(torch.from_numpy(fitted.weight))
        self.output.bias.copy_(torch.from_numpy(fitted.intercept))
        return TrainedHead(self.eval(), job.config, data.train, converged=fitted.converged)


def zero_shot_probabilities(unit: Tensor, texts: LabelTexts) -> Tensor:
    """Return zero-shot probabilities, the way that the encoder was trained to give them.

    With negative texts, each label's positive text competes with its negative one. Otherwise the
    encoder's bias gives a probability per label, or, without a bias, all labels compete.

    Args:
        unit: (N, D) image embeddings of unit length.
        texts: Text embeddings of C labels in the same space.

    Returns:
        (N, C) float64 probabilities.
    """
    logits = texts.factor * (unit @ torch.from_numpy(texts.contrast()).T).double()
    if texts.negative is not None:
        return torch.sigmoid(logits)
    if texts.bias is not None:
        return torch.sigmoid(logits + texts.bias)
    return torch.softmax(logits, dim=1)
