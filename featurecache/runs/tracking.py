"""Log a finished run to tracking tools."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.errors import FeaturecacheError, FeaturecacheWarning
from featurecache.metrics.metrics import DecisionScores, Metrics, RankingScores
from featurecache.tracking.tracker import open_trackers

if TYPE_CHECKING:
    from featurecache.runs.run import Run


def log_run(run: "Run", folder: Path) -> None:
    """Log a trained run to ``run.log`` under the name of its folder.

    The run exists already, so a tool that cannot be reached is a ``FeaturecacheWarning``.

    Args:
        run: The run.
        folder: Where it was saved.
    """
    chosen = {
        name: value
        for name, value in run.config.items()
        if isinstance(value, str | int | float | bool) and name != "best_epoch"
    }
    settings = describe_training(
        run.kind, run.dataset_name, run.model_name, folder, {**chosen, **run.config["settings"]}
    )
    for name in run.log:
        try:
            with open_trackers([name], folder, settings) as trackers:
                trackers.log_history(run.history)
                trackers.log_scores(final_scores(run.metrics, run.config.get("best_epoch")))
        except FeaturecacheError as error:
            warnings.warn(str(error), FeaturecacheWarning, stacklevel=3)


def describe_training(
    kind: str, dataset: str, model: str, folder: Path, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of a training, with what identifies it.

    Args:
        kind: Kind of the run.
        dataset: Name of the data set.
        model: Name of the encoder.
        folder: The run folder.
        settings: All other settings.
    """
    return {"run": str(folder), "kind": kind, "dataset": dataset, "model": model, **settings}


def final_scores(metrics: Metrics, best_epoch: int | None) -> dict[str, float]:
    """Return the headline of metrics by names such as ``test/macro_auroc``.

    The ends of its 95 % interval are ``test/macro_auroc_low`` and ``test/macro_auroc_high``.
    Undefined ones are left out.

    Args:
        metrics: The metrics.
        best_epoch: Epoch of the saved weights; None for a head without epochs.
    """
    headline = metrics.headline
    scores: dict[str, float] = {} if best_epoch is None else {"best_epoch": best_epoch}

    def add(name: str, value: float | None, ends: tuple[float, float] | None) -> None:
        if value is not None:
            scores[f"{metrics.split}/{name}"] = value
        if ends is not None:
            scores[f"{metrics.split}/{name}_low"], scores[f"{metrics.split}/{name}_high"] = ends

    averages: dict[str, RankingScores | DecisionScores | None] = {
        "macro": headline.macro,
        "supported": headline.supported,
        "micro": headline.micro,
    }
    for average, of_average in averages.items():
        if of_average is not None:
            for metric in type(of_average).model_fields:
                value = getattr(of_average, metric)
                add(f"{average}_{metric}", value, of_average.interval(metric))
    add("exact_match", headline.exact_match, headline.exact_match_ci)
    add("hamming_loss", headline.hamming_loss, headline.hamming_loss_ci)
    return scores
