"""List run folders, without reading their predictions."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurecache.errors import RunError
from featurecache.io.atomic import find_finished
from featurecache.runs.folder import read_config, read_metrics


@dataclass(frozen=True)
class RunEntry:
    """One line of a list of runs.

    Attributes:
        path: The run folder.
        kind: Kind of run, such as "head"; None, like all that follows, if it cannot be read.
        method: Its head, scoring or objective.
        dataset: The data set.
        model: The encoder.
        auroc: Macro AUROC, the mean over seeds where there are several; also None if undefined.
        auroc_ci: Its 95 % interval.
        problem: Why the run cannot be read; None if it can.
    """

    path: Path
    kind: str | None = None
    method: str | None = None
    dataset: str | None = None
    model: str | None = None
    auroc: float | None = None
    auroc_ci: tuple[float, float] | None = None
    problem: str | None = None


def list_runs(folder: str | os.PathLike[str] = "runs") -> list[RunEntry]:
    """Return every run below a folder, sorted by path, with unreadable ones.

    Raises:
        RunError: The folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}: train a head, or check the path")
    configs = find_finished(folder, "config.json")
    # A fine-tuned encoder is a folder with a config of its own, within its run.
    return [_describe(path.parent) for path in configs if path.parent.name != "encoder"]


def _describe(folder: Path) -> RunEntry:
    try:
        config = read_config(folder)
        entry: dict[str, Any] = {"kind": config["kind"], **_source(config)}
        if config["kind"] == "curve":
            return RunEntry(folder, **entry)
        macro = read_metrics(folder).headline.macro
    except (RunError, OSError) as error:
        return RunEntry(folder, problem=str(error))
    return RunEntry(folder, **entry, auroc=macro.auroc, auroc_ci=macro.auroc_ci)


def _source(config: dict[str, Any]) -> dict[str, str | None]:
    cache, settings = config.get("cache", config), config.get("settings", {})
    heads = config.get("heads", ())
    method = settings.get("head") or settings.get("objective") or config.get("scoring")
    method = method or ", ".join(map(str, heads)) or config.get("run")
    return {"method": method, "dataset": cache.get("dataset"), "model": cache.get("model")}
