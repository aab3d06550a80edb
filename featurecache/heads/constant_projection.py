"""A linear layer whose input is the same for every image, trained through its output alone."""

import torch
from torch import Tensor, nn

from featurecache.heads.adamw import EPSILON, ParameterGroup


class ConstantProjection(nn.Module):
    """``W t + b`` of a constant t, with W and b initialized as in ``nn.Linear``.

    W has a weight for each entry of t, some ten million for a mega-vector, but all that training
    can change is one output. With g the gradient of b, the gradient of W is ``g t'``. Adam divides
    a gradient by its own magnitude, so the entries of t cancel except for their signs: if a step
    moves b by ``-rate * a``, it moves W by ``-rate * a sign(t)'`` and W t by ``-rate * |t|_1 a``.
    The output is therefore trained in place of W and b, at ``reach`` times the learning rate, and
    costs as much as a bias.

    The only difference from training W and b is Adam's epsilon, which each entry of t scales for
    its own weight; here all entries share the mean.

    Args:
        constant: t, (I,).
        outputs: Number of outputs, O.

    Attributes:
        output: ``W t + b``, (1, O).
        reach: How far a step at learning rate 1 moves the output, ``|t|_1 + 1``.
        entries: Number of non-zero entries of t, plus 1 for the bias.
    """

    def __init__(self, constant: Tensor, outputs: int) -> None:
        super().__init__()
        with torch.no_grad():
            linear = nn.Linear(constant.numel(), outputs)
            self.output = nn.Parameter(linear(constant.reshape(1, -1)))
        self.reach = constant.abs().sum().item() + 1
        self.entries = constant.count_nonzero().item() + 1

    def forward(self) -> Tensor:
        """Return the output, (1, O)."""
        return self.output


def parameter_groups(
    module: nn.Module, *, learning_rate: float, weight_decay: float
) -> list[ParameterGroup]:
    """Return a module's parameters for AdamW.

    The settings of a ``ConstantProjection`` are scaled so that its output moves as if W and b were
    trained.

    Args:
        module: The module.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, ConstantProjection)]
    outputs = {layer.output for layer in layers}
    others = [parameter for parameter in module.parameters() if parameter not in outputs]
    return [
        ParameterGroup(others, learning_rate, weight_decay),
        *(
            ParameterGroup(
                [layer.output],
                learning_rate * layer.reach,
                # AdamW shrinks by learning rate times weight decay, which must not change.
                weight_decay / layer.reach,
                EPSILON * layer.entries / layer.reach,
            )
            for layer in layers
        ),
    ]
