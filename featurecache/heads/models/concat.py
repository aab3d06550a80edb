"""The two-branch head: image and text through branches of their own, concatenated."""

import torch
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.constant_projection import ConstantProjection
from featurecache.heads.head import GradientHead
from featurecache.heads.layers import Dropout, hidden_layers
from featurecache.heads.text_features import LabelTexts
from featurecache.prompts import mega_vector


class Concat(GradientHead):
    """``classifier([image_branch(x), text_branch(t)])`` with t the prompt mega-vector.

    As in "squeezing every drop out of CLIP features", with one mend: t is the same for every
    image, so a batch norm on its branch would see a batch of equal rows, return its own bias
    whatever the text, and explode in evaluation, where its running variance is nearly zero. The
    text branch is therefore evaluated once a step, on its single row, with a layer norm; and the
    classifier's first layer has no batch norm, which would subtract the text again.
    """

    def __init__(self, dim: int, labels: int, texts: LabelTexts, config: HeadConfig) -> None:
        super().__init__(dim, config)
        assert config.hidden is not None
        text = torch.from_numpy(mega_vector(texts.positive))
        first, *rest = config.hidden
        self.image_branch = nn.Sequential(
            nn.Linear(dim, first, bias=False),
            nn.BatchNorm1d(first),
            nn.ReLU(),
            Dropout(config.dropout),
        )
        self.text_projection = ConstantProjection(text, first)
        self.text_branch = nn.Sequential(nn.LayerNorm(first), nn.ReLU(), Dropout(config.dropout))
        hidden = rest or [first]
        self.first = nn.Linear(2 * first, hidden[0])
        self.hidden = hidden_layers(hidden, dropout=config.dropout)
        self.output = nn.Linear(hidden[-1], labels)

    def logits(self, scaled: Tensor) -> Tensor:
        """(B, D) standardised embeddings to (B, C) logits."""
        image = self.image_branch(self.noise(scaled))
        text = self.text_branch(self.text_projection())
        # W [image, text] = W_image image + W_text text, and the text needs no more than one row.
        of_image, of_text = self.first.weight.chunk(2, dim=1)
        shift = nn.functional.linear(text, of_text, self.first.bias)
        joined = nn.functional.linear(image, of_image) + shift
        logits: Tensor = self.output(self.hidden(joined))
        return logits
