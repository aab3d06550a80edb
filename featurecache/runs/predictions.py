"""The predictions of a run, and the one way to write and read them as ``predictions.csv``."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.io.csv import read_rows, write_rows
from featurecache.metrics.conformal import ANSWERS, ConformalLimits
from featurecache.metrics.familiarity import COLUMNS
from featurecache.metrics.platt_scaling import PlattScaling, log_odds
from featurecache.runs.folder import errors_as_damage, run_file

if TYPE_CHECKING:
    import pandas as pd

FILE = "predictions.csv"

_IMAGE_COLUMNS = ("id", "patient", "study", "split", "sha256")
_LABEL_COLUMNS = ("truth", "probability", "threshold", "positive", "calibrated", "answer")
"""Columns of each label; see `DecisionRules.columns`."""

MAX_NAMES_BYTES = 2**31
"""Limit on the ids in memory, where each takes as much as the longest."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Labels and predicted probabilities of N images, or studies, and C labels.

    Attributes:
        ids: Image ids, or names of studies, shape (N,).
        patients: Patient of each image, shape (N,).
        studies: Study of each image, shape (N,); empty where unknown.
        splits: Split of each image, shape (N,).
        sha256: SHA-256 of the image files, in hex, shape (N,); empty where unknown and for studies.
        label_names: The C label names.
        truth: Labels of shape (N, C): 1, 0, or -1 for unknown.
        probability: Probabilities of shape (N, C) in [0, 1]; NaN for a label that was not learned.
    """

    ids: NDArray[np.str_]
    patients: NDArray[np.str_]
    studies: NDArray[np.str_]
    splits: NDArray[np.str_]
    sha256: NDArray[np.str_]
    label_names: tuple[str, ...]
    truth: NDArray[np.int8]
    probability: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check shapes and values.

        Raises:
            ValueError: Shapes do not match, or a value is out of range.
        """
        shape = (len(self.ids), len(self.label_names))
        if not (
            self.truth.shape == self.probability.shape == shape
            and len(self.patients) == len(self.studies) == len(self.ids)
            and len(self.splits) == len(self.sha256) == len(self.ids)
        ):
            raise ValueError(
                f"{len(self.ids)} ids, {len(self.patients)} patients, {len(self.studies)} studies, "
                f"{len(self.splits)} splits, {len(self.sha256)} hashes and "
                f"{len(self.label_names)} labels do not match truth {self.truth.shape} and "
                f"probability {self.probability.shape}"
            )
        # Written so that NaN, for which every comparison is false, is refused too.
        in_range = (self.probability >= 0) & (self.probability <= 1)
        if not np.isin(self.truth, (-1, 0, 1)).all() or not (in_range | ~self.learned).all():
            raise ValueError("truth must be -1, 0 or 1 and probabilities must lie in [0, 1]")

    @property
    def learned(self) -> NDArray[np.bool_]:
        """Whether each label was learned, and so has probabilities, shape (C,)."""
        learned: NDArray[np.bool_] = np.logical_or.reduce(~np.isnan(self.probability))
        return learned

    def take(self, rows: NDArray[np.intp]) -> "Predictions":
        """Return these rows, in this order."""
        return Predictions(
            ids=self.ids[rows],
            patients=self.patients[rows],
            studies=self.studies[rows],
            splits=self.splits[rows],
            sha256=self.sha256[rows],
            label_names=self.label_names,
            truth=self.truth[rows],
            probability=self.probability[rows],
        )

    def to_pandas(self, rules: "DecisionRules") -> "pd.DataFrame":
        """Return a DataFrame with the columns of ``predictions.csv``.

        These are ``id``, ``patient``, ``study``, ``split``, ``sha256`` and, for each label,
        ``<label> truth`` (NaN for unknown) and those of `DecisionRules.columns`.

        Args:
            rules: What decides the labels.
        """
        import pandas as pd

        columns: dict[str, Any] = {
            "id": self.ids,
            "patient": self.patients,
            "study": self.studies,
            "split": self.splits,
            "sha256": self.sha256,
        }
        truth = np.where(self.truth < 0, np.nan, self.truth.astype(np.float64))
        derived = rules.columns(self.label_names, self.probability)
        for c, (name, of_label) in enumerate(zip(self.label_names, derived, strict=True)):
            columns[f"{name} truth"] = truth[:, c]
            columns |= of_label
        return pd.DataFrame(columns)


@dataclass(frozen=True, eq=False)
class DecisionRules:
    """What turns the probabilities of C labels into decisions.

    Attributes:
        thresholds: Threshold of each label, (C,); NaN for a label that was not learned.
        platt: Platt scaling of the labels; None without any.
        limits: Limits of their answers; None without any.
    """

    thresholds: NDArray[np.float64]
    platt: PlattScaling | None = None
    limits: ConformalLimits | None = None

    def calibrated(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities after Platt scaling, (N, C); NaN for a label without one."""
        if self.platt is None:
            return np.full(probability.shape, np.nan)
        return self.platt(log_odds(probability))

    def answers(self, probability: NDArray[np.float64]) -> NDArray[np.str_]:
        """Return the answers to probabilities, (N, C); "" for a label without answers."""
        if self.limits is None:
            return np.full(probability.shape, "")
        return np.array(ANSWERS)[self.limits(probability)]

    def columns(
        self, label_names: Sequence[str], probability: NDArray[np.float64]
    ) -> Iterator[dict[str, Any]]:
        """Yield the columns of each label in a table of predictions of N images.

        These are ``<label> probability``, ``<label> threshold``, ``<label> positive`` (whether the
        probability, not the calibrated one, reaches the threshold), ``<label> calibrated`` (the
        probability after Platt scaling; NaN for a label without one) and ``<label> answer``
        ("present", "absent" or "unsure"; missing for a label without answers). All are missing for
        a label that was not learned.

        Args:
            label_names: The C label names.
            probability: Probabilities, (N, C); NaN where there is none.
        """
        import pandas as pd

        calibrated, answers = self.calibrated(probability), self.answers(probability)
        for c, label in enumerate(label_names):
            positive = pd.Series(probability[:, c] >= self.thresholds[c], dtype="boolean")
            yield {
                f"{label} probability": probability[:, c],
                f"{label} threshold": np.full(len(probability), self.thresholds[c]),
                f"{label} positive": positive.mask(np.isnan(probability[:, c])),
                f"{label} calibrated": calibrated[:, c],
                f"{label} answer": [answer or None for answer in answers[:, c].tolist()],
            }


def prediction_document(
    row: "pd.Series[Any]", label_names: Sequence[str], rules: DecisionRules
) -> dict[str, Any]:
    """Return what is predicted for one image, or study, as a JSON value.

    Args:
        row: Row of a table that ``TrainedModel.predict`` returned.
        label_names: The C label names.
        rules: What decided the labels.
    """
    import pandas as pd

    readable = row["error"] is None

    def numbers(column: str) -> dict[str, float | None]:
        return {label: _none_if_nan(row[f"{label} {column}"]) for label in label_names}

    thresholds = dict(zip(label_names, map(_none_if_nan, rules.thresholds), strict=True))
    decisions = {label: row[f"{label} positive"] for label in label_names}
    percentiles = {name.removeprefix("familiarity "): row.get(name, nan) for name in COLUMNS}
    return {
        "probabilities": numbers("probability") if readable else None,
        "thresholds": thresholds,
        "positive": {
            label: None if pd.isna(value) else bool(value) for label, value in decisions.items()
        }
        if readable
        else None,
        "calibrated": numbers("calibrated"),
        "uncalibrated": reasons_by_label(label_names, rules.platt),
        "sd": numbers("sd") if f"{label_names[0]} sd" in row else None,
        "answers": {label: row[f"{label} answer"] for label in label_names},
        "unanswered": reasons_by_label(label_names, rules.limits),
        "familiarity": None if any(map(isnan, percentiles.values())) else percentiles,
        "not_learned": [label for label, value in thresholds.items() if value is None],
    }


def reasons_by_label(
    label_names: Sequence[str], rule: PlattScaling | ConformalLimits | None
) -> dict[str, str]:
    """Return why labels have no calibrated probability, or no answer."""
    if rule is None:
        return {}
    reasons = zip(label_names, rule.reasons, strict=True)
    return {label: reason for label, reason in reasons if reason is not None}


def _none_if_nan(value: float) -> float | None:
    return None if isnan(value) else float(value)


def write_predictions(folder: Path, predictions: Predictions, rules: DecisionRules) -> None:
    """Write ``predictions.csv``, with the columns of ``Predictions.to_pandas``.

    What is missing there is an empty cell. Calibrated probabilities have six digits, since they
    follow from the others.
    """
    header = list(_IMAGE_COLUMNS)
    texts = (
        *(predictions.ids, predictions.patients, predictions.studies),
        *(predictions.splits, predictions.sha256),
    )
    # As Python's objects, which are written several times as fast as numpy's.
    columns: list[Iterable[object]] = [column.tolist() for column in texts]
    truth = np.where(predictions.truth < 0, "", predictions.truth.astype(np.str_))
    calibrated = rules.calibrated(predictions.probability)
    answers = rules.answers(predictions.probability)
    for c, name in enumerate(predictions.label_names):
        header += [f"{name} {column}" for column in _LABEL_COLUMNS]
        probability = predictions.probability[:, c]
        columns.append(truth[:, c].tolist())
        if not predictions.learned[c]:
            columns += [repeat("", len(probability)) for _ in _LABEL_COLUMNS[1:]]
            continue
        columns += [
            probability.tolist(),
            repeat(float(rules.thresholds[c]), len(probability)),
            (probability >= rules.thresholds[c]).astype(np.int8).tolist(),
            ["" if p != p else f"{p:.6g}" for p in calibrated[:, c].tolist()],
            answers[:, c].tolist(),
        ]
    with (folder / FILE).open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [header])
        write_rows(file, zip(*columns, strict=True))


def read_predictions(folder: Path) -> Predictions:
    """Read ``predictions.csv`` of a run folder.

    Thresholds, calibrated probabilities and answers follow from the metrics; here they are only
    checked.

    Raises:
        RunError: The file is missing or damaged.
    """
    path = run_file(folder, FILE)
    with errors_as_damage(path), path.open(encoding="utf-8", newline="") as file:
        return _parse(read_rows(file))


def _parse(lines: Iterator[list[str]]) -> Predictions:
    header = next(lines, [])
    start, width = len(_IMAGE_COLUMNS), len(_LABEL_COLUMNS)
    names = tuple(name.removesuffix(" truth") for name in header[start::width])
    expected = [f"{name} {column}" for name in names for column in _LABEL_COLUMNS]
    if header != [*_IMAGE_COLUMNS, *expected] or len({*names}) < max(1, len(names)):
        raise ValueError("its columns are not those of predictions")
    texts: tuple[list[str], ...] = tuple([] for _ in _IMAGE_COLUMNS)
    truth, positive, answer = array("b"), array("b"), array("b")
    probability, threshold, calibrated = array("d"), array("d"), array("d")
    for line in lines:
        if len(line) != len(header):
            raise ValueError(f"line {len(texts[0]) + 2} has {len(line)} columns, not {len(header)}")
        for column, text in zip(texts, line, strict=False):
            column.append(text)
        truth.extend(int(value or -1) for value in line[start::width])
        probability.extend(float(value or "nan") for value in line[start + 1 :: width])
        threshold.extend(float(value or "nan") for value in line[start + 2 :: width])
        positive.extend(int(value or -1) for value in line[start + 3 :: width])
        calibrated.extend(float(value or "nan") for value in line[start + 4 :: width])
        answer.extend(ANSWERS.index(value) for value in line[start + 5 :: width])
    ids, patients, studies, splits, sha256 = map(_as_array, texts)
    shape = (len(ids), len(names))
    predictions = Predictions(
        ids=ids,
        patients=patients,
        studies=studies,
        splits=splits,
        sha256=sha256,
        label_names=names,
        truth=np.array(truth, dtype=np.int8).reshape(shape),
        probability=np.array(probability, dtype=np.float64).reshape(shape),
    )
    _check_derived(
        predictions,
        *(np.array(v).reshape(shape) for v in (threshold, positive, calibrated, answer)),
    )
    return predictions


def _check_derived(
    predictions: Predictions,
    threshold: NDArray[np.float64],
    positive: NDArray[np.int8],
    calibrated: NDArray[np.float64],
    answer: NDArray[np.int8],
) -> None:
    """Check the columns that follow from the probabilities, all of shape (N, C).

    Raises:
        ValueError: They contradict the probabilities, or each other.
    """
    learned = predictions.learned
    missing = np.isnan(threshold) & (positive == -1) & np.isnan(calibrated) & (answer == 0)
    if not (missing | learned).all():
        raise ValueError("a label has no probabilities, but thresholds or decisions")
    in_range = (threshold >= 0) & (threshold <= 1)
    if not (in_range & (threshold == threshold[0]) | ~learned).all():
        raise ValueError("a label has several thresholds, or one outside [0, 1]")
    if not ((positive == (predictions.probability >= threshold)) | ~learned).all():
        raise ValueError("a label is positive below its threshold, or negative at or above it")
    undefined = np.isnan(calibrated)
    in_range = (calibrated >= 0) & (calibrated <= 1)
    if not (in_range | undefined.all(axis=0)).all():
        raise ValueError("calibrated probabilities must lie in [0, 1], or be missing for a label")
    order = np.argsort(predictions.probability, axis=0)
    ascending = np.diff(np.take_along_axis(answer, order, axis=0), axis=0) >= 0
    if not (((answer > 0) == (answer[0] > 0)).all() and ascending[:, learned].all()):
        raise ValueError("answers must go from absent through unsure to present, or be missing")


def _as_array(texts: list[str]) -> NDArray[np.str_]:
    if not texts:
        raise ValueError("it holds no predictions")
    if max(map(len, texts)) * len(texts) * 4 > MAX_NAMES_BYTES:
        raise ValueError(f"{max(texts, key=len)[:40]!r}... is too long a name")
    return np.array(texts, dtype=np.str_)
