"""The weighted-sum head: learned weights decide how much of image and text enters the MLP."""

import torch
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.constant_projection import ConstantProjection
from featurecache.heads.gradient import GradientHead
from featurecache.heads.layers import hidden_layers, normalize_layer
from featurecache.heads.text_features import LabelTexts
from featurecache.prompts import mega_vector


class WeightedSum(GradientHead):
    """``MLP(w_img * x + w_prompt * relu(P t))`` with t the prompt mega-vector.

    As in "squeezing every drop out of CLIP features". Since t is the same for every image, the text
    adds a constant to the input: the head is equivalent to the baseline with a rescaled and shifted
    first layer. Compare it with its text ablations. Batch norm of the first layer sees the images'
    share of it: it would subtract the text, which is added after it.
    """

    def __init__(self, dim: int, labels: int, texts: LabelTexts, config: HeadConfig) -> None:
        super().__init__(dim, config)
        assert config.hidden is not None
        text = torch.from_numpy(mega_vector(texts.positive))
        self.projection = ConstantProjection(text, dim)
        self.image_weight = nn.Parameter(torch.ones(dim))
        self.prompt_weight = nn.Parameter(torch.ones(dim))
        self.first = nn.Linear(dim, config.hidden[0])
        self.norm = normalize_layer(config.hidden[0], config.normalizes_first)
        self.hidden = hidden_layers(
            config.hidden, dropout=config.dropout, batch_norm=config.normalizes_later
        )
        self.output = nn.Linear(config.hidden[-1], labels)

    def logits(self, scaled: Tensor) -> Tensor:
        """Return the logits (B, C) of standardized embeddings (B, D)."""
        # W (w x + c) + b = (W w) x + (W c + b): no product per image and dimension.
        text = self.prompt_weight * torch.relu(self.projection())
        weight = self.first.weight * self.image_weight
        image = self.norm(nn.functional.linear(self.noise(scaled), weight))
        mixed = image + self.first(text)
        logits: Tensor = self.output(self.hidden(mixed))
        return logits
