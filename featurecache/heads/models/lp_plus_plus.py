"""LP++: a linear probe blended with the text score, with step sizes derived from the data."""

import numpy as np
import torch
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.standardize import l2_normalize
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import Candidate, Head, TrainedHead, TrainingJob
from featurecache.losses import masked_bce

MAX_STEPS = 5000
VALIDATION_INTERVAL = 10
PATIENCE = 20
"""Training stops after this number of validations without a lower loss."""


class LpPlusPlus(Head):
    """``W x + b + alpha (T x)`` with one alpha per label.

    Huang et al. 2024, "LP++: a surprisingly strong linear probe for few-shot CLIP", for several
    labels at once. W starts from the mean of a label's positives minus that of its negatives, alpha
    from the encoder's scale; T is a label's positive minus its negative text. The step sizes of
    full-batch gradient descent follow from the data: the curvature of the mean log loss of N images
    is at most ``lambda_max(X'X) / (4 N)``, so a step of its inverse never overshoots. Since images
    resemble each other, that curvature is a hundred times the one along which they differ; Nesterov
    momentum (Nesterov 1983; Beck and Teboulle 2009, equation 4.2) takes as many steps as the square
    root of what plain descent takes. The number of steps has the lowest validation loss.
    """

    contrast: Tensor

    def __init__(self, dim: int, labels: int, texts: LabelTexts, config: HeadConfig) -> None:
        super().__init__()
        self.register_buffer("contrast", torch.from_numpy(texts.contrast()).clone())
        self.output = nn.Linear(dim, labels)
        self.blend = nn.Parameter(torch.full((labels,), texts.factor))

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the logits (B, C) of embeddings (B, D) of any length."""
        return self._logits(l2_normalize(embedding))

    def _logits(self, unit: Tensor) -> Tensor:
        logits: Tensor = self.output(unit) + self.blend * (unit @ self.contrast.T)
        return logits

    def fit(self, job: TrainingJob) -> TrainedHead:
        """Learn from the training rows; choose the number of steps on the validation rows."""
        data = job.data
        x, x_val = data.normalized(data.train), data.normalized(data.val)
        y, y_val = data.targets(data.train), data.targets(data.val)
        step_sizes = self._initialize(x, y)
        best, best_loss, best_state = 0, np.inf, self.state_dict()
        losses: dict[int, float] = {}
        parameters = [self.output.weight, self.output.bias, self.blend]
        previous = [parameter.detach().clone() for parameter in parameters]
        momentum = 1.0
        for step in range(MAX_STEPS + 1):
            if step % VALIDATION_INTERVAL == 0:
                with torch.no_grad():
                    losses[step] = masked_bce(self._logits(x_val), y_val).item()
                if losses[step] < best_loss:
                    best, best_loss = step, losses[step]
                    best_state = {name: value.clone() for name, value in self.state_dict().items()}
                elif step - best >= PATIENCE * VALIDATION_INTERVAL:
                    break
            following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            with torch.no_grad():
                for parameter, before in zip(parameters, previous, strict=True):
                    now = parameter.clone()
                    parameter += (momentum - 1) / following * (now - before)
                    before.copy_(now)
            self._step(x, y, step_sizes)
            momentum = following
        self.load_state_dict(best_state)
        history = tuple(
            Candidate("", f"steps={step}", loss, "loss", step == best)
            for step, loss in losses.items()
        )
        converged = step - best >= PATIENCE * VALIDATION_INTERVAL
        return TrainedHead(self.eval(), job.config, data.train, history, converged=converged)

    @torch.no_grad()
    def _initialize(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Set the initial weights, and return the step sizes of W, b and alpha."""
        counts = [(y == value).sum(dim=0).clamp(min=1) for value in (1, 0)]
        means = [
            (y == value).float().T @ x / count[:, None]
            for value, count in zip((1, 0), counts, strict=True)
        ]
        self.output.weight.copy_(means[0] - means[1])
        self.output.bias.copy_(torch.log(counts[0] / counts[1]))
        # The loss is averaged over all known labels, which lowers the curvature of each.
        n_known = (y >= 0).sum()
        text_curvature = (x @ self.contrast.T).square().sum(dim=0)
        largest = torch.linalg.eigvalsh((x.T @ x).double())[-1].float()
        return (
            4 * n_known / largest,
            4 * n_known / len(x),
            4 * n_known / text_curvature.clamp(min=1e-12),
        )

    def _step(self, x: Tensor, y: Tensor, step_sizes: tuple[Tensor, Tensor, Tensor]) -> None:
        parameters = (self.output.weight, self.output.bias, self.blend)
        gradients = torch.autograd.grad(masked_bce(self._logits(x), y), parameters)
        with torch.no_grad():
            # Each step size holds if the other two blocks stay fixed; a third of it is safe for
            # moving all three.
            for parameter, size, gradient in zip(parameters, step_sizes, gradients, strict=True):
                parameter -= size / 3 * gradient
