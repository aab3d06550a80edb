"""The head of the BCE objective, on the image embedding of the encoder in training."""

from torch import nn

from featurecache.finetune.config import HeadKind

HIDDEN = 512
DROPOUT = 0.1


def build_head(kind: HeadKind, dim: int, labels: int) -> nn.Sequential:
    """Build a linear layer, or a multilayer perceptron with one hidden layer.

    A layer norm comes first, because the norms of embeddings differ a hundredfold among encoders.

    Args:
        kind: "linear" or "mlp".
        dim: Dimension of the embedding.
        labels: Number of labels.

    Returns:
        A module from (B, dim) embeddings to (B, labels) logits.
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
