"""The sentences below a table of runs: what its numbers, brackets and marks mean."""

from collections.abc import Sequence

from featurecache.evaluation.table import COLUMNS, MARK, MetricsTable
from featurecache.metrics.label_support import MIN_PATIENTS
from featurecache.metrics.metrics import Metrics
from featurecache.metrics.sampled_metrics import MIN_SAMPLES
from featurecache.wording import count_noun


def explain_table(made: MetricsTable, runs: Sequence[Metrics], *, n_bootstrap: int) -> list[str]:
    """Return sentences about the numbers, brackets and marks that a table has.

    Args:
        made: The table, with marks.
        runs: The metrics of its rows, of the same images.
        n_bootstrap: Number of bootstrap samples that its intervals are from.
    """
    sentences = []
    seeds = [metrics.headline.n_seeds for metrics in runs if metrics.headline.n_seeds > 1]
    if seeds:
        numbers = sorted({min(seeds), max(seeds)})
        sentences += [
            f"Values with ± are means over {' to '.join(map(str, numbers))} seeds with their "
            "standard deviation."
        ]
    if made.frame[[f"{name} low" for name in made.metrics]].notna().to_numpy().any():
        over = "patients, and over seeds where there are several" if seeds else "patients"
        sentences += [f"Brackets are 95 % intervals over {over}."]
    if n_bootstrap < MIN_SAMPLES:
        sentences += [f"With {count_noun(n_bootstrap, 'bootstrap sample')} there are no intervals."]
    enough = f"at least {MIN_PATIENTS} patients with a positive and {MIN_PATIENTS} with a negative"
    averages = {COLUMNS[name][0] for name in made.metrics}
    macro, supported = (
        [len(metrics.headline.labels[average]) for metrics in runs]
        for average in ("macro", "supported")
    )
    marks = len(runs) > 1 and len(made.ranked) > 0
    unmarked = " and therefore no marks" if marks else ""
    not_compared = f" A value without {MARK} there has not been compared." if marks else ""
    if marks:
        sentences += [
            f"The best value of a column is in bold. {MARK} marks values that differ from it: the "
            f"95 % interval of the paired difference{' of the first seeds' if seeds else ''} "
            "excludes 0. These intervals are not corrected for the number of rows, nor for having "
            "chosen the best one on the same images."
        ]
    if len(runs) > 1:
        sentences += _different_labels(made, runs)
    if averages != {"micro"} and not any(supported):
        sentences += [
            f"Averages over labels have no intervals{unmarked}: no label has {enough} image."
            f"{not_compared}"
        ]
    elif "supported" in averages:
        sentences += [f"Supported averages are over the {_count(supported)} with {enough} image."]
    no_micro = all(metrics.headline.micro.auroc_ci is None for metrics in runs)
    if "micro" in averages and n_bootstrap >= MIN_SAMPLES and no_micro:
        sentences += [
            f"Micro averages have no intervals{unmarked}: they need {enough} image.{not_compared}"
        ]
    is_ranked = any(COLUMNS[name][0] == "macro" for name in made.ranked)
    if marks and is_ranked and 0 < supported[0] < macro[0]:
        sentences += [
            f"Macro averages have no marks, because {macro[0] - supported[0]} of "
            f"their {macro[0]} labels have too few patients for an interval of a "
            f"difference.{not_compared}"
        ]
    return sentences


def _different_labels(made: MetricsTable, runs: Sequence[Metrics]) -> list[str]:
    """Return sentences about the columns that are not of the same labels in all rows."""
    with_values = [name for name in made.metrics if made.frame[name].notna().any()]
    unranked = [name for name in with_values if name not in made.ranked]
    if not unranked:
        return []
    rows: dict[str, list[str]] = {}
    for name, metrics in zip(made.frame["run"], runs, strict=True):
        learned = metrics.headline.labels["micro"]
        missing = [label for label in metrics.per_label if label not in learned]
        rows.setdefault(", ".join(missing), []).append(name)
    return [
        f"No value is in bold or has a mark in {', '.join(unranked)}, where rows average over "
        "different labels.",
        *(f"{labels}: not learned by {'; '.join(of)}." for labels, of in rows.items() if labels),
    ]


def _count(numbers: Sequence[int]) -> str:
    """Return a number of labels, or the smallest and largest."""
    low, high = min(numbers), max(numbers)
    return count_noun(high, "label") if low == high else f"{low} to {high} labels"
