"""What was trained on one data set, measured on the cache of another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UnknownNameError, UsageError
from featurecache.evaluation.controls import random_features, untrained_controls
from featurecache.evaluation.evaluate import evaluate_at
from featurecache.evaluation.from_cache import cache_caveats, cache_reference
from featurecache.evaluation.split_data import SplitData
from featurecache.runs.folder import new_run, write_config, write_json, write_predictions
from featurecache.store.cache import Cache

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
            raise UsageError(f"no label has the same name on both sides, give --label-map ({both})")
        return same
    for source, target in label_map.items():
        if source not in trained:
            raise UsageError(f"--label-map {source}={target}: {source!r} was not trained ({both})")
        if target not in present:
            raise UsageError(
                f"--label-map {source}={target}: no label {target!r} is known ({both})"
            )
    if len(set(label_map.values())) < len(label_map):
        raise UsageError(f"--label-map gives one label of the data set twice ({both})")
    return dict(label_map)


def external_rows(cache: Cache, split: str) -> NDArray[np.intp]:
    """The rows of a cache in its test split, or all.

    Raises:
        UnknownNameError: neither ``test`` nor ``all``.
        UsageError: there are no test rows.
    """
    if split not in get_args(Rows):
        raise UnknownNameError("choice of rows", split, get_args(Rows))
    if split == "all":
        return np.arange(len(cache.images))
    if len(cache.rows("test")) == 0:
        raise UsageError(f"{cache.path} has no test images: give --split all to score every image")
    return cache.rows("test")


@dataclass(frozen=True)
class ExternalValidation:
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


def validate_external(
    cache: Cache,
    classify: Callable[[NDArray[np.floating]], NDArray[np.float64]],
    *,
    labels: Sequence[str],
    thresholds: Sequence[float],
    label_map: Mapping[str, str],
    split: str = "test",
    n_bootstrap: int = 1000,
) -> ExternalValidation:
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
        split: ``test`` or ``all``.
        n_bootstrap: number of bootstrap samples over patients.

    Raises:
        UsageError: there is nothing to score.
    """
    sources = [labels.index(source) for source in label_map]
    targets = [cache.labels.names.index(target) for target in label_map.values()]
    scored = external_rows(cache, split)
    nothing = np.empty(0, dtype=np.intp)
    known = SplitData(
        truth=cache.labels.values[:, targets],
        label_names=tuple(label_map.values()),
        patient=cache.patients,
        view=cache.views,
        train=cache.rows("train") if split == "test" else nothing,
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
        split=split,
        thresholds=np.array([thresholds[source] for source in sources], dtype=np.float64),
        n_bootstrap=n_bootstrap,
    )
    document["controls"] |= untrained_controls(known, probability, random, n_bootstrap=n_bootstrap)
    for figures in document["per_label"].values():
        figures["threshold_source"] = "training"
    document["label_map"] = dict(label_map)
    document["warnings"] = cache_caveats(cache)
    return ExternalValidation(dict(label_map), scored, probability, document)


def save_external(target: Path, cache: Cache, transfer: ExternalValidation, *, run: Path) -> None:
    """Write a run folder of a transfer, whole or not at all.

    Args:
        target: the folder to make.
        cache: the data set.
        transfer: of ``validate_external``.
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
        "split": transfer.metrics["split"],
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
