"""Choose the device that networks run on, and find out whether bf16 is fast there."""

from typing import Any

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


def has_fast_bf16(device: str) -> bool:
    """Return whether a device has instructions that multiply bf16 matrices faster than fp32."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        # Older releases of torch lack the function.
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False
