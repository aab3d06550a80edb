"""A tool for heads and encoders to be logged to, and a data set that both are trained on."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import featurecache as fc
from featurecache.datasets.phantom.folder import generate_phantom
from tests.tracking.mlflow_library import use_mlflow


@pytest.fixture(scope="package")
def data(tmp_path_factory) -> fc.Dataset:
    folder = tmp_path_factory.mktemp("data") / "phantom"
    generate_phantom(folder, n_images=120, size=64)
    return fc.load_dataset("phantom", folder)


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """A client of MLflow, installed or not."""
    use_mlflow(monkeypatch, tmp_path)
    from mlflow import MlflowClient

    return MlflowClient()


class WandbRun:
    """What Weights & Biases does with one run."""

    def __init__(self, **arguments):
        self.arguments, self.lines, self.exit_code = arguments, [], None
        self.id, self.summary = arguments["id"] or "made", {}

    def define_metric(self, name, step_metric):
        self.defined = name, step_metric

    def log(self, values):
        if values["epoch"] == 3:
            raise sys.modules["wandb"].Error("the disk of the server is full")
        self.lines.append(values)

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture
def wandb_runs(monkeypatch) -> list[WandbRun]:
    """The runs of a stand-in for wandb, whose server fails at the third epoch."""
    runs: list[WandbRun] = []

    def init(**arguments):
        runs.append(WandbRun(**arguments))
        return runs[-1]

    module = ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)
    module.__dict__.update(init=init, Error=type("Error", (Exception,), {}))
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return runs


@pytest.fixture
def events():
    """Read the event files of TensorBoard back."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder: Path) -> SimpleNamespace:
        files = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        files.Reload()
        scalars = {
            tag: [(event.step, event.value) for event in files.Scalars(tag)]
            for tag in files.Tags()["scalars"]
        }
        text = files.Tensors("settings/text_summary")[-1]
        return SimpleNamespace(
            scalars=scalars,
            settings=text.tensor_proto.string_val[0].decode(),
            hparams=files.PluginTagToContent("hparams"),
        )

    return read
