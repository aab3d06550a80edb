"""LP++: a linear probe beside the text score, with steps that the data set the length of."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.head import Head
from featurecache.heads.standardize import l2_normalize, l2_normalize_tensor, targets
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import Candidate, TrainedHead, Training
from featurecache.losses import masked_bce

STEPS = 300
LOOK_EVERY = 10
"""Steps between two looks at the validation loss."""


class LpPlusPlus(Head):
    """``W x + b + alpha (T x)``, alpha one number a label.

    Huang et al. 2024, "LP++: a surprisingly strong linear probe for few-shot CLIP", for several
    labels at once: W starts from the mean of a label's positives less that of its negatives, alpha
    from the encoder's scale, T is a label's text less its negative text. Gradient steps over all
    training images have the length that their data allow: the mean log loss of N images bends no
    more than ``lambda_max(X'X) / (4 N)``, so a step of its inverse never overshoots. The number of
    steps has the least validation loss.
    """

    contrast: Tensor

    def __init__(self, dim: int, labels: int, texts: LabelTexts, config: HeadConfig) -> None:
        super().__init__()
        self.register_buffer("contrast", torch.from_numpy(texts.contrast()).clone())
        self.output = nn.Linear(dim, labels)
        self.blend = nn.Parameter(torch.full((labels,), texts.factor))

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) embeddings of any length to (B, C) logits."""
        return self._logits(l2_normalize_tensor(embedding))

    def _logits(self, unit: Tensor) -> Tensor:
        logits: Tensor = self.output(unit) + self.blend * (unit @ self.contrast.T)
        return logits

    def fit(self, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
        """Learn from the training rows; the number of steps by the validation rows."""
        data = training.data
        x, x_val = (l2_normalize(data.embedding, of) for of in (rows, data.val))
        y, y_val = (targets(data.labels, of) for of in (rows, data.val))
        steps = self._begin(x, y)
        best, best_loss, best_state = 0, np.inf, self.state_dict()
        losses: dict[int, float] = {}
        for step in range(STEPS + 1):
            if step % LOOK_EVERY == 0:
                with torch.no_grad():
                    losses[step] = masked_bce(self._logits(x_val), y_val).item()
                if losses[step] < best_loss:
                    best, best_loss = step, losses[step]
                    best_state = {name: value.clone() for name, value in self.state_dict().items()}
            self._step(x, y, steps)
        self.load_state_dict(best_state)
        history = tuple(
            Candidate("", f"steps={step}", loss, "loss", step == best)
            for step, loss in losses.items()
        )
        return TrainedHead(self.eval(), training.config, history, None, rows)

    @torch.no_grad()
    def _begin(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Set the first weights, and tell how long steps of W, b and alpha may be."""
        counts = [(y == value).sum(dim=0).clamp(min=1) for value in (1, 0)]
        means = [
            (y == value).float().T @ x / count[:, None]
            for value, count in zip((1, 0), counts, strict=True)
        ]
        self.output.weight.copy_(means[0] - means[1])
        self.output.bias.copy_(torch.log(counts[0] / counts[1]))
        # Each image's loss is averaged over all known labels, so a label's part of it bends less.
        known = (y >= 0).sum()
        of_text = (x @ self.contrast.T).square().sum(dim=0)
        largest = torch.linalg.eigvalsh((x.T @ x).double())[-1].float()
        return 4 * known / largest, 4 * known / len(x), 4 * known / of_text.clamp(min=1e-12)

    def _step(self, x: Tensor, y: Tensor, lengths: tuple[Tensor, Tensor, Tensor]) -> None:
        moved = (self.output.weight, self.output.bias, self.blend)
        gradients = torch.autograd.grad(masked_bce(self._logits(x), y), moved)
        with torch.no_grad():
            # Each block as if the others stood still: a third of the length keeps the sum safe.
            for block, length, gradient in zip(moved, lengths, gradients, strict=True):
                block -= length / 3 * gradient
