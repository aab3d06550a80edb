"""The runs of a report, as their folders hold them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurecache.errors import RunError, UsageError
from featurecache.evaluation.comparison import ScoredImages, scored_images
from featurecache.runs.folder import read_config, read_curve, read_history, run_kind
from featurecache.runs.run import load_run

SCORED_KINDS = ("head", "zero-shot", "finetune", "external")
CURVE = "curve"
_NUMBERS = ("epoch", "train_loss", "val_loss", "validation")


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder, read.

    Attributes:
        folder: where it is.
        name: what the report calls it: the folder's name, or the path where two share a name.
        kind: what made it.
        config: of ``config.json``.
    """

    folder: Path
    name: str
    kind: str
    config: Mapping[str, Any]

    @property
    def dataset(self) -> str:
        """The data set that it was made on."""
        return str(self.config.get("cache", self.config).get("dataset", "?"))

    @property
    def model(self) -> str:
        """The encoder behind it."""
        return str(self.config.get("cache", self.config).get("model", "?"))


@dataclass(frozen=True, eq=False)
class ScoredRun(Run):
    """A run with figures of images.

    Attributes:
        metrics: of ``metrics.json``.
        scored: what it predicted for the images that the figures are of.
        history: the lines of ``history.csv``, none where there are none.
    """

    metrics: Mapping[str, Any]
    scored: ScoredImages
    history: Sequence[Mapping[str, str]]


@dataclass(frozen=True, eq=False)
class CurveRun(Run):
    """A learning curve: figures by head and number of training images, as ``curve.json`` has them.

    Attributes:
        figures: of ``curve.json``.
    """

    figures: Mapping[str, Any]


def read_runs(folders: Sequence[Path]) -> list[ScoredRun | CurveRun]:
    """Read the runs that a report is of.

    Raises:
        RunError: a run is missing, damaged, or of a kind that has no figures.
        UsageError: none is given, or one twice.
    """
    if not folders:
        raise UsageError("give at least one run folder")
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise UsageError("a run is given twice: give each once")
    names = [place.name for place in places]
    return [
        _read_run(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def dataset_of(folder: Path) -> str:
    """The data set that a run was made on.

    Raises:
        RunError: the run is missing or damaged.
    """
    kind = run_kind(folder)
    return Run(folder, folder.name, kind, read_config(folder, kind)).dataset


def _read_run(folder: Path, name: str) -> ScoredRun | CurveRun:
    kind = run_kind(folder)
    config = read_config(folder, kind)
    if kind == CURVE:
        return CurveRun(folder, name, kind, config, read_curve(folder))
    if kind not in SCORED_KINDS:
        raise RunError(
            f"{folder} is a run of kind {kind!r}: a report is made of {', '.join(SCORED_KINDS)} "
            f"and {CURVE} runs"
        )
    run = load_run(folder)
    metrics, history = run.metrics.to_json(), read_history(folder)
    try:
        for line in history:
            for column in set(line) & set(_NUMBERS):
                float(line[column])
    except ValueError as error:
        raise RunError(
            f"{folder / 'history.csv'} is damaged ({error}): make the run again"
        ) from error
    return ScoredRun(folder, name, kind, config, metrics, scored_images(run), history)
