"""Section "Answers and familiarity": when runs are unsure, and how foreign images are to them."""

from collections.abc import Sequence
from typing import Any

from featurecache.metrics.conformal import describe_unanswered
from featurecache.report.load_runs import ScoredRun
from featurecache.report.table import Table, format_interval
from featurecache.wording import UNDEFINED


def answers_section(scored: Sequence[ScoredRun]) -> dict[str, Any] | None:
    """Return tables of answers by run, and one of familiarity; None without any."""
    unanswered = [
        (
            f"{run.name}, by the limits of the training run,"
            if run.metrics.label_map
            else run.name,
            reason,
        )
        for run in scored
        if run.metrics.answers is not None and (reason := describe_unanswered(run.metrics.answers))
    ]
    section = {
        "answers": [table for run in scored if (table := answers_table(run)) is not None],
        "unanswered": unanswered,
        "familiarity": familiarity_table(scored),
    }
    return section if any(section.values()) else None


def answers_table(run: ScoredRun) -> Table | None:
    """Return how often the answers of each label are right; None for a run without answers."""
    answers = run.metrics.answers
    answered = {} if answers is None else answers.per_label
    answered = {name: label for name, label in answered.items() if label.reason is None}
    if answers is None or not answered:
        return None
    of_seed = f", {run.metrics.seed_note}" if run.metrics.seed_note else ""
    return Table(
        f"answers-{run.name}",
        f"Answers of {run.name}{of_seed}, to cover {100 * answers.coverage:g} % of positives and "
        "of negatives, with exact 95 % intervals over patients",
        ["label", "positives covered", "negatives covered", "unsure", "wrong if answered"],
        [
            [
                name,
                format_interval(label.positive.coverage, label.positive.ci95),
                format_interval(label.negative.coverage, label.negative.ci95),
                format_interval(label.unsure, label.ci95.unsure),
                format_interval(label.error, label.ci95.error),
            ]
            for name, label in answered.items()
        ],
    )


def familiarity_table(scored: Sequence[ScoredRun]) -> Table | None:
    """Return how familiar the scored images are to each run; None where nothing is known."""
    rows = [
        [
            run.name,
            f"{familiar.n:,} {run.metrics.split}",
            f"{familiar.n_reference:,}",
            *(
                UNDEFINED if value is None else f"{value:.{digits}f}"
                for value, digits in (
                    (familiar.knn, 0),
                    (familiar.mahalanobis, 0),
                    (None if familiar.foreign is None else 100 * familiar.foreign, 1),
                )
            ),
            familiar.reason or "",
        ]
        for run in scored
        if (familiar := run.metrics.familiarity) is not None
    ]
    if not rows:
        return None
    return Table(
        "familiarity",
        "Median percentile of familiarity of the scored images among one training image of "
        "each patient, by two distances, and the share that is less familiar than 99 % of them by "
        "either",
        [
            *("run", "images", "training patients"),
            *("nearest neighbors", "Mahalanobis", "foreign, %", "note"),
        ],
        rows,
    )
