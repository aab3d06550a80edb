"""The weighted-sum head: learned weights decide how much of image and text goes in."""

import torch
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.inputs import InputScaling
from featurecache.heads.mlp import hidden_layers


class WeightedSum(nn.Module):
    """``MLP(w_img * x + w_prompt * relu(P t))`` with t the prompt mega-vector.

    As in "squeezing every drop out of CLIP features". Since t is the same for every image, the text
    adds a constant to the input: the head can do no more than the baseline with a rescaled and
    shifted first layer. That is why every score of it belongs beside its text controls.
    """

    text: Tensor

    def __init__(self, dim: int, labels: int, text: Tensor, config: HeadConfig) -> None:
        """Args: text is the mega-vector, (C * D_text,)."""
        super().__init__()
        self.register_buffer("text", text.reshape(1, -1).clone())
        self.scaling = InputScaling(dim, noise=config.noise)
        self.projection = nn.Sequential(nn.Linear(text.numel(), dim), nn.ReLU())
        self.image_weight = nn.Parameter(torch.ones(dim))
        self.prompt_weight = nn.Parameter(torch.ones(dim))
        self.hidden = hidden_layers(dim, config.hidden, dropout=config.dropout)
        self.output = nn.Linear(config.hidden[-1], labels)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) image embeddings to (B, C) logits."""
        image = self.scaling(embedding)
        text = self.projection(self.text)
        logits: Tensor = self.output(
            self.hidden(self.image_weight * image + self.prompt_weight * text)
        )
        return logits
