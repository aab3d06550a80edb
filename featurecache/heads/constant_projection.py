"""A linear layer whose input is the same for every image, trained by its output alone."""

import torch
from torch import Tensor, nn

from featurecache.heads.adamw import ParameterGroup


class ConstantProjection(nn.Module):
    """``W t + b`` of one fixed t, with W and b drawn as torch draws a ``Linear``'s.

    W has a weight for each entry of t, some ten million where t is a mega-vector, and yet all that
    a training can make of them is one output. Its gradient g is that of b, and W's is ``g t'``.
    Adam divides a gradient by its own size, so that the entries of t cancel but for their signs:
    each step moves W by ``-rate * a sign(t)'``, where a is the step of a bias, and so moves W t by
    ``-rate * |t|_1 a``. The output is therefore trained in place of W and b, at ``reach`` times
    the rate, and a training costs as much as that of a bias.

    What differs from training W and b is Adam's epsilon, which an entry of t makes larger or
    smaller for its weight; here all have the mean.

    Attributes:
        output: ``W t + b``, (1, O).
        reach: how far a step at rate 1 moves the output, ``|t|_1 + 1``.
        entries: the entries of t and the bias that move it.
    """

    def __init__(self, fixed: Tensor, outputs: int) -> None:
        """Args: fixed is t, (I,)."""
        super().__init__()
        with torch.no_grad():
            self.output = nn.Parameter(nn.Linear(fixed.numel(), outputs)(fixed.reshape(1, -1)))
        self.reach = fixed.abs().sum().item() + 1
        self.entries = fixed.count_nonzero().item() + 1

    def forward(self) -> Tensor:
        """The output, (1, O)."""
        return self.output


def parameter_groups(
    module: nn.Module, *, learning_rate: float, weight_decay: float, epsilon: float = 1e-8
) -> list[ParameterGroup]:
    """A module's parameters for AdamW, those of fixed inputs as if W and b were trained."""
    layers = [part for part in module.modules() if isinstance(part, ConstantProjection)]
    outputs = {layer.output for layer in layers}
    rest = [parameter for parameter in module.parameters() if parameter not in outputs]
    return [
        ParameterGroup(rest, learning_rate, weight_decay, epsilon),
        *(
            ParameterGroup(
                [layer.output],
                learning_rate * layer.reach,
                # AdamW shrinks by rate times decay, which is to stay as it was.
                weight_decay / layer.reach,
                epsilon * layer.entries / layer.reach,
            )
            for layer in layers
        ),
    ]
