"""Run a network for inference: loaded at its first use, in eval mode, without gradients."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock, local
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.encoders.encoder import Array

if TYPE_CHECKING:
    import torch


class InferenceNetwork:
    """A network that is loaded when it is first needed, then kept.

    On CUDA, every thread that embeds has a stream of its own, so that the batch of one is copied to
    the GPU while that of another is computed.

    It does not keep the function that loads it: that is usually a method of the encoder which owns
    this object, and the cycle would delay freeing the weights.
    """

    def __init__(self, *, device: str) -> None:
        self._device = device
        self._lock = Lock()
        self._modules: dict[torch.dtype, torch.nn.Module] = {}
        self._of_thread = local()

    @contextmanager
    def inference(
        self, load: "Callable[[], torch.nn.Module]", *, precision: str = "fp32"
    ) -> Iterator[Any]:
        """Yield the network within inference mode, and under autocast for bf16.

        Args:
            load: Reads the network in fp32; called only if it is not loaded in that format yet.
            precision: See ``Execution``.
        """
        import torch

        dtype = weights_dtype(precision)
        with self._stream():
            with self._lock:
                if dtype not in self._modules:
                    module = load().eval().requires_grad_(False)
                    self._modules[dtype] = module.to(self._device, dtype)
                    if self._device == "cuda":
                        # By default, convolutions of fp32 are computed in TF32, of 10 bits.
                        torch.backends.cudnn.allow_tf32 = False
                        torch.cuda.synchronize()  # other streams do not wait for the weights
                module = self._modules[dtype]
            with (
                torch.inference_mode(),
                torch.autocast(
                    torch.device(self._device).type,
                    dtype=torch.bfloat16,
                    enabled=precision == "bf16",
                ),
            ):
                yield module

    def _stream(self) -> "AbstractContextManager[object]":
        import torch

        if self._device != "cuda":
            return nullcontext()
        if not hasattr(self._of_thread, "stream"):
            self._of_thread.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._of_thread.stream)

    def to_device(self, values: Array) -> "torch.Tensor":
        """Return an array as a tensor on the network's device, sharing memory where possible.

        Read-only arrays are copied, because torch warns about tensors it must not write to.
        """
        import torch

        tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
        if self._device == "cuda":
            # Only from pinned memory can the GPU copy while it computes.
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)


def weights_dtype(precision: str) -> "torch.dtype":
    """Return the format of the weights, and of the pixels, in a precision."""
    import torch

    return {"fp16": torch.float16, "bf16-weights": torch.bfloat16}.get(precision, torch.float32)


def to_array(embedding: "torch.Tensor") -> Array:
    """Return a tensor of any precision and device as a float32 array."""
    array: Array = embedding.float().cpu().numpy()
    return np.ascontiguousarray(array)
