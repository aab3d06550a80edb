"""Run folders: what heads, scorings and learning curves leave, as other commands read it."""

from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from featurecache.cli import main
from featurecache.errors import CheckpointError, RunError, UsageError
from featurecache.evaluation.comparison import read_scored
from featurecache.evaluation.trained_model import read_platt
from featurecache.finetune.io import load_model as load_finetuned
from featurecache.heads.io import load_model
from featurecache.provenance import read_provenance
from featurecache.report.page import build_page
from tests.faults.bytes import write_example
from tests.fuzz.changes import changed_csv, changed_json, changed_safetensors
from tests.fuzz.readers import Reader

_REPORT_COST = 40
_TUNED_COST = 10


def _made(*arguments: object) -> Callable[[Path], Path]:
    """A way to make a run from a cache by a command."""

    def make(folder: Path) -> Path:
        write_example(folder / "m.h5")
        return _run(folder / "run", *arguments, "--cache", folder / "m.h5")

    return make


def _run(target: Path, *arguments: object) -> Path:
    given = [*map(str, arguments), "--out", str(target)]
    ended = CliRunner().invoke(main, given, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return target


_few = ("--n-bootstrap", 20)
_head = _made("train-head", "--head", "weighted_sum", "--epochs", 2, *_few)
_curve = _made(
    *("learning-curve", "--head", "baseline", "--head", "linear", "--sizes", "16,32", "--seeds", 1),
    *_few,
)


def _tuned(folder: Path) -> Path:
    films = ("--dataset", "phantom", "--data-root", folder / "films", "--n-images", 60)
    settings = (
        "--objective",
        "bce",
        "--trainable",
        "head",
        "--model",
        "tiny",
        "--epochs",
        1,
        *_few,
    )
    return _run(folder / "run", "finetune", *films, *settings)


def _file(make: Callable[[Path], Path], name: str) -> Callable[[Path], Path]:
    return lambda folder: make(folder) / name


def _read_head(file: Path) -> object:
    return load_model(file.parent)


def _read_tuned(file: Path) -> object:
    return load_finetuned(file.parent)


def _read_figures(file: Path) -> object:
    return read_scored(file.parent), read_platt(file.parent)


def _report(file: Path) -> object:
    return build_page([file.parent], n_bootstrap=0).html.encode()


def _read_provenance(file: Path) -> object:
    return read_provenance(file.parent).to_json()


_CONFIG, _METRICS = _file(_head, "config.json"), _file(_head, "metrics.json")
_REPORTED = (RunError, UsageError)

READERS = {
    "run-config": Reader(_CONFIG, _read_head, (RunError,), changed_json),
    "run-weights": Reader(
        _file(_head, "head.safetensors"), _read_head, (RunError,), changed_safetensors
    ),
    "run-metrics": Reader(_METRICS, _read_figures, (RunError,), changed_json),
    "run-predictions": Reader(
        _file(_head, "predictions.csv"), _read_figures, (RunError,), changed_csv, cost=10
    ),
    "run-provenance": Reader(
        _file(_head, "provenance.json"), _read_provenance, (CheckpointError,), changed_json
    ),
    "tuned-config": Reader(
        _file(_tuned, "config.json"),
        _read_tuned,
        (RunError, CheckpointError),
        changed_json,
        _TUNED_COST,
    ),
    "tuned-weights": Reader(
        _file(_tuned, "head.safetensors"),
        _read_tuned,
        (RunError,),
        changed_safetensors,
        _TUNED_COST,
    ),
    "report-config": Reader(_CONFIG, _report, _REPORTED, changed_json, _REPORT_COST),
    "report-metrics": Reader(_METRICS, _report, _REPORTED, changed_json, _REPORT_COST),
    "report-predictions": Reader(
        _file(_head, "predictions.csv"), _report, _REPORTED, changed_csv, _REPORT_COST
    ),
    "report-history": Reader(
        _file(_head, "history.csv"), _report, _REPORTED, changed_csv, _REPORT_COST
    ),
    "report-curve": Reader(
        _file(_curve, "curve.json"), _report, _REPORTED, changed_json, _REPORT_COST
    ),
    "report-curve-config": Reader(
        _file(_curve, "config.json"), _report, _REPORTED, changed_json, _REPORT_COST
    ),
}
