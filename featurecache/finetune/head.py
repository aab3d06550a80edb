"""The head of the BCE objective, on the image embedding of the encoder in training."""

from torch import nn

from featurecache.finetune.config import HeadKind

HIDDEN = 512
DROPOUT = 0.1


def build_head(kind: HeadKind, dim: int, labels: int) -> nn.Sequential:
    """One linear layer, or one hidden layer before it: (B, dim) embeddings to (B, C) logits.

    A layer norm comes first, since encoders differ a hundredfold in the length of an embedding.
    """
    if kind == "linear":
        return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, labels))
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, HIDDEN),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(HIDDEN, labels),
    )
