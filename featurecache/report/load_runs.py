"""Runs of a report: their names in it, and what its sections read of them."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featurecache.errors import RunError, UsageError
from featurecache.evaluation.comparison import ScoredImages, scored_images
from featurecache.heads.learning_curve import KIND as CURVE_KIND
from featurecache.heads.learning_curve import LearningCurve
from featurecache.metrics.cohort import Cohort
from featurecache.metrics.metrics import CurveMetrics, Metrics
from featurecache.provenance.provenance import Source
from featurecache.runs.folder import read_config, read_curve, run_kind
from featurecache.runs.run import Model, Run, displayed_names, load_run

_NUMERIC_COLUMNS = ("epoch", "train_loss", "val_loss", "validation")

RunLike = Run | LearningCurve | str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class ReportRun:
    """A run of a report.

    Attributes:
        name: unique name in the report.
        kind: kind of run.
        config: contents of ``config.json``.
        folder: run folder; None for a run that was not saved.
        warnings: what a reader of its metrics has to know.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    folder: Path | None
    warnings: Sequence[str]

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.config.get("cache", self.config).get("dataset", "?"))

    @property
    def model(self) -> str:
        """Name of the encoder."""
        return str(self.config.get("cache", self.config).get("model", "?"))

    @property
    def excluded(self) -> dict[str, int]:
        """Number of images of the data set that are not part of the run, by reason."""
        return dict(self.config.get("cache", self.config).get("excluded", {}))


@dataclass(frozen=True, eq=False)
class ScoredRun(ReportRun):
    """A run that scored images.

    Attributes:
        metrics: all metrics.
        cohort: what became of the images of the data set; None for a run without a record of it.
        scored: predictions that the metrics are of.
        history: one entry per epoch or candidate; empty where nothing was trained.
        load_model: reads the trained model; None for a run that trained nothing.
    """

    metrics: Metrics
    cohort: Cohort | None
    scored: ScoredImages
    history: Sequence[Mapping[str, Any]]
    load_model: Callable[[], Model] | None


@dataclass(frozen=True, eq=False)
class CurveRun(ReportRun):
    """A learning curve.

    Attributes:
        curve: scores by head and number of training images.
    """

    curve: CurveMetrics


def load_runs(
    runs: Sequence[RunLike], names: Mapping[str, str] | None = None
) -> list[ScoredRun | CurveRun]:
    """Load the runs of a report.

    Args:
        runs: runs, learning curves, or their folders.
        names: what to call runs, by their name or folder.

    Raises:
        RunError: a run is missing, damaged, or of a kind without metrics.
        UsageError: there are no runs, one is given twice, or ``names`` names another.
    """
    if not runs:
        raise UsageError("give at least one run")
    paths = [_path(run) for run in runs]
    identities = [
        path.resolve() if path else id(run) for path, run in zip(paths, runs, strict=True)
    ]
    if len(set(identities)) < len(runs):
        raise UsageError("a run is given twice: give each once")
    displayed = displayed_names([_name(run) for run in runs], paths, names)
    return [_load_run(run, name) for run, name in zip(runs, displayed, strict=True)]


def source_of_run(config: Mapping[str, Any]) -> Source | None:
    """Return how the data set of a run was loaded; None if it was made in Python."""
    if "cache" not in config:
        source: Source | None = config.get("arguments", {}).get("data")
        return source
    cache = config["cache"]
    source = cache.get("joined", [cache])[0].get("extraction", {}).get("data")
    return source


def _name(run: RunLike) -> str:
    if isinstance(run, LearningCurve):
        return run.default_name
    return run.name if isinstance(run, Run) else Path(run).resolve().name


def _path(run: RunLike) -> Path | None:
    """Return the folder of a run; None for a run in memory."""
    if isinstance(run, LearningCurve):
        return None
    return run.path if isinstance(run, Run) else Path(run)


def _load_run(run: RunLike, name: str) -> ScoredRun | CurveRun:
    if isinstance(run, LearningCurve):
        return CurveRun(name, CURVE_KIND, run.config, None, run.warnings, run.metrics)
    if not isinstance(run, Run):
        folder = Path(run)
        if run_kind(folder) == CURVE_KIND:
            curve, config = read_curve(folder), read_config(folder, CURVE_KIND)
            return CurveRun(name, CURVE_KIND, config, folder, curve.warnings, curve)
        run = load_run(folder)
        _check_history(run, folder / "history.csv")
    return ScoredRun(
        name=name,
        kind=run.kind,
        config=run.config,
        folder=run.path,
        warnings=run.warnings,
        metrics=run.metrics,
        cohort=Cohort(**run.config["cohort"]) if "cohort" in run.config else None,
        scored=replace(scored_images(run), name=name),
        history=run.history,
        load_model=run.load_model,
    )


def _check_history(run: Run, path: Path) -> None:
    try:
        for line in run.history:
            for column in set(line) & set(_NUMERIC_COLUMNS):
                float(line[column])
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): make the run again") from error
