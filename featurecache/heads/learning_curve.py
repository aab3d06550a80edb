"""Learning curves: how well heads score by the number of training images."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.evaluation.from_cache import (
    cache_caveats,
    cache_reference,
    learning_caveats,
    run_name,
    scored_rows,
)
from featurecache.evaluation.repeated_runs import (
    RANKING_METRICS,
    Trial,
    rank_all,
    ranking_gain,
    supported_labels,
)
from featurecache.heads.config import Fusion, HeadConfig
from featurecache.heads.registry import head_spec
from featurecache.metrics.jackknife import mean_interval
from featurecache.metrics.metrics import (
    CurveMetrics,
    CurvePoint,
    RankingIntervals,
    RankingScores,
    format_with_interval,
)
from featurecache.prompts import PromptSet
from featurecache.runs.folder import free_folder, new_run, write_config, write_json
from featurecache.runs.run import RUNS_FOLDER
from featurecache.store.open import CacheLike, open_cache
from featurecache.wording import count_noun

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
        metrics: Scores by head and size, with the labels behind them, the sizes and the number of
            test images.
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

        Columns are ``head``, ``size``, ``labels`` (how many could be learned; all scores are over
        ``metrics.labels``), ``auroc``, ``auroc_low`` and ``auroc_high`` (its 95 % interval), the
        same for ``auprc``, and ``auroc_gain``, ``auroc_gain_low`` and ``auroc_gain_high`` over the
        first head. Undefined values are NaN.
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
            ylabel=f"test AUROC, {self._labels()}",
            xscale="log",
            # A logarithmic axis finds no limits where all scores are undefined.
            xlim=(self.sizes[0] / 1.1, self.sizes[-1] * 1.1),
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
        title = f"LearningCurve of AUROC, {self._labels()}, {self._test_set()}"
        return "\n".join([title, *lines])

    def _repr_html_(self) -> str:
        """Return a table of macro AUROC for notebooks, a row per size and a column per head."""
        import pandas as pd

        scores = {
            head: [format_with_interval(point.macro.auroc, point.ci95.auroc) for point in points]
            for head, points in self.points.items()
        }
        table = pd.DataFrame(scores, index=self.sizes).to_html()
        scored = f"AUROC by training images: {self._labels()}, {self._test_set()}"
        return f"<p>{scored}</p>{table}"

    def _labels(self) -> str:
        labels = self.config["labels"]
        if len(labels) == 1:
            return str(labels[0])
        return f"macro over {len(self.metrics.labels)} of {len(labels)} labels"

    def _test_set(self) -> str:
        seeds = f", mean of {len(self.seeds)} seeds" if len(self.seeds) > 1 else ""
        images = count_noun(self.metrics.n, f"test {self.config['units']['level']}")
        return f"{images} of {count_noun(self.metrics.n_patients, 'patient')}{seeds}"


def learning_curve(
    cache: CacheLike,
    heads: str | Sequence[str | HeadConfig],
    *,
    sizes: Sequence[int] | None = None,
    seeds: int = 5,
    seed: int = 0,
    prompts: str | PromptSet | None = None,
    fusion: Fusion = "early",
    on_head: Callable[[], None] | None = None,
) -> LearningCurve:
    """Train heads on increasing numbers of images, with several seeds, and score them on test.

    Heads of one seed learn from the same images, so that their differences are paired. Every score
    is over the same labels, ``metrics.labels``: those with enough test patients that every training
    could learn. The smallest sizes are left undefined, with a warning, as long as fewer than half
    of the labels that the largest size can learn would remain. Intervals are over patients and
    seeds: a jackknife over patients plus the variance between seeds.

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
        on_head: Called after every training.

    Raises:
        CacheError: The cache has no text embeddings and a head needs them.
        UsageError: The cache has no labels, a size is larger than the training split, or a head is
            given twice.
        UnknownNameError: There is no such head or prompt set.
    """
    cache = open_cache(cache)
    cache.require_labels()
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
    n_train = len(cache.inputs.learning_rows("train"))
    sizes = sorted(set(default_sizes(n_train) if sizes is None else sizes))
    if not sizes:
        raise UsageError("`sizes` is empty: give one or more, or leave it out for the default")
    if sizes[0] < 2 or sizes[-1] > n_train:
        raise UsageError(
            f"`sizes` are {', '.join(map(str, sizes))}: give numbers from 2 to {n_train}, the "
            "number of training images"
        )
    for name in names:  # before torch is imported
        head_spec(name)
    from featurecache.heads.fit import fit_heads
    from featurecache.heads.train import predict_on, training_data_from
    from featurecache.heads.types import TrainingJob

    # Before the training, because they may refuse the test images.
    caveats = cache_caveats(cache, scored_rows(cache)) + learning_caveats(cache)
    caveats += cache.copies.warnings()
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
    learned = np.stack(
        [
            supported_labels([trial for name in names for trial in by_size[name][index]], rows)
            for index in range(len(sizes))
        ]
    )
    labels, n_undefined = common_labels(learned)
    points: dict[str, list[CurvePoint]] = {name: [] for name in names}
    for index, n_labels in enumerate(learned.sum(axis=1).tolist()):
        trials_of = {name: by_size[name][index] for name in names}
        scored = (
            dict.fromkeys(names, CurvePoint.undefined(n_labels))
            if index < n_undefined
            else _score_size(trials_of, rows, labels, n_labels)
        )
        for name, point in scored.items():
            points[name].append(point)
    label_names = np.array(cache.labels.names)
    return LearningCurve(
        heads=names,
        seeds=all_seeds,
        metrics=CurveMetrics(
            n=len(rows),
            n_patients=len(np.unique(cache.patients[rows])),
            sizes=sizes,
            labels=label_names[labels].tolist(),
            cells=points,
            warnings=[
                *caveats,
                *_label_warnings(label_names, labels, sizes[:n_undefined]),
            ],
        ),
        config={
            "heads": list(names),
            "sizes": list(sizes),
            "seeds": list(all_seeds),
            "settings": {config.head: asdict(config) for config in configs},
            "labels": list(cache.labels.names),
            "label_policy": cache.labels.applied_policy,
            "units": cache.units.to_config(),
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


def common_labels(learned: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """Choose the labels that a curve is over.

    Args:
        learned: (S, C) whether all trainings of each size, ascending, could learn each label.

    Returns:
        (C,) the labels learned at each size from some size on; and the number of smaller sizes,
        which are left out because fewer than half of the labels learned at the largest would remain
        with them. Without any label at the largest, no label and S.
    """
    for n_left_out in range(len(learned)):
        labels = np.logical_and.reduce(learned[n_left_out:])
        if labels.any() and 2 * labels.sum() >= learned[-1].sum():
            return labels, n_left_out
    return np.zeros(learned.shape[1], dtype=np.bool_), len(learned)


def _label_warnings(
    names: NDArray[np.str_], labels: NDArray[np.bool_], undefined: Sequence[int]
) -> list[str]:
    """Say which labels and sizes the curve leaves out."""
    if not labels.any():
        return [
            "no label has enough test patients and can be learned with every seed: the curve is "
            "undefined"
        ]
    warnings = []
    if undefined:
        sizes = ", ".join(map(str, undefined))
        warnings.append(f"too few labels could be learned with every seed from {sizes} images")
    if not labels.all():
        warnings.append(
            f"the curve is over {labels.sum()} of {len(labels)} labels; too few test patients, or "
            f"not learned with every seed at each size: {', '.join(names[~labels])}"
        )
    return warnings


def _score_size(
    trials: Mapping[str, Sequence[Trial]],
    rows: NDArray[np.intp],
    labels: NDArray[np.bool_],
    n_learned: int,
) -> dict[str, CurvePoint]:
    """Return the scores of all heads at one size.

    Args:
        trials: By head, a trial per seed.
        rows: The rows to score.
        labels: (C,) the labels to average over.
        n_learned: Number of labels that could be learned at this size.
    """
    ranked = rank_all([trial for of_head in trials.values() for trial in of_head], rows, labels)
    iterator = iter(ranked.trials)
    rankings = {name: [next(iterator) for _ in of_head] for name, of_head in trials.items()}
    reference = next(iter(rankings))
    points = {}
    for name, of_head in rankings.items():
        pairs = list(zip(of_head, rankings[reference], strict=True))
        values = {
            metric: np.array([ranking.averages["macro"][metric] for ranking in of_head])
            for metric in RANKING_METRICS
        }
        points[name] = CurvePoint(
            macro=RankingScores(
                **{metric: float(of_seeds[:, 0].mean()) for metric, of_seeds in values.items()}
            ),
            ci95=RankingIntervals(
                **{
                    metric: mean_interval(of_seeds, ranked.dof["macro"], limits=(0, 1))
                    for metric, of_seeds in values.items()
                }
            ),
            seeds=values["auroc"][:, 0].tolist(),
            gain=None if name == reference else ranking_gain(pairs, ranked.dof).macro,
            labels=n_learned,
        )
    return points


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
