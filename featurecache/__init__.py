"""Run a frozen encoder over chest X-rays once, and reuse its embeddings in seconds.

The names in ``__all__`` are the public API. Each is imported when it is first used, so that
``import featurecache`` is instant.
"""

import logging
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurecache.alignment.alignment import Alignment
    from featurecache.alignment.fit import align
    from featurecache.audit.audit import Audit, audit
    from featurecache.datasets.dataset import Dataset
    from featurecache.datasets.load import load_dataset
    from featurecache.datasets.registry import register_dataset
    from featurecache.encoders.convert import convert_checkpoint
    from featurecache.encoders.encoder import Encoder
    from featurecache.encoders.loading import load_encoder
    from featurecache.encoders.registry import register_encoder
    from featurecache.errors import FeaturecacheError
    from featurecache.evaluation.comparison import Comparison, compare
    from featurecache.evaluation.prompt_comparison import compare_prompts
    from featurecache.evaluation.table import MetricsTable, table
    from featurecache.evaluation.trained_model import TrainedModel
    from featurecache.evaluation.zero_shot import zero_shot
    from featurecache.explore.explore import explore
    from featurecache.export.export import export_cache
    from featurecache.extraction.extract import estimate_extraction, extract
    from featurecache.finetune.finetune import finetune
    from featurecache.heads.learning_curve import LearningCurve, learning_curve
    from featurecache.heads.registry import register_head
    from featurecache.heads.train import train_head
    from featurecache.importing.import_cache import import_cache
    from featurecache.label_cells import LabelPolicy
    from featurecache.metrics.metrics import Metrics
    from featurecache.prompts import PromptSet
    from featurecache.report.report import report
    from featurecache.retrieval.query import retrieve
    from featurecache.retrieval.suggest import suggest
    from featurecache.runs.run import Run, load_run
    from featurecache.serve.serve import prediction_app, serve
    from featurecache.sharing.pull import pull_cache, pull_run
    from featurecache.sharing.push import push_cache, push_run
    from featurecache.sklearn import HeadClassifier
    from featurecache.store.cache import Cache
    from featurecache.store.open import open_cache
    from featurecache.study.run import plan_study, run_study

# The program that uses the package decides what is logged where.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_MODULES = {
    "Alignment": "alignment.alignment",
    "Audit": "audit.audit",
    "Cache": "store.cache",
    "Comparison": "evaluation.comparison",
    "Dataset": "datasets.dataset",
    "Encoder": "encoders.encoder",
    "FeaturecacheError": "errors",
    "HeadClassifier": "sklearn",
    "LabelPolicy": "label_cells",
    "LearningCurve": "heads.learning_curve",
    "Metrics": "metrics.metrics",
    "MetricsTable": "evaluation.table",
    "PromptSet": "prompts",
    "Run": "runs.run",
    "TrainedModel": "evaluation.trained_model",
    "align": "alignment.fit",
    "audit": "audit.audit",
    "compare": "evaluation.comparison",
    "compare_prompts": "evaluation.prompt_comparison",
    "convert_checkpoint": "encoders.convert",
    "estimate_extraction": "extraction.extract",
    "export_cache": "export.export",
    "explore": "explore.explore",
    "extract": "extraction.extract",
    "finetune": "finetune.finetune",
    "import_cache": "importing.import_cache",
    "learning_curve": "heads.learning_curve",
    "load_dataset": "datasets.load",
    "load_encoder": "encoders.loading",
    "load_run": "runs.run",
    "open_cache": "store.open",
    "plan_study": "study.run",
    "prediction_app": "serve.serve",
    "pull_cache": "sharing.pull",
    "pull_run": "sharing.pull",
    "push_cache": "sharing.push",
    "push_run": "sharing.push",
    "register_dataset": "datasets.registry",
    "register_encoder": "encoders.registry",
    "register_head": "heads.registry",
    "report": "report.report",
    "retrieve": "retrieval.query",
    "run_study": "study.run",
    "serve": "serve.serve",
    "suggest": "retrieval.suggest",
    "table": "evaluation.table",
    "train_head": "heads.train",
    "zero_shot": "evaluation.zero_shot",
}
"""The module that defines each public name."""

__all__ = [
    "Alignment",
    "Audit",
    "Cache",
    "Comparison",
    "Dataset",
    "Encoder",
    "FeaturecacheError",
    "HeadClassifier",
    "LabelPolicy",
    "LearningCurve",
    "Metrics",
    "MetricsTable",
    "PromptSet",
    "Run",
    "TrainedModel",
    "align",
    "audit",
    "compare",
    "compare_prompts",
    "convert_checkpoint",
    "estimate_extraction",
    "explore",
    "export_cache",
    "extract",
    "finetune",
    "import_cache",
    "learning_curve",
    "load_dataset",
    "load_encoder",
    "load_run",
    "open_cache",
    "plan_study",
    "prediction_app",
    "pull_cache",
    "pull_run",
    "push_cache",
    "push_run",
    "register_dataset",
    "register_encoder",
    "register_head",
    "report",
    "retrieve",
    "run_study",
    "serve",
    "suggest",
    "table",
    "train_head",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("featurecache")
    if name not in _MODULES:
        raise AttributeError(f"module 'featurecache' has no attribute {name!r}")
    value = getattr(import_module(f"featurecache.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keep functions such as ``audit`` where packages have the same names.

    Importing ``featurecache.audit`` would bind the package to ``featurecache.audit``.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
