"""What a device is good at."""

from typing import Any


def has_fast_bf16(device: str) -> bool:
    """Whether a device multiplies bf16 matrices faster than fp32 ones, by its instructions."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        # Older releases of torch do not tell.
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False
