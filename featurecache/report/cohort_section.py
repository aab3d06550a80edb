"""Section "Images and patients": a flow diagram of exclusions, and what is in each split."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from featurecache.metrics.cohort import OVERALL, SPLIT_NAMES, Cohort, SplitCohort
from featurecache.report import plots
from featurecache.report.load_runs import ScoredRun
from featurecache.report.plot_registry import PlotRegistry
from featurecache.report.plots import FlowStep
from featurecache.report.table import Table
from featurecache.store.records import format_counts
from featurecache.wording import UNDEFINED, count_noun, pluralize


def cohort_section(scored: Sequence[ScoredRun], registry: PlotRegistry) -> list[dict[str, Any]]:
    """Return a flow diagram and a table for each set of images that runs were made from."""
    sections: dict[str, dict[str, Any]] = {}
    for run in scored:
        cohort = run.cohort
        if cohort is None:
            continue
        key = f"{run.dataset} {run.metrics.level} {_is_external(run)} {cohort.model_dump_json()}"
        if key in sections:
            sections[key]["runs"].append(run.name)
            continue
        sections[key] = {
            "runs": [run.name],
            "flow": registry.add(
                f"flow-{run.name}",
                f"Flow of the images of {run.name}",
                plots.flow_plot(flow_steps(run, cohort), _flow_of_splits(run, cohort)),
            ),
            "excluded": format_counts(cohort.excluded),
            "unused": format_counts(cohort.unused),
            "table": cohort_table(run, cohort),
        }
    return list(sections.values())


def _is_external(run: ScoredRun) -> bool:
    return run.kind == "external"


def _split_name(run: ScoredRun, split: str) -> str:
    """Return the name of a split in a sentence; all of another data set may be scored."""
    return "scored" if split == "test" and _is_external(run) else SPLIT_NAMES.get(split, split)


def flow_steps(run: ScoredRun, cohort: Cohort) -> list[FlowStep]:
    """Return how many images there are before they are split, and what is left out on the way."""
    images = f"{count_noun(cohort.n_images, 'image')} with an embedding"
    if "cache" not in run.config:
        images = f"{count_noun(cohort.n_images, 'image')} that can be read"
    steps, excluded = [], cohort.excluded
    if excluded:
        n_listed = cohort.n_images + sum(excluded.values())
        # Who the patients of the images are that were left out, nobody has counted.
        patients = _patients(cohort.n_patients_loaded, at_least=bool(cohort.left_out))
        listed = [f"{count_noun(n_listed, 'image')} of {run.dataset}", *patients]
        steps.append(FlowStep(listed, _list_of("Excluded", "image", excluded)))
    else:
        images += f" of {run.dataset}"
    unused = _list_of("Not used", run.metrics.level, cohort.unused) if cohort.unused else []
    return [*steps, FlowStep([images, *_patients(cohort.n_patients)], unused)]


def _patients(number: int | None, *, at_least: bool = False) -> list[str]:
    if number is None:
        return []
    return [("at least " if at_least else "") + count_noun(number, "patient")]


def _list_of(title: str, noun: str, counts: Mapping[str, int]) -> list[str]:
    lines = [f"{number:,} {reason}" for reason, number in counts.items()]
    return [f"{title}: {count_noun(sum(counts.values()), noun)}", *lines]


def _flow_of_splits(run: ScoredRun, cohort: Cohort) -> list[list[str]]:
    boxes = []
    for split, used in cohort.splits.items():
        if split == OVERALL:
            continue
        lines = [
            _split_name(run, split).capitalize(),
            count_noun(used.n, run.metrics.level),
            *_patients(used.n_patients),
        ]
        if used.n_labeled < used.n:
            lines.append(f"{used.n_labeled:,} labeled")
        boxes.append(lines)
    return boxes


def cohort_table(run: ScoredRun, cohort: Cohort) -> Table:
    """Return patients, sex, age, view and positives by split: the first table of a paper."""
    splits = dict(cohort.splits)
    if len(splits) == 2:
        splits.pop(OVERALL)  # the same as the only split
    columns = [_split_name(run, split) for split in splits]
    some_unlabeled = any(used.n_labeled < used.n for used in splits.values())
    cells = [
        dict(_characteristics(used, run.metrics.level, some_unlabeled)) for used in splits.values()
    ]
    names = dict.fromkeys(name for of_split in cells for name in of_split)
    # A value that a split lacks has none of it, such as a view.
    rows = [[name, *(of_split.get(name, "0") for of_split in cells)] for name in names]
    return Table(
        f"cohort-{run.name}",
        f"{pluralize(run.metrics.level).capitalize()} and patients of {run.name} by split. Sex and "
        "age are those of patients, age in years at the first image. Percentages of labels are of "
        f"the {pluralize(run.metrics.level)} whose label is known",
        ["", *columns],
        rows,
    )


def _characteristics(
    used: SplitCohort, level: str, some_unlabeled: bool
) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each row, in the order of the table."""
    units = pluralize(level)
    yield "Patients", UNDEFINED if used.n_patients is None else f"{used.n_patients:,}"
    yield units.capitalize(), f"{used.n:,}"
    if some_unlabeled:
        yield f"{units.capitalize()} with a known label", _share(used.n_labeled, used.n)
    n_patients = used.n if used.n_patients is None else used.n_patients
    for sex, number in _known_first(used.sexes):
        yield f"Sex: {sex or 'unknown'}", _share(number, n_patients)
    n_ages = 0 if used.ages is None else used.ages.n
    if used.ages is not None:
        low, high = used.ages.quartiles
        years = f"{used.ages.median:.1f} ({low:.1f} to {high:.1f})"
        yield "Age: median (quartiles)", years
    if n_ages < n_patients:
        yield "Age: unknown", _share(n_patients - n_ages, n_patients)
    for view, number in _known_first(used.views):
        yield f"View: {view or 'unknown'}", _share(number, used.n)
    for label, number in used.positive.items():
        yield f"{label}, positive", _share(number, used.known[label])


def _known_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: item[0] == "")


def _share(number: int, total: int) -> str:
    return f"{number:,} ({100 * number / total:.1f} %)" if total else UNDEFINED
