"""Choose and describe the device that networks run on."""

import platform
from pathlib import Path

from featurecache.errors import UsageError


def resolve_device(device: str) -> str:
    """Return the device to use.

    Args:
        device: ``auto`` for a CUDA or Apple GPU if there is one, else the CPU; or ``cpu``,
            ``cuda`` or ``mps``.

    Raises:
        UsageError: The name is unknown, or this machine has no such device.
    """
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, present in available.items() if present)
    if device not in available:
        raise UsageError(f"unknown device {device!r}: use auto, {', '.join(available)}")
    if not available[device]:
        raise UsageError(f"this machine has no {device} device: set `device` to auto or cpu")
    return device


def describe_processor(device: str) -> str:
    """Return the model of the processor that networks run on, such as "AMD EPYC, family 25 ...".

    Args:
        device: ``cpu``, ``cuda`` or ``mps``.
    """
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    lines = text.split("\n\n")[0].splitlines()
    first = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    keys = [key for key in ("cpu family", "model", "stepping") if key in first]
    return ", ".join(
        [first.get("model name", platform.machine()), *(f"{key} {first[key]}" for key in keys)]
    )
