"""Find out in which precision matrices of some size are multiplied faster on this processor."""

import time
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]

MIN_GAIN: Final = 1.1
"""How many times faster bf16 has to be: smaller gains are lost in conversions between the two."""
ROUNDS: Final = 7


@cache
def faster_precision(batch_size: int, n_inputs: int, n_outputs: int) -> Precision:
    """Return bf16 if a linear layer is trained faster in it than in fp32, else fp32.

    It times the products of a training step, which are the output of the layer and the gradient of
    its weights, in turn in both precisions; the medians are compared.

    Args:
        batch_size: Images per step.
        n_inputs: Number of inputs of the layer.
        n_outputs: Number of its outputs.
    """
    # Imported here because the settings of the command line import this module.
    from statistics import median

    import torch

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch_size, n_inputs, generator=generator)
    weights = torch.randn(n_outputs, n_inputs, generator=generator)
    operands = {torch.float32: inputs, torch.bfloat16: inputs.to(torch.bfloat16)}
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in operands}
    for _ in range(1 + ROUNDS):
        for dtype, values in operands.items():
            seconds[dtype].append(_seconds_of_step(values, weights))
    # The first step of each prepares its kernels.
    slow, fast = (median(measured[1:]) for measured in seconds.values())
    return "bf16" if slow > MIN_GAIN * fast else "fp32"


def _seconds_of_step(inputs: "torch.Tensor", weights: "torch.Tensor") -> float:
    import torch

    with torch.inference_mode():
        start = time.perf_counter()
        outputs = inputs @ weights.to(inputs.dtype).T
        outputs.T @ inputs
        return time.perf_counter() - start
