"""Learning curves: how well heads score by the number of training images."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.evaluation.from_cache import cache_caveats, cache_reference, run_name
from featurecache.evaluation.repeated_runs import (
    Trial,
    TrialRanking,
    mean_ranking,
    rank_all,
    ranking_gain,
)
from featurecache.heads.config import Fusion, HeadConfig
from featurecache.heads.fit import fit_heads
from featurecache.heads.train import predict_on, training_data_from
from featurecache.heads.types import TrainingJob
from featurecache.metrics.bootstrap import none_if_nan
from featurecache.metrics.metrics import CurveMetrics, CurvePoint, format_with_interval
from featurecache.prompts import PromptSet
from featurecache.runs.folder import free_folder, new_run, write_config, write_json
from featurecache.runs.run import RUNS_FOLDER
from featurecache.store.open import CacheLike, open_cache

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KIND = "curve"
SMALLEST_SIZE = 16
MAX_SIZES = 8

Interval = tuple[float, float] | None


@dataclass(frozen=True, eq=False, repr=False)
class LearningCurve:
    """Test scores of heads trained on increasing numbers of images.

    Example:
        >>> import featurecache as fc
        >>> curve = fc.learning_curve("cache/phantom/tiny.h5", ["linear"], sizes=[32, 64], seeds=1)
        >>> curve.to_pandas()["size"].tolist()
        [32, 64]

    Attributes:
        heads: Names of the heads; the others are compared with the first.
        seeds: Seeds of the subsets and trainings. Heads of one seed share a subset.
        metrics: Scores by head and size, with the sizes and the number of test images.
        config: What was trained on, as ``config.json`` holds it.
        default_name: Name of the folder that ``save`` makes when it is given none.
    """

    heads: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: CurveMetrics
    config: Mapping[str, Any]
    default_name: str

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of training images, ascending."""
        return tuple(self.metrics.sizes)

    @property
    def points(self) -> Mapping[str, Sequence[CurvePoint]]:
        """The scores by head, one per size."""
        return self.metrics.cells

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the scores has to know."""
        return tuple(self.metrics.warnings)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row per head and size.

        Columns are ``head``, ``size``, ``labels`` (how many could be learned), ``auroc``,
        ``auroc_low`` and ``auroc_high`` (its 95 % interval), the same for ``auprc``, and
        ``auroc_gain``, ``auroc_gain_low`` and ``auroc_gain_high`` over the first head. Undefined
        values are NaN.
        """
        import pandas as pd

        rows = []
        for head, size, point in self._iterate():
            row: dict[str, Any] = {"head": head, "size": size, "labels": point.labels}
            for name, value, interval in (
                ("auroc", point.macro.auroc, point.ci95.auroc),
                ("auprc", point.macro.auprc, point.ci95.auprc),
                ("auroc_gain", point.auroc_gain.difference, point.auroc_gain.ci95),
            ):
                low, high = interval or (None, None)
                row |= {name: value, f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
        numbers = [name for name in rows[0] if name not in ("head", "size", "labels")]
        return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))

    def plot(self) -> "Figure":
        """Draw macro AUROC with 95 % bands by size, and below it the gains over the first head."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullFormatter

        has_gains = len(self.heads) > 1
        figure = Figure(figsize=(7, 7 if has_gains else 4.5), layout="constrained")
        axes = figure.subplots(2 if has_gains else 1, 1, sharex=True, squeeze=False)[:, 0]
        for index, head in enumerate(self.heads):
            points = self.points[head]
            scores = [(point.macro.auroc, point.ci95.auroc) for point in points]
            _draw_band(axes[0], self.sizes, scores, color=f"C{index}", label=head)
            if index > 0:
                gains = [(point.auroc_gain.difference, point.auroc_gain.ci95) for point in points]
                _draw_band(axes[1], self.sizes, gains, color=f"C{index}", label=head)
        cache = self.config["cache"]
        axes[0].set(
            title=f"{cache['model']} on {cache['dataset']}",
            ylabel="test AUROC, macro",
            xscale="log",
        )
        axes[0].legend(loc="lower right")
        if has_gains:
            axes[1].axhline(0, color="0.4", linewidth=1)
            axes[1].set(ylabel=f"gain over {self.heads[0]}")
        axes[-1].set(xlabel="training images")
        axes[-1].set_xticks(self.sizes, [str(size) for size in self.sizes])
        axes[-1].xaxis.set_minor_formatter(NullFormatter())
        return figure

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write a run folder with the scores (``curve.json``) and the plot (``curve.png``).

        Args:
            path: Folder to create; None for ``runs/<default_name>``, with a number appended if
                that exists.

        Returns:
            The folder.

        Raises:
            UsageError: ``path`` exists already.
            OSError: The disk is full or not writable.
        """
        target = free_folder(RUNS_FOLDER, self.default_name) if path is None else Path(path)
        with new_run(target) as folder:
            write_config(folder, KIND, self.config)
            write_json(folder / "curve.json", self.metrics.to_json())
            self.plot().savefig(folder / "curve.png", dpi=150)
        return target

    def _iterate(self) -> Iterator[tuple[str, int, CurvePoint]]:
        for head in self.heads:
            for size, point in zip(self.sizes, self.points[head], strict=True):
                yield head, size, point

    def __repr__(self) -> str:
        """Return the macro AUROC of each head and size."""
        lines = [
            f"  {head} on {size}: {format_with_interval(point.macro.auroc, point.ci95.auroc)}"
            for head, size, point in self._iterate()
        ]
        return "\n".join([f"LearningCurve of macro AUROC, {self._test_set()}", *lines])

    def _repr_html_(self) -> str:
        """Return a table of macro AUROC for notebooks, a row per size and a column per head."""
        import pandas as pd

        scores = {
            head: [format_with_interval(point.macro.auroc, point.ci95.auroc) for point in points]
            for head, points in self.points.items()
        }
        table = pd.DataFrame(scores, index=self.sizes).to_html()
        return f"<p>Macro AUROC by training images, {self._test_set()}</p>{table}"

    def _test_set(self) -> str:
        return (
            f"{self.metrics.n:,} test images of {self.metrics.n_patients:,} patients, mean of "
            f"{len(self.seeds)} seeds"
        )


def learning_curve(
    cache: CacheLike,
    heads: str | Sequence[str | HeadConfig],
    *,
    sizes: Sequence[int] | None = None,
    seeds: int = 5,
    seed: int = 0,
    prompts: str | PromptSet | None = None,
    fusion: Fusion = "early",
    n_bootstrap: int = 1000,
    on_head: Callable[[], None] | None = None,
) -> LearningCurve:
    """Train heads on increasing numbers of images, with several seeds, and score them on test.

    Heads of one seed learn from the same images, so that their differences are paired.

    Example:
        >>> import featurecache as fc
        >>> cache = "cache/phantom/tiny.h5"
        >>> curve = fc.learning_curve(cache, ["prototype", "knn"], sizes=[32, 64], seeds=2)
        >>> curve.points["knn"][1].macro.auroc > curve.points["knn"][0].macro.auroc
        True

    Args:
        cache: A cache with labels and splits, and with text embeddings for heads that use text; or
            its path.
        heads: Names of heads, each once. The others are compared with the first. A ``HeadConfig``
            in place of a name sets everything but ``train_size`` and ``seed``.
        sizes: Numbers of training images; by default up to eight, evenly spaced on a logarithmic
            scale from 16 to all.
        seeds: Number of subsets and trainings for each size.
        seed: The first seed.
        prompts: Name of the prompt set in the cache. Default: the only one.
        fusion: How to combine several encoders, see ``HeadConfig``.
        n_bootstrap: Number of bootstrap samples over patients.
        on_head: Called after every training.

    Raises:
        CacheError: The cache has no labels, or no text embeddings and a head needs them.
        UsageError: A size is larger than the training split, or a head is given twice.
        UnknownNameError: There is no such head or prompt set.
    """
    cache = open_cache(cache)
    prompts = cache.prompt_set_name(prompts)
    if seeds < 1:
        raise UsageError(f"`seeds` is {seeds}: must be at least 1")
    configs = [
        head if isinstance(head, HeadConfig) else HeadConfig(head, prompts=prompts, fusion=fusion)
        for head in ([heads] if isinstance(heads, str) else heads)
    ]
    names = tuple(config.head for config in configs)
    if not names or len(set(names)) < len(names):
        raise UsageError("`heads` must name one or more heads, each once")
    n_train = len(cache.rows("train"))
    sizes = sorted(set(sizes or default_sizes(n_train)))
    if sizes[0] < 2 or sizes[-1] > n_train:
        raise UsageError(
            f"`sizes` are {', '.join(map(str, sizes))}: give numbers from 2 to {n_train}, the "
            "number of training images"
        )
    all_seeds = tuple(range(seed, seed + seeds))
    data = {config.head: training_data_from(cache, config) for config in configs}
    grid = [
        replace(config, train_size=size, seed=one_seed)
        for config in configs
        for size in sizes
        for one_seed in all_seeds
    ]
    jobs = [TrainingJob(data[config.head], config) for config in grid]
    trials = (
        predict_on(cache, head, data[head.config.head]) for head in fit_heads(jobs, on_head=on_head)
    )
    by_size = {name: [[next(trials) for _ in all_seeds] for _ in sizes] for name in names}
    _, rows = by_size[names[0]][0][0].data.scored
    points: dict[str, list[CurvePoint]] = {name: [] for name in names}
    for index in range(len(sizes)):
        trials_of = {name: by_size[name][index] for name in names}
        for name, point in _score_size(trials_of, rows, n_bootstrap=n_bootstrap).items():
            points[name].append(point)
    return LearningCurve(
        heads=names,
        seeds=all_seeds,
        metrics=CurveMetrics(
            n=len(rows),
            n_patients=len(np.unique(cache.patients[rows])),
            sizes=sizes,
            cells=points,
            warnings=cache_caveats(cache),
        ),
        config={
            "heads": list(names),
            "sizes": list(sizes),
            "seeds": list(all_seeds),
            "settings": {config.head: asdict(config) for config in configs},
            "n_bootstrap": n_bootstrap,
            "labels": list(cache.labels.names),
            "cache": cache_reference(cache),
        },
        default_name=run_name(cache, KIND),
    )


def default_sizes(n_train: int) -> tuple[int, ...]:
    """Return up to eight sizes, evenly spaced on a logarithmic scale, from 16 to all images."""
    if n_train <= SMALLEST_SIZE:
        return (n_train,)
    number = min(MAX_SIZES, 1 + max(1, int(np.log2(n_train / SMALLEST_SIZE))))
    return tuple(
        np.unique(np.geomspace(SMALLEST_SIZE, n_train, number).round().astype(int)).tolist()
    )


def _score_size(
    trials: Mapping[str, Sequence[Trial]], rows: NDArray[np.intp], *, n_bootstrap: int
) -> dict[str, CurvePoint]:
    """Return the scores of all heads at one size, on the labels that every training could learn.

    Args:
        trials: By head, a trial per seed.
        rows: The rows to score.
        n_bootstrap: Number of bootstrap samples over patients.
    """
    learned = np.logical_and.reduce(
        [trial.data.learned for of_head in trials.values() for trial in of_head]
    )
    if not learned.any():
        return dict.fromkeys(trials, CurvePoint.undefined())
    comparable = [
        replace(trial, data=replace(trial.data, learned=learned))
        for of_head in trials.values()
        for trial in of_head
    ]
    ranked = iter(rank_all(comparable, rows, n_bootstrap=n_bootstrap))
    rankings = {name: [next(ranked) for _ in of_head] for name, of_head in trials.items()}
    reference = next(iter(rankings))
    return {
        name: _make_point(
            of_head, None if name == reference else rankings[reference], int(learned.sum())
        )
        for name, of_head in rankings.items()
    }


def _make_point(
    rankings: Sequence[TrialRanking], reference: Sequence[TrialRanking] | None, n_labels: int
) -> CurvePoint:
    summary = mean_ranking(rankings)
    gain = None if reference is None else ranking_gain(list(zip(rankings, reference, strict=True)))
    return CurvePoint(
        macro=summary.macro,
        ci95=summary.ci95.macro,
        seeds=[none_if_nan(ranking.averages["macro"]["auroc"][0]) for ranking in rankings],
        gain=None if gain is None else gain.macro,
        labels=n_labels,
    )


def _draw_band(
    axes: "Axes",
    sizes: Sequence[int],
    scores: Sequence[tuple[float | None, Interval]],
    *,
    color: str,
    label: str,
) -> None:
    nan = float("nan")
    values = [nan if value is None else value for value, _ in scores]
    low, high = zip(*(interval or (nan, nan) for _, interval in scores), strict=True)
    axes.plot(sizes, values, color=color, label=label, marker="o", markersize=3)
    axes.fill_between(sizes, low, high, color=color, alpha=0.15, linewidth=0)
