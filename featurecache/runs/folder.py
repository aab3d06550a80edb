"""Run folders on disk: create, write and read each file of one.

config.json        everything needed to repeat the run
metrics.json       metrics
predictions.csv    id, patient, study, split, sha256, and for each label truth and probability
head.safetensors   of a head: its weights, with its input standardization and its text
history.csv        of a trained head: one line per epoch or candidate
provenance.json    of a trained model: the images that it was trained on
curve.json         of a learning curve, in place of metrics and predictions
encoder/           of a fine-tuning: the encoder as a Hugging Face folder
"""

import csv
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

from featurecache.errors import RunError
from featurecache.io import json as strict_json
from featurecache.io.atomic import cut_name, longest_name, new_folder, require_absent
from featurecache.io.csv import read_rows, write_rows
from featurecache.io.system_errors import raise_if_inaccessible
from featurecache.metrics.metrics import CurveMetrics, Metrics
from featurecache.runs.schema import ConfigDocument, CurveConfigDocument

_Model = TypeVar("_Model", Metrics, CurveMetrics)

FORMAT = "featurecache-run"
VERSION = 1


def free_folder(parent: Path, name: str) -> Path:
    """Return ``parent/name``, or the first of ``name-2``, ``name-3``, ... that does not exist.

    A name that is too long is cut.
    """
    name = cut_name(name, longest_name(parent) - len("-12345"))
    numbered = (parent / f"{name}-{number}" for number in count(2))
    return next(path for path in chain([parent / name], numbered) if not path.exists())


@contextmanager
def new_run(target: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on a clean exit it becomes ``target``.

    Raises:
        UsageError: ``target`` exists already, or its name is too long.
        OSError: The disk is full or not writable.
    """
    require_absent(target, argument="path")
    try:
        with new_folder(target) as folder:
            yield folder
    except FileExistsError:
        require_absent(target, argument="path")  # another process was faster
        raise


def write_config(folder: Path, kind: str, settings: Mapping[str, Any]) -> None:
    """Write ``config.json``: the kind of run, its settings and the library versions."""
    libraries = ("featurecache", "torch", "numpy", "scikit-learn")
    versions = {"python": platform.python_version(), **{name: version(name) for name in libraries}}
    header = {"format": FORMAT, "version": VERSION, "kind": kind}
    write_json(folder / "config.json", {**header, **settings, "versions": versions})


def run_kind(folder: Path) -> str:
    """Return the kind of a run: "head", "zero-shot", "finetune", "external" or "curve".

    Raises:
        RunError: The folder or its config is missing, damaged or of a newer version.
    """
    return str(read_config(folder).get("kind"))


def read_config(
    folder: Path, kind: str | None = None, *, files: Sequence[str] = ()
) -> dict[str, Any]:
    """Read ``config.json`` of a run, and check that its files exist.

    Args:
        folder: The run folder.
        kind: Kind that the run has to be of; None for any.
        files: Names of files that have to exist.

    Raises:
        RunError: The folder or a file is missing, or the config is damaged, of a newer version or
            of another kind.
    """
    if not folder.is_dir():
        raise RunError(f"there is no run folder at {folder}: train a head or check the path")
    path = run_file(folder, "config.json")
    with errors_as_damage(path):
        config = strict_json.read(path)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise RunError(f"{path} is not the config of a featurecache run")
    if config.get("version") != VERSION:
        raise RunError(
            f"{path} has run version {config.get('version')!r}, but this featurecache reads "
            f"{VERSION}: upgrade with 'pip install --upgrade featurecache'"
        )
    with errors_as_damage(path):
        shape = CurveConfigDocument if config.get("kind") == "curve" else ConfigDocument
        strict_json.validate(config, shape)
    if kind not in (None, config.get("kind")):
        raise RunError(f"{folder} is a run of kind {config.get('kind')!r}, expected {kind!r}")
    for name in files:
        run_file(folder, name)
    return config


@contextmanager
def errors_as_damage(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file of a run is read into a ``RunError``.

    Raises:
        OSError: The file cannot be accessed.
    """
    try:
        yield
    except (OSError, ValueError, OverflowError, csv.Error) as error:
        raise_if_inaccessible(error, path)
        raise RunError(f"{path} is damaged ({error}): make the run again") from error


def run_file(folder: Path, name: str) -> Path:
    """Return the path of a file in a run folder, which may be untrusted.

    Raises:
        RunError: The file is missing, or a symbolic link leads out of the folder.
    """
    path = folder / name
    # A pipe or a device, which may give bytes without end or none ever, is not a file either.
    if not path.is_file():
        raise RunError(f"run folder {folder} lacks {name}: restore it, or make the run again")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RunError(
            f"{path} is a link out of the run folder: put the file itself there, or make the run "
            "again"
        )
    return path


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write one JSON document. NaN is refused; undefined is null."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_metrics(folder: Path) -> Metrics:
    """Read ``metrics.json`` of a run.

    Raises:
        RunError: The folder or the file is missing or damaged.
    """
    return _read_model(folder, "metrics.json", Metrics)


def read_curve(folder: Path) -> CurveMetrics:
    """Read ``curve.json`` of a learning curve.

    Raises:
        RunError: The folder or the file is missing or damaged.
    """
    return _read_model(folder, "curve.json", CurveMetrics)


def _read_model(folder: Path, name: str, model: type[_Model]) -> _Model:
    read_config(folder)
    path = run_file(folder, name)
    with errors_as_damage(path):
        return strict_json.validate_model(strict_json.read(path), model)


def read_history(folder: Path) -> list[dict[str, str]]:
    """Read ``history.csv``: one dict per epoch or candidate; empty where a run has no history.

    Raises:
        RunError: The file is damaged.
    """
    if not (folder / "history.csv").exists():
        return []
    path = run_file(folder, "history.csv")
    with errors_as_damage(path), path.open(encoding="utf-8", newline="") as file:
        header, *lines = list(read_rows(file)) or [[]]
        if any(len(line) != len(header) for line in lines):
            raise ValueError("a line has other columns")
    return [dict(zip(header, line, strict=True)) for line in lines]


def write_history(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write ``history.csv``: one line per epoch or candidate, all with the same fields."""
    with (folder / "history.csv").open("w", encoding="utf-8", newline="") as file:
        columns = list(lines[0])
        write_rows(file, [columns, *([line[column] for column in columns] for line in lines)])
