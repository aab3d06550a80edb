"""A network that is read at its first use and never trained; where it runs, how precisely."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.encoders.encoder import Array
from featurecache.errors import UsageError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16")


class InferenceNetwork:
    """A network that is loaded by ``read`` when it is first needed, then kept.

    It runs in eval mode, without gradients, on ``device``; with ``bf16`` under autocast.
    """

    def __init__(
        self, read: "Callable[[], torch.nn.Module]", *, device: str, precision: str
    ) -> None:
        self._read = read
        self._device = device
        self._precision = precision
        self._lock = Lock()
        self._module: torch.nn.Module | None = None

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._module is not None

    @contextmanager
    def inference(self) -> Iterator[Any]:
        """Give the network, within inference mode and the right precision."""
        import torch

        module = self._load()
        with (
            torch.inference_mode(),
            torch.autocast(
                torch.device(self._device).type,
                dtype=torch.bfloat16,
                enabled=self._precision == "bf16",
            ),
        ):
            yield module

    def to_device(self, values: Array) -> "torch.Tensor":
        """An array on the network's device; on a processor the array itself, if it may be.

        Torch warns about arrays that it cannot write to, and batches come from read-only buffers
        too: those are copied.
        """
        import torch

        writable = values if values.flags.writeable else values.copy()
        return torch.from_numpy(writable).to(self._device)

    def _load(self) -> "torch.nn.Module":
        with self._lock:
            if self._module is None:
                self._module = self._read().eval().requires_grad_(False).to(self._device)
            return self._module


def to_array(embedding: "torch.Tensor") -> Array:
    """A tensor of any precision and device as a float32 array."""
    array: Array = embedding.float().cpu().numpy()
    return np.ascontiguousarray(array)


def resolve_device(device: str) -> str:
    """The device for ``auto`` (a CUDA or Apple GPU where there is one), or the one named.

    Raises:
        UsageError: the name is unknown, or this machine has no such device.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available()}
    available["mps"] = torch.backends.mps.is_available()
    if device not in available:
        raise UsageError(f"unknown device {device!r}: known: auto, {', '.join(available)}")
    if not available[device]:
        raise UsageError(f"this machine has no {device} device: use --device auto or cpu")
    return device


def resolve_precision(precision: str) -> str:
    """The precision for ``auto``, which is fp32 on every device, or the one named.

    Whether bf16 leaves embeddings as they are shows only on films: see ``choose_precision``.

    Raises:
        UsageError: the name is unknown.
    """
    if precision == "auto":
        return "fp32"
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}: known: auto, {', '.join(PRECISIONS)}")
    return precision
