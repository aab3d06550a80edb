"""The two-branch head: image and text through branches of their own, concatenated."""

import torch
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.inputs import InputScaling
from featurecache.heads.mlp import Dropout, hidden_layers


class Concat(nn.Module):
    """``classifier([image_branch(x), text_branch(t)])`` with t the prompt mega-vector.

    As in "squeezing every drop out of CLIP features", with one mend: t is the same for every
    image, so a batch norm on its branch would see a batch of equal rows, return its own bias
    whatever the text, and explode in evaluation, where its running variance is nearly zero. The
    text branch is therefore evaluated once a step, on its single row, with a layer norm; and the
    classifier's first layer has no batch norm, which would subtract the text again.
    """

    text: Tensor

    def __init__(self, dim: int, labels: int, text: Tensor, config: HeadConfig) -> None:
        """Args: text is the mega-vector, (C * D_text,)."""
        super().__init__()
        first, *rest = config.hidden
        self.register_buffer("text", text.reshape(1, -1).clone())
        self.scaling = InputScaling(dim, noise=config.noise)
        self.image_branch = nn.Sequential(
            nn.Linear(dim, first, bias=False),
            nn.BatchNorm1d(first),
            nn.ReLU(),
            Dropout(config.dropout),
        )
        self.text_branch = nn.Sequential(
            nn.Linear(text.numel(), first),
            nn.LayerNorm(first),
            nn.ReLU(),
            Dropout(config.dropout),
        )
        self.hidden = hidden_layers(2 * first, rest or [first], dropout=config.dropout)
        self.output = nn.Linear((rest or [first])[-1], labels)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) image embeddings to (B, C) logits."""
        image = self.image_branch(self.scaling(embedding))
        text = self.text_branch(self.text).expand(len(image), -1)
        logits: Tensor = self.output(self.hidden(torch.cat([image, text], dim=1)))
        return logits
