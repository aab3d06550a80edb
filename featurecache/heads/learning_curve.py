"""Learning curves: what heads score, by the number of images they learned from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.evaluation.from_cache import cache_caveats, cache_reference
from featurecache.evaluation.repeated_runs import (
    Trial,
    TrialRanking,
    mean_ranking,
    rank_all,
    ranking_gain,
)
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import predict_on, training_data_from
from featurecache.heads.training import train_heads
from featurecache.heads.types import Training
from featurecache.metrics.bootstrap import none_if_nan
from featurecache.runs.folder import new_run, write_config, write_json
from featurecache.store.cache import Cache

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "curve"
SMALLEST = 16
MOST_SIZES = 8


@dataclass(frozen=True)
class Curve:
    """A grid of heads, sizes and seeds.

    Attributes:
        heads: the first is what the others are compared with.
        sizes: training images, ascending.
        seeds: of the subsets and of the trainings; the heads of one seed share a subset.
        cells: by head, a cell for each size: ``macro`` AUROC and AUPRC, means over the seeds;
            ``ci95``, over patients and seeds; ``seeds``, the AUROC of each; ``labels``, how many
            could be learned from that few images with every seed; ``gain`` over the first head,
            paired by patient and seed (None for the first). None where undefined.
    """

    heads: tuple[str, ...]
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    cells: dict[str, list[dict[str, Any]]]
    n: int
    n_patients: int
    warnings: tuple[str, ...]


def default_sizes(most: int) -> tuple[int, ...]:
    """From 16 to all, eight sizes at the most, each as many times the one before as the others."""
    if most <= SMALLEST:
        return (most,)
    number = min(MOST_SIZES, 1 + max(1, int(np.log2(most / SMALLEST))))
    return tuple(np.unique(np.geomspace(SMALLEST, most, number).round().astype(int)).tolist())


def learning_curve(
    cache: Cache,
    configs: Sequence[HeadConfig],
    sizes: Sequence[int] | None = None,
    *,
    seeds: int = 5,
    n_bootstrap: int = 1000,
    on_head: Callable[[], None] | None = None,
) -> Curve:
    """Train every head on every size with every seed, side by side, and measure all on test.

    Args:
        cache: embeddings, labels, splits and, for heads that use it, text.
        configs: one for each head; ``train_size`` and ``seed`` are set for them.
        sizes: numbers of training images; None for ``default_sizes``.
        seeds: how many, from the first config's on.
        n_bootstrap: number of bootstrap samples over patients.
        on_head: called for each head that is trained.

    Raises:
        CacheError: the cache has no labels, or no text and a head needs it.
        UsageError: a size is more than there is, or twice the same head.
    """
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: must be at least 1")
    names = tuple(config.head for config in configs)
    if not names or len(set(names)) < len(names):
        raise UsageError("give one or more heads, each once")
    train = len(cache.rows("train"))
    chosen = tuple(sorted(set(sizes or default_sizes(train))))
    for size in chosen:
        if not 2 <= size <= train:
            raise UsageError(f"size {size}: there are {train} training images, and 2 is the least")
    numbers = tuple(range(configs[0].seed, configs[0].seed + seeds))
    grid = [
        replace(config, train_size=size, seed=seed)
        for config in configs
        for size in chosen
        for seed in numbers
    ]
    data = {config.head: training_data_from(cache, config) for config in configs}
    trained = train_heads([Training(data[one.head], one) for one in grid], on_head=on_head)
    trials = (predict_on(cache, head, data[head.config.head]) for head in trained)
    found = {name: [[next(trials) for _ in numbers] for _ in chosen] for name in names}
    _, scored = found[names[0]][0][0].data.scored
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for place in range(len(chosen)):
        learned = np.logical_and.reduce(
            [one.data.learned for name in names for one in found[name][place]]
        )
        if not learned.any():
            for name in names:
                cells[name].append(_NOTHING)
            continue
        same = [_only(one, learned) for name in names for one in found[name][place]]
        ranked = iter(rank_all(same, scored, n_bootstrap=n_bootstrap))
        of_head = {name: [next(ranked) for _ in numbers] for name in names}
        for name in names:
            first = None if name == names[0] else of_head[names[0]]
            cells[name].append({**_cell(of_head[name], first), "labels": int(learned.sum())})
    patients = cache.patients[scored]
    return Curve(
        names,
        chosen,
        numbers,
        cells,
        len(scored),
        len(set(patients.tolist())),
        tuple(cache_caveats(cache)),
    )


def _only(one: Trial, learned: NDArray[np.bool_]) -> Trial:
    return Trial(replace(one.data, learned=learned), one.score)


def _cell(rankings: Sequence[TrialRanking], first: Sequence[TrialRanking] | None) -> dict[str, Any]:
    summary = mean_ranking(rankings)
    gain = None
    if first is not None:
        gain = ranking_gain(list(zip(rankings, first, strict=True))).macro.to_json()
    return {
        "macro": summary.macro.to_json(),
        "ci95": summary.ci95.macro.to_json(),
        "seeds": [none_if_nan(one.averages["macro"]["auroc"]) for one in rankings],
        "gain": gain,
    }


_UNDEFINED = {"auroc": None, "auprc": None}
_NOTHING: dict[str, Any] = {
    "macro": _UNDEFINED,
    "ci95": _UNDEFINED,
    "seeds": [],
    "gain": None,
    "labels": 0,
}
"""Of a size at which no label can be learned."""


def auroc_gain(cell: dict[str, Any]) -> dict[str, Any]:
    """``difference`` and ``ci95`` of a cell's gain in AUROC; None where there is none."""
    nothing = {"difference": None, "ci95": None}
    gain: dict[str, Any] = nothing if cell["gain"] is None else cell["gain"]["auroc"]
    return gain


def save_curve(target: Path, cache: Cache, curve: Curve) -> None:
    """Write a run folder with the figures (``curve.json``) and the plot (``curve.png``).

    Raises:
        UsageError: something is at ``target`` already.
        OSError: the disk is full or not writable.
    """
    with new_run(target) as folder:
        write_config(
            folder,
            KIND,
            {
                "heads": list(curve.heads),
                "sizes": list(curve.sizes),
                "seeds": list(curve.seeds),
                "labels": list(cache.labels.names),
                "cache": cache_reference(cache),
            },
        )
        write_json(
            folder / "curve.json",
            {
                "n": curve.n,
                "n_patients": curve.n_patients,
                "sizes": list(curve.sizes),
                "cells": curve.cells,
                "warnings": list(curve.warnings),
            },
        )
        draw_curve(curve, title=f"{cache.header.model} on {cache.header.dataset}").savefig(
            folder / "curve.png", dpi=150
        )


def draw_curve(curve: Curve, *, title: str) -> "Figure":
    """The curves with bands of their 95 % intervals, and below them the gains over the first."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    several = len(curve.heads) > 1
    figure = Figure(figsize=(7, 7 if several else 4.5), layout="constrained")
    axes = figure.subplots(2 if several else 1, 1, sharex=True, squeeze=False)[:, 0]
    for number, name in enumerate(curve.heads):
        cells = curve.cells[name]
        _band(
            axes[0],
            curve.sizes,
            f"C{number}",
            name,
            [cell["macro"]["auroc"] for cell in cells],
            [cell["ci95"]["auroc"] for cell in cells],
        )
        if number > 0:
            gains = [auroc_gain(cell) for cell in cells]
            _band(
                axes[1],
                curve.sizes,
                f"C{number}",
                name,
                [gain["difference"] for gain in gains],
                [gain["ci95"] for gain in gains],
            )
    axes[0].set(title=title, ylabel="test AUROC, macro", xscale="log")
    axes[0].legend(loc="lower right")
    if several:
        axes[1].axhline(0, color="0.4", linewidth=1)
        axes[1].set(ylabel=f"gain over {curve.heads[0]}")
    axes[-1].set(xlabel="training images")
    axes[-1].set_xticks(curve.sizes, [str(size) for size in curve.sizes])
    axes[-1].xaxis.set_minor_formatter(NullFormatter())
    return figure


def _band(
    axes: Any,
    sizes: Sequence[int],
    colour: str,
    name: str,
    values: Sequence[float | None],
    bounds: Sequence[Sequence[float] | None],
) -> None:
    nan = float("nan")
    axes.plot(
        sizes,
        [nan if value is None else value for value in values],
        color=colour,
        label=name,
        marker="o",
        markersize=3,
    )
    low, high = zip(*((nan, nan) if bound is None else bound for bound in bounds), strict=True)
    axes.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
