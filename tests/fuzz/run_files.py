"""Run folders of heads, fine-tuned encoders and learning curves, as other commands read them."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from typer.testing import CliRunner

from featurecache.cli import main
from featurecache.errors import CheckpointError, RunError, UsageError
from featurecache.evaluation.comparison import scored_images
from featurecache.finetune.io import load_model as load_finetuned
from featurecache.heads.io import load_model
from featurecache.provenance.provenance import read_provenance
from featurecache.report.page import build_page
from featurecache.runs.run import load_run
from tests.faults.bytes import write_example
from tests.fuzz.changes import changed_csv, changed_json, changed_safetensors
from tests.fuzz.readers import Reader

_REPORT_COST = 40
_FINETUNED_COST = 10


def _run_of(*arguments: object) -> Callable[[Path], Path]:
    """Return a function that copies a run, which a command makes from a cache at the first call."""

    @cache
    def made() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="fuzzed-run-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        write_example(folder / "m.h5")
        _run(folder / "run", *arguments, "--cache", folder / "m.h5")
        return folder

    return lambda folder: shutil.copytree(made(), folder, dirs_exist_ok=True) / "run"


def _run(target: Path, *arguments: object) -> Path:
    command = [*map(str, arguments), "--out", str(target)]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return target


_few = ("--n-bootstrap", 20)
_head = _run_of("train-head", "--head", "weighted_sum", "--epochs", 2, *_few)
_curve = _run_of(
    *("learning-curve", "--head", "baseline", "--head", "linear", "--sizes", "16,32", "--seeds", 1),
)


def _finetuned(folder: Path) -> Path:
    data = ("--dataset", "phantom", "--data-root", folder / "data", "--n-images", 60)
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
    return _run(folder / "run", "finetune", *data, *settings)


def _file(make: Callable[[Path], Path], name: str) -> Callable[[Path], Path]:
    return lambda folder: make(folder) / name


def _read_head(file: Path) -> object:
    return load_model(file.parent)


def _read_finetuned(file: Path) -> object:
    return load_finetuned(file.parent)


def _read_scores(file: Path) -> object:
    run = load_run(file.parent)
    return run.metrics, scored_images(run)


def _report(file: Path) -> object:
    return build_page([file.parent]).html.encode()


def _read_provenance(file: Path) -> object:
    return read_provenance(file.parent).to_json()


_CONFIG, _METRICS = _file(_head, "config.json"), _file(_head, "metrics.json")
_REPORTED = (RunError, UsageError)

READERS = {
    "run-config": Reader(_CONFIG, _read_head, (RunError,), changed_json),
    "run-weights": Reader(
        _file(_head, "head.safetensors"), _read_head, (RunError,), changed_safetensors
    ),
    "run-metrics": Reader(_METRICS, _read_scores, (RunError,), changed_json),
    "run-predictions": Reader(
        _file(_head, "predictions.csv"), _read_scores, (RunError,), changed_csv, cost=10
    ),
    "run-provenance": Reader(
        _file(_head, "provenance.json"), _read_provenance, (CheckpointError,), changed_json
    ),
    "finetuned-config": Reader(
        _file(_finetuned, "config.json"),
        _read_finetuned,
        (RunError, CheckpointError),
        changed_json,
        _FINETUNED_COST,
    ),
    "finetuned-weights": Reader(
        _file(_finetuned, "head.safetensors"),
        _read_finetuned,
        (RunError,),
        changed_safetensors,
        _FINETUNED_COST,
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
