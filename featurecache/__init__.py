"""Run a frozen encoder over chest X-rays once, and reuse its embeddings in seconds.

The names in ``__all__`` are the public API. Each is imported when it is first used, so that
``import featurecache`` is instant.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurecache.alignment.alignment import Alignment
    from featurecache.alignment.fit import align
    from featurecache.encoders.encoder import Encoder
    from featurecache.encoders.loading import load_encoder
    from featurecache.encoders.registry import register_encoder
    from featurecache.evaluation.comparison import Comparison, compare
    from featurecache.evaluation.trained_model import TrainedModel
    from featurecache.evaluation.zero_shot import zero_shot
    from featurecache.metrics.metrics import Metrics
    from featurecache.retrieval.query import retrieve
    from featurecache.runs.run import Run, load_run

__version__ = version("featurecache")

_MODULES = {
    "Alignment": "alignment.alignment",
    "Comparison": "evaluation.comparison",
    "Encoder": "encoders.encoder",
    "Metrics": "metrics.metrics",
    "Run": "runs.run",
    "TrainedModel": "evaluation.trained_model",
    "align": "alignment.fit",
    "compare": "evaluation.comparison",
    "load_encoder": "encoders.loading",
    "load_run": "runs.run",
    "register_encoder": "encoders.registry",
    "retrieve": "retrieval.query",
    "zero_shot": "evaluation.zero_shot",
}
"""The module that defines each public name."""

__all__ = [
    "Alignment",
    "Comparison",
    "Encoder",
    "Metrics",
    "Run",
    "TrainedModel",
    "align",
    "compare",
    "load_encoder",
    "load_run",
    "register_encoder",
    "retrieve",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'featurecache' has no attribute {name!r}")
    value = getattr(import_module(f"featurecache.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
