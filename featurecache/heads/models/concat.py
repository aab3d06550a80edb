"""The two-branch head: image and text through a branch each, then concatenated."""

import torch
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.constant_projection import ConstantProjection
from featurecache.heads.gradient import GradientHead
from featurecache.heads.layers import Dropout, hidden_layers, normalize_layer
from featurecache.heads.text_features import LabelTexts
from featurecache.prompts import mega_vector


class Concat(GradientHead):
    """``classifier([image_branch(x), text_branch(t)])`` with t the prompt mega-vector.

    As in "squeezing every drop out of CLIP features", with one correction. The text t is the same
    for every image, so batch norm on its branch would see a batch of equal rows: it would return
    its bias whatever the text, and in evaluation its running variance, nearly zero, would blow up
    any drift. The text branch is therefore evaluated once per step, on its single row, with layer
    norm. Batch norm after the fusion, which is not the default, sees the images' share of the
    layer: it would subtract the text, which is added after it.
    """

    def __init__(self, dim: int, labels: int, texts: LabelTexts, config: HeadConfig) -> None:
        super().__init__(dim, config)
        assert config.hidden is not None
        text = torch.from_numpy(mega_vector(texts.positive))
        first, *rest = config.hidden
        self.image_branch = nn.Sequential(
            nn.Linear(dim, first, bias=not config.normalizes_first),
            normalize_layer(first, config.normalizes_first),
            nn.ReLU(),
            Dropout(config.dropout),
        )
        self.text_projection = ConstantProjection(text, first)
        self.text_branch = nn.Sequential(nn.LayerNorm(first), nn.ReLU(), Dropout(config.dropout))
        hidden = rest or [first]
        self.first = nn.Linear(2 * first, hidden[0])
        self.norm = normalize_layer(hidden[0], config.normalizes_later)
        self.hidden = hidden_layers(
            hidden, dropout=config.dropout, batch_norm=config.normalizes_later
        )
        self.output = nn.Linear(hidden[-1], labels)

    def logits(self, scaled: Tensor) -> Tensor:
        """Return the logits (B, C) of standardized embeddings (B, D)."""
        image = self.image_branch(self.noise(scaled))
        text = self.text_branch(self.text_projection())
        # W [image, text] = W_image image + W_text text, where the text needs only one row.
        image_weight, text_weight = self.first.weight.chunk(2, dim=1)
        shift = nn.functional.linear(text, text_weight, self.first.bias)
        fused = self.norm(nn.functional.linear(image, image_weight)) + shift
        logits: Tensor = self.output(self.hidden(fused))
        return logits
