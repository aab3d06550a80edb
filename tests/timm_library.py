"""timm and open_clip where torchvision is missing, which has no build for every torch.

They need only names of it: of transforms, of data sets, and of layers that are not built.
"""

import enum
import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch

_MODULES = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "torchvision.utils",
)


class InterpolationMode(enum.Enum):
    """The names that timm looks up."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class _Placeholder(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return InterpolationMode if name == "InterpolationMode" else type(name, (_Nothing,), {})


class _Nothing(torch.nn.Module):
    """Stands for a class that is only named."""


def with_placeholders(name: str, *others: str) -> ModuleType:
    """Import a module, with placeholders for torchvision and other missing modules meanwhile."""
    missing = {
        module: _Placeholder(module)
        for module in (*_MODULES, *others)
        if module not in sys.modules and find_spec(module.partition(".")[0]) is None
    }
    for module, placeholder in missing.items():
        parent, _, child = module.rpartition(".")
        if parent:
            setattr(missing[parent], child, placeholder)
    sys.modules.update(missing)
    try:
        return importlib.import_module(name)
    finally:
        for module in missing:  # transformers would take them for the library
            del sys.modules[module]


def import_timm() -> ModuleType:
    """Import timm; skip the tests without it."""
    if find_spec("timm") is None:
        pytest.skip("the extra timm is not installed", allow_module_level=True)
    return with_placeholders("timm")


def import_open_clip() -> ModuleType:
    """Import open_clip; skip the tests without it."""
    if find_spec("open_clip") is None:
        pytest.skip("the extra open-clip is not installed", allow_module_level=True)
    import_timm()
    # transformers looks for torchvision itself, and must not find the placeholders.
    from transformers import AutoModel  # noqa: F401

    return with_placeholders("open_clip")
