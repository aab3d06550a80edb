"""AdamW through torch's functional form.

The first optimizer object of ``torch.optim`` imports torch's compiler, which takes longer than
training a head of few images does; the function that such an object calls needs nothing of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with settings of their own.

    Attributes:
        parameters: float32, on the processor.
        learning_rate: at its highest.
        weight_decay: decoupled: a step shrinks a parameter by the rate times this.
        epsilon: added to the root of the second moment.
    """

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float
    epsilon: float = 1e-8


class AdamW:
    """Steps of AdamW, with torch's usual betas, for parameters that all get a gradient."""

    def __init__(self, groups: Sequence[ParameterGroup]) -> None:
        self._groups = [(group, _Moments(group.parameters)) for group in groups]

    def step(self, factor: float) -> None:
        """Move every parameter against its gradient, at ``factor`` times its rate, and forget it.

        Raises:
            ValueError: a parameter has no gradient.
        """
        from torch.optim.adamw import adamw

        for group, moments in self._groups:
            gradients = [one.grad for one in group.parameters if one.grad is not None]
            if len(gradients) < len(group.parameters):
                raise ValueError("a parameter has no gradient: the loss does not depend on it")
            with torch.no_grad():
                adamw(
                    list(group.parameters),
                    gradients,
                    moments.first,
                    moments.second,
                    [],
                    moments.steps,
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


class _Moments:
    """Running means of gradients and of their squares, and how many went into each."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.first: list[Tensor] = [torch.zeros_like(one) for one in parameters]
        self.second: list[Tensor] = [torch.zeros_like(one) for one in parameters]
        self.steps: list[Tensor] = [torch.tensor(0.0) for _ in parameters]
