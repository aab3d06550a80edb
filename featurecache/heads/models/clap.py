"""CLAP: a linear probe that starts from the texts and is held to them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.head import Head
from featurecache.heads.logistic import Weights, fit_logistic
from featurecache.heads.standardize import l2_normalize, l2_normalize_tensor, targets
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import TrainedHead, Training


class Clap(Head):
    """``s <x, w> + b`` with a penalty ``lambda |w - t|^2`` that draws each w to its text.

    Silva-Rodriguez et al. 2024, "A closer look at the few-shot adaptation of large vision-language
    models", for several labels at once, with t a label's text less its negative text. lambda is the
    mean zero-shot probability of the label on its own positives: texts that know their finding hold
    its probe fast. Nothing is chosen on validation, so it suits data too few for one.
    """

    def __init__(self, dim: int, labels: int, texts: LabelTexts, config: HeadConfig) -> None:
        super().__init__()
        self.texts = texts
        self.output = nn.Linear(dim, labels)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) embeddings of any length to (B, C) logits."""
        logits: Tensor = self.output(l2_normalize_tensor(embedding))
        return logits

    @torch.no_grad()
    def fit(self, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
        """Learn from the training rows."""
        data, scale = training.data, self.texts.factor
        x = l2_normalize(data.embedding, rows)
        y = targets(data.labels, rows)
        positive = (y == 1).double()
        probability = zero_shot_probabilities(x, self.texts)
        held = (positive * probability).sum(dim=0) / positive.sum(dim=0).clamp(min=1)
        # A label without positives has nothing but its text.
        held[positive.sum(dim=0) == 0] = 1
        center = Weights(
            scale * self.texts.contrast().astype(np.float64), np.zeros(data.labels.shape[1])
        )
        # Of the weights s w that give the logits, which are s times as far from s t as w from t.
        found = fit_logistic(x, y, held.numpy() / scale**2, center=center)
        self.output.weight.copy_(torch.from_numpy(found.weight))
        self.output.bias.copy_(torch.from_numpy(found.intercept))
        return TrainedHead(self.eval(), training.config, (), None, rows)


def zero_shot_probabilities(unit: Tensor, texts: LabelTexts) -> Tensor:
    """(N, D) embeddings of length 1 to (N, C), float64, as the encoder was trained to tell.

    Text against negative text where there are both; else by the encoder's bias; else among labels.
    """
    logits = texts.factor * (unit @ torch.from_numpy(texts.contrast()).T).double()
    if texts.negative is not None:
        return torch.sigmoid(logits)
    if texts.bias is not None:
        return torch.sigmoid(logits + texts.bias)
    return torch.softmax(logits, dim=1)
