"""Run folders: what a training or a scoring leaves behind, whole or not at all.

config.json        everything needed to repeat it
metrics.json       figures
predictions.csv    id, patient, split, and per label truth and probability
head.safetensors   of a head: its weights, with its input scaling and its text
history.csv        of a head: one line an epoch
curve.json         of a learning curve, in place of metrics and predictions
provenance.json    of what was trained: the images that it has learned from
"""

import csv
import json
import platform
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import RunError
from featurecache.io import json as strict_json
from featurecache.io.atomic import new_folder, require_absent
from featurecache.io.csv import read_rows, write_rows
from featurecache.runs.schema import (
    ConfigDocument,
    CurveConfigDocument,
    CurveDocument,
    MetricsDocument,
)

FORMAT = "featurecache-run"
VERSION = 1

MAX_NAMES_BYTES = 2**31
"""Of all ids of predictions in memory, where each takes as much as the longest."""


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or the first of ``name-2``, ``name-3`` ... that is not there yet."""
    candidate, number = parent / name, 1
    while candidate.exists():
        number += 1
        candidate = parent / f"{name}-{number}"
    return candidate


@contextmanager
def new_run(target: Path) -> Iterator[Path]:
    """Give a folder to fill, which becomes ``target`` on a clean exit.

    Raises:
        UsageError: something is at ``target`` already.
        OSError: the disk is full or not writable.
    """
    require_absent(target)
    try:
        with new_folder(target) as folder:
            yield folder
    except FileExistsError:
        require_absent(target)  # another process was faster
        raise


def write_config(folder: Path, kind: str, settings: Mapping[str, Any]) -> None:
    """Write ``config.json``: the kind of run, its settings, and the versions it was made with."""
    versions = {name: version(name) for name in ("featurecache", "torch", "numpy", "scikit-learn")}
    head = {"format": FORMAT, "version": VERSION, "kind": kind}
    versions = {"python": platform.python_version(), **versions}
    write_json(folder / "config.json", {**head, **settings, "versions": versions})


def run_kind(folder: Path) -> str:
    """What made a run: "head", "zero-shot", "finetune", "transfer" or "curve".

    Raises:
        RunError: the folder or its config is missing, damaged or newer.
    """
    return str(_read_any(folder).get("kind"))


def read_config(folder: Path, kind: str, *, files: Sequence[str] = ()) -> dict[str, Any]:
    """Read ``config.json`` of a run of this kind, and check that its files are there.

    Raises:
        RunError: the folder or a file is missing, or the config is damaged, newer or of another
            kind.
    """
    config = _read_any(folder)
    if config.get("kind") != kind:
        raise RunError(f"{folder} is a run of kind {config.get('kind')!r}, expected {kind!r}")
    for name in files:
        run_file(folder, name)
    return config


def run_file(folder: Path, name: str) -> Path:
    """A file of a run folder, which may come from a stranger.

    Raises:
        RunError: it is missing, or lies outside the folder, behind a symbolic link.
    """
    path = folder / name
    # A pipe or a device, which would give bytes without end or never any, is no file either.
    if not path.is_file():
        raise RunError(f"run folder {folder} lacks {name}: restore it, or make the run again")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RunError(
            f"{path} is a link out of the run folder: put the file itself there, or make the run "
            "again"
        )
    return path


def _read_any(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise RunError(f"no run folder at {folder}: make one with 'featurecache train-head'")
    path = run_file(folder, "config.json")
    try:
        config = strict_json.read(path)
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise RunError(f"{path} is not the config of a featurecache run")
        if config.get("version") != VERSION:
            raise RunError(
                f"{path} has run version {config.get('version')!r}, this featurecache reads "
                f"{VERSION}: upgrade with 'pip install --upgrade featurecache'"
            )
        shape = CurveConfigDocument if config.get("kind") == "curve" else ConfigDocument
        return dict(strict_json.validate(config, shape))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write one JSON document; NaN is refused, undefined is null."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_predictions(
    folder: Path,
    *,
    ids: NDArray[np.str_],
    patients: NDArray[np.str_],
    splits: NDArray[np.str_],
    label_names: Sequence[str],
    truth: NDArray[np.int8],
    probability: NDArray[np.float64],
) -> None:
    """Write ``predictions.csv``; an unknown truth is left empty.

    All arrays have one row per image, ``truth`` and ``probability`` one column per label.

    Raises:
        ValueError: the shapes do not fit each other, or a probability is not a finite number.
    """
    shape = (len(ids), len(label_names))
    if not (truth.shape == probability.shape == shape and len(patients) == len(splits) == len(ids)):
        raise ValueError(
            f"{len(ids)} ids, {len(patients)} patients, {len(splits)} splits and "
            f"{len(label_names)} labels against truth {truth.shape}, probability "
            f"{probability.shape}"
        )
    if not np.isfinite(probability).all():
        raise ValueError("a probability is NaN or infinite")
    header = ["id", "patient", "split"]
    for name in label_names:
        header += [f"{name} truth", f"{name} probability"]

    def line(row: int) -> list[object]:
        cells: list[object] = [ids[row], patients[row], splits[row]]
        for value, p in zip(truth[row], probability[row], strict=True):
            cells += [int(value) if value >= 0 else "", float(p)]
        return cells

    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [header])
        write_rows(file, map(line, range(len(ids))))


@dataclass(frozen=True, eq=False)
class Predictions:
    """``predictions.csv``: N images, C labels; ``truth`` is -1 where it is unknown."""

    ids: NDArray[np.str_]
    patients: NDArray[np.str_]
    splits: NDArray[np.str_]
    label_names: tuple[str, ...]
    truth: NDArray[np.int8]
    probability: NDArray[np.float64]


def read_predictions(folder: Path) -> Predictions:
    """Read what ``write_predictions`` wrote.

    Raises:
        RunError: the file is missing or damaged.
    """
    path = run_file(folder, "predictions.csv")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _parse_predictions(read_rows(file))
    except (OSError, ValueError, OverflowError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error}): make the run again") from error


def _parse_predictions(lines: Iterator[list[str]]) -> Predictions:
    header = next(lines, [])
    names = tuple(name.removesuffix(" truth") for name in header[3::2])
    expected = [column for name in names for column in (f"{name} truth", f"{name} probability")]
    if header != ["id", "patient", "split", *expected] or len({*names}) < max(1, len(names)):
        raise ValueError("its columns are not those of predictions")
    texts: tuple[list[str], ...] = ([], [], [])
    truth, probability = array("b"), array("d")
    for line in lines:
        if len(line) != len(header):
            raise ValueError(f"line {len(texts[0]) + 2} has {len(line)} columns, not {len(header)}")
        for column, text in zip(texts, line, strict=False):
            column.append(text)
        truth.extend(int(value or -1) for value in line[3::2])
        probability.extend(map(float, line[4::2]))
    ids, patients, splits = map(_as_array, texts)
    shape = (len(ids), len(names))
    stated = np.array(truth, dtype=np.int8).reshape(shape)
    probabilities = np.array(probability, dtype=np.float64).reshape(shape)
    # Written so that NaN, of which every comparison is false, is refused too.
    shares = (probabilities >= 0) & (probabilities <= 1)
    if not np.isin(stated, (-1, 0, 1)).all() or not shares.all():
        raise ValueError("a truth or a probability is none")
    return Predictions(ids, patients, splits, names, stated, probabilities)


def _as_array(texts: list[str]) -> NDArray[np.str_]:
    if not texts:
        raise ValueError("it holds no predictions")
    if max(map(len, texts)) * len(texts) * 4 > MAX_NAMES_BYTES:
        raise ValueError(f"{max(texts, key=len)[:40]!r}... is too long a name")
    return np.array(texts, dtype=np.str_)


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read ``metrics.json`` of a run.

    Raises:
        RunError: the folder or the file is missing or damaged.
    """
    document = _read_document(folder, "metrics.json", MetricsDocument)
    labels = set(document["per_label"])
    calibration = document.get("calibration")
    for key, of_labels in (
        ("ci95", document["ci95"]["per_label"]),
        ("calibration", labels if calibration is None else calibration["per_label"]),
    ):
        if labels != set(of_labels):
            raise RunError(
                f"{folder / 'metrics.json'} is damaged ({key} is of other labels than the "
                "figures): make the run again"
            )
    return document


def read_curve(folder: Path) -> dict[str, Any]:
    """Read ``curve.json``, the figures of a run of kind "curve".

    Raises:
        RunError: the folder or the file is missing or damaged.
    """
    document = _read_document(folder, "curve.json", CurveDocument)
    for head, cells in document["cells"].items():
        if len(cells) != len(document["sizes"]):
            raise RunError(
                f"{folder / 'curve.json'} is damaged ({head} has {len(cells)} sizes): make the run "
                "again"
            )
    return document


def _read_document(folder: Path, name: str, shape: type) -> dict[str, Any]:
    _read_any(folder)
    path = run_file(folder, name)
    try:
        document: dict[str, Any] = strict_json.validate(strict_json.read(path), shape)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}): make the run again") from error
    return document


def read_history(folder: Path) -> list[dict[str, str]]:
    """Read ``history.csv``, a line for each epoch or candidate; none where a run has no history.

    Raises:
        RunError: the file is damaged.
    """
    if not (folder / "history.csv").exists():
        return []
    path = run_file(folder, "history.csv")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = list(read_rows(file)) or [[]]
        if any(len(line) != len(header) for line in lines):
            raise ValueError("a line has other columns")
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error}): make the run again") from error
    return [dict(zip(header, line, strict=True)) for line in lines]


def write_history(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write ``history.csv``: a line for each epoch or candidate, all with the same fields."""
    with (folder / "history.csv").open("w", encoding="utf-8", newline="") as file:
        columns = list(lines[0])
        write_rows(file, [columns, *([line[column] for column in columns] for line in lines)])
