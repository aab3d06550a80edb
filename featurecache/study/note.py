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
    marks = len(runs) > 1
    averages = {COLUMNS[name][0] for name in made.metrics}
    labels, supported = runs[0].macro_labels, runs[0].supported_labels
    enough = f"at least {MIN_PATIENTS} patients with a positive and {MIN_PATIENTS} with a negative"
    unmarked = " and therefore no marks" if marks else ""
    not_compared = f" A value without {MARK} there has not been compared." if marks else ""
    if marks:
        sentences += [
            f"The best value of a column is in bold. {MARK} marks values that differ from it: the "
            f"95 % interval of the paired difference{' of the first seeds' if seeds else ''} "
            "excludes 0. These intervals are not corrected for the number of rows, nor for having "
            "chosen the best one on the same images."
        ]
    if averages != {"micro"} and not supported:
        sentences += [
            f"Averages over labels have no intervals{unmarked}: no label has {enough} image."
            f"{not_compared}"
        ]
    elif "supported" in averages:
        sentences += [
            f"Supported averages are over the {count_noun(len(supported), 'label')} with {enough} "
            "image."
        ]
    if "micro" in averages and n_bootstrap >= MIN_SAMPLES and runs[0].micro.auroc_ci is None:
        sentences += [
            f"Micro averages have no intervals{unmarked}: they need {enough} image.{not_compared}"
        ]
    if marks and "macro" in averages and 0 < len(supported) < len(labels):
        sentences += [
            f"Macro averages have no marks, because {len(labels) - len(supported)} of their "
            f"{len(labels)} labels have too few patients for an interval of a difference."
            f"{not_compared}"
        ]
    return sentences
