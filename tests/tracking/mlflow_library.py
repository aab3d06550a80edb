"""Stand-in for MLflow where it is not installed: what the adapter uses, with runs in memory."""

import sys
from collections import defaultdict
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import pytest


class Param(NamedTuple):
    key: str
    value: str


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class MlflowException(Exception):  # noqa: N818
    pass


class MlflowClient:
    """Runs by id; a class attribute, because a server keeps them between clients."""

    runs: dict[str, SimpleNamespace] = {}  # noqa: RUF012
    history: defaultdict[tuple[str, str], list[Metric]] = defaultdict(list)  # noqa: RUF012

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=name) if self.runs else None

    def create_experiment(self, name):
        return name

    def create_run(self, experiment_id, run_name):
        run_id = f"id{len(self.runs)}"
        info = SimpleNamespace(run_id=run_id, run_name=run_name, status="RUNNING")
        data = SimpleNamespace(params={}, metrics={})
        self.runs[run_id] = SimpleNamespace(info=info, data=data, experiment=experiment_id)
        return self.runs[run_id]

    def update_run(self, run_id, status):
        self.runs[run_id].info.status = status

    def set_terminated(self, run_id, status):
        print("View run at: http://mlflow")  # as for runs on a server
        self.update_run(run_id, status)

    def log_batch(self, run_id, metrics=(), params=()):
        for param in params:
            assert param.key not in self.runs[run_id].data.params  # MLflow allows no other value
            self.runs[run_id].data.params[param.key] = param.value
        for metric in metrics:
            self.history[run_id, metric.key].append(metric)
            self.runs[run_id].data.metrics[metric.key] = metric.value

    def search_runs(self, experiment_ids):
        return [run for run in self.runs.values() if run.experiment in experiment_ids][::-1]

    def get_metric_history(self, run_id, key):
        return self.history[run_id, key]


def use_mlflow(monkeypatch: pytest.MonkeyPatch, folder) -> None:
    """Use MLflow with a database in a folder, or else the stand-in."""
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    if find_spec("mlflow") is not None:
        return
    monkeypatch.setattr(MlflowClient, "runs", {})
    monkeypatch.setattr(MlflowClient, "history", defaultdict(list))
    contents = {
        "mlflow": {"MlflowClient": MlflowClient},
        "mlflow.entities": {"Metric": Metric, "Param": Param},
        "mlflow.exceptions": {"MlflowException": MlflowException},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
