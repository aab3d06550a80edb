"""AdamW through torch's functional form.

Creating the first optimizer object of ``torch.optim`` imports torch's compiler, which takes longer
than training a head on few images. The function that such an object calls does not need it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

EPSILON = 1e-8


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share their settings.

    Attributes:
        parameters: Float32 parameters on the CPU.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay: a step shrinks a parameter by learning rate times
            weight decay.
        epsilon: Added to the root of the second moment.
    """

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float
    epsilon: float = EPSILON


class AdamW:
    """AdamW with torch's default betas, for parameters that all have a gradient."""

    def __init__(self, groups: Sequence[ParameterGroup]) -> None:
        self._groups = groups
        parameters = [parameter for group in groups for parameter in group.parameters]
        self._first_moment = {p: torch.zeros_like(p) for p in parameters}
        self._second_moment = {p: torch.zeros_like(p) for p in parameters}
        self._steps = {p: torch.tensor(0.0) for p in parameters}

    def step(self, factor: float) -> None:
        """Update every parameter and clear its gradient.

        Args:
            factor: Factor on the peak learning rates.

        Raises:
            ValueError: A parameter has no gradient.
        """
        from torch.optim.adamw import adamw

        for group in self._groups:
            gradients = [p.grad for p in group.parameters if p.grad is not None]
            if len(gradients) < len(group.parameters):
                raise ValueError("a parameter has no gradient: the loss does not depend on it")
            with torch.no_grad():
                adamw(
                    list(group.parameters),
                    gradients,
                    [self._first_moment[p] for p in group.parameters],
                    [self._second_moment[p] for p in group.parameters],
                    [],
                    [self._steps[p] for p in group.parameters],
                    fused=True,
                    amsgrad=False,
                    beta1=0.9,
                    beta2=0.999,
                    lr=group.learning_rate * factor,
                    weight_decay=group.weight_decay,
                    eps=group.epsilon,
                    maximize=False,
                )
            for parameter in group.parameters:
                parameter.grad = None
