"""What was trained on one data set, measured on the cache of another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UnknownNameError, UsageError
from featurecache.runs import new_run, write_config, write_json, write_predictions
from featurecache.scoring.cached import cache_reference, cache_warnings
from featurecache.scoring.controls import random_features, untrained_controls
from featurecache.scoring.evaluation import evaluate_at
from featurecache.scoring.rows import ScoredRows
from featurecache.store.reader import Cache

Rows = Literal["test", "all"]


def match_labels(
    trained: Sequence[str], present: Sequence[str], label_map: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Which label of a data set each trained label is measured against.

    Args:
        trained: labels that predictions are of.
        present: labels of the data set.
        label_map: trained label to present label; None for those that have the same name.

    Raises:
        UsageError: the map names a label that is not there or one twice, or, without a map, no
            name is in both; the message lists the labels of both sides.
    """
    both = f"trained: {', '.join(trained)}; in the data set: {', '.join(present)}"
    if label_map is None:
        same = {name: name for name in trained if name in present}
        if not same:
            raise UsageError(f"no label has the same name on both sides, give --map ({both})")
        return same
    for source, target in label_map.items():
        if source not in trained:
            raise UsageError(f"--map {source}={target}: {source!r} was not trained ({both})")
        if target not in present:
            raise UsageError(f"--map {source}={target}: no label {target!r} is known ({both})")
    if len(set(label_map.values())) < len(label_map):
        raise UsageError(f"--map gives one label of the data set twice ({both})")
    return dict(label_map)


def rows_to_score(cache: Cache, rows: str) -> NDArray[np.intp]:
    """The rows of a cache in its test split, or all.

    Raises:
        UnknownNameError: neither ``test`` nor ``all``.
        UsageError: there are no test rows.
    """
    if rows not in get_args(Rows):
        raise UnknownNameError("choice of rows", rows, get_args(Rows))
    if rows == "all":
        return np.arange(len(cache.images))
    if len(cache.rows("test")) == 0:
        raise UsageError(f"{cache.path} has no test images: give --rows all to score every image")
    return cache.rows("test")


@dataclass(frozen=True)
class Transfer:
    """Predictions of a data set that nothing was learned from, and what was measured of them.

    Attributes:
        label_map: trained label to the label that it is measured against, C of them.
        rows: those that were scored.
        probability: (N, C) of every row.
        metrics: the document of ``metrics.json``.
    """

    label_map: Mapping[str, str]
    rows: NDArray[np.intp]
    probability: NDArray[np.float64]
    metrics: dict[str, Any]


def measure_transfer(
    cache: Cache,
    classify: Callable[[NDArray[np.floating]], NDArray[np.float64]],
    *,
    labels: Sequence[str],
    thresholds: Sequence[float],
    label_map: Mapping[str, str],
    rows: str = "test",
    draws: int = 1000,
) -> Transfer:
    """Measure what was learned elsewhere.

    Thresholds are those that were chosen where it was trained: nothing is chosen on this data set.
    The view-only control learns from this data set's training images; with all rows scored there
    are none to learn from, and it is null.

    Args:
        cache: the data set.
        classify: embeddings (N, D) to probabilities (N, L) of the L trained labels.
        labels: these labels.
        thresholds: (L,) as chosen in training.
        label_map: as ``match_labels`` gives it; figures go by the data set's names.
        rows: ``test`` or ``all``.
        draws: bootstrap draws over patients.

    Raises:
        UsageError: there is nothing to score.
    """
    sources = [labels.index(source) for source in label_map]
    targets = [cache.labels.names.index(target) for target in label_map.values()]
    scored = rows_to_score(cache, rows)
    nothing = np.empty(0, dtype=np.intp)
    known = ScoredRows(
        truth=cache.labels.values[:, targets],
        label_names=tuple(label_map.values()),
        patient=cache.patients,
        view=cache.views,
        train=cache.rows("train") if rows == "test" else nothing,
        val=nothing,
        test=scored,
        learned=np.ones(len(targets), dtype=np.bool_),
    )
    probability = classify(cache.embedding)[:, sources]
    random = classify(random_features((len(scored), cache.dim), seed=0))[:, sources]
    document = evaluate_at(
        known,
        probability,
        scored=scored,
        split=rows,
        thresholds=np.array([thresholds[source] for source in sources], dtype=np.float64),
        draws=draws,
    )
    document["controls"] |= untrained_controls(known, probability, random, draws=draws)
    for figures in document["per_label"].values():
        figures["threshold_source"] = "training"
    document["label_map"] = dict(label_map)
    document["warnings"] = cache_warnings(cache)
    return Transfer(dict(label_map), scored, probability, document)


def save_transfer(target: Path, cache: Cache, transfer: Transfer, *, run: Path) -> None:
    """Write a run folder of a transfer, whole or not at all.

    Args:
        target: the folder to make.
        cache: the data set.
        transfer: of ``measure_transfer``.
        run: what was measured.

    Raises:
        UsageError: something is at ``target`` already.
        OSError: the disk is full or not writable.
    """
    scored, names = transfer.rows, list(transfer.label_map.values())
    columns = np.array([cache.labels.names.index(name) for name in names])
    settings = {
        "run": str(run),
        "labels": names,
        "label_map": dict(transfer.label_map),
        "rows": transfer.metrics["split"],
        "cache": cache_reference(cache),
    }
    with new_run(target) as folder:
        write_config(folder, "transfer", settings)
        write_json(folder / "metrics.json", transfer.metrics)
        write_predictions(
            folder,
            ids=cache.ids[scored],
            patients=cache.patients[scored],
            splits=cache.splits[scored],
            label_names=names,
            truth=cache.labels.values[np.ix_(scored, columns)],
            probability=transfer.probability[scored],
        )
