"""Checklists of reporting guidelines, filled in as far as a run knows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from featurecache.metrics.cohort import OVERALL, SPLIT_NAMES, Cohort, SplitCohort
from featurecache.report.guidelines import ALL, GUIDELINES, Guideline, Item
from featurecache.report.load_runs import ScoredRun, source_of_run
from featurecache.report.table import Table
from featurecache.wording import count_noun, count_scored, pluralize


@dataclass(frozen=True)
class Fact:
    """What a report says about an item.

    Attributes:
        text: a short statement.
        anchor: the section of the page where more is; see ``report.html.j2``.
    """

    text: str
    anchor: str


def checklists(run: ScoredRun) -> list[dict[str, Any]]:
    """Return each guideline with its table and how much of it is filled in.

    Args:
        run: the run that the checklists are about.
    """
    facts = dict(facts_of(run))
    sections = []
    for guideline in GUIDELINES:
        answered = [item for item in guideline.items if item.fact in facts]
        whole = sum(not item.authors for item in answered)
        sections.append(
            {
                "name": guideline.name,
                "citation": guideline.citation,
                "summary": f"{whole} of {len(guideline.items)} items are filled in, and "
                f"{len(answered) - whole} in part",
                "table": _checklist_table(guideline, facts),
            }
        )
    return sections


def _checklist_table(guideline: Guideline, facts: Mapping[str, Fact]) -> Table:
    found = [facts.get(item.fact) for item in guideline.items]
    return Table(
        f"checklist-{guideline.key}",
        f"{guideline.name}, in short ({guideline.citation})",
        ["item", "topic", "in this report", "for the authors"],
        [_row(item, fact) for item, fact in zip(guideline.items, found, strict=True)],
        anchors=["" if fact is None else fact.anchor for fact in found],
    )


def _row(item: Item, fact: Fact | None) -> list[str]:
    if fact is None:
        return [item.number, item.topic, "", ALL]
    return [item.number, item.topic, fact.text, item.authors]


def facts_of(run: ScoredRun) -> Iterator[tuple[str, Fact]]:
    """Yield what is known of a run, by the names that the items of ``guidelines`` have for it."""
    yield from _facts_of_images(run)
    yield from _facts_of_model(run)
    yield from _facts_of_metrics(run)


def _facts_of_images(run: ScoredRun) -> Iterator[tuple[str, Fact]]:
    config, cohort = run.config, run.cohort
    source = source_of_run(config)
    yield "source", Fact(f"data set {run.dataset}, and the command that loads it", "details")
    if source is not None and source["pseudonymized"]:
        yield "deidentified", Fact("ids and patients are keyed hashes", "details")
    yield "preprocessing", Fact("settings of the encoder's image processor", "details")
    labels = f"{count_noun(len(run.scored.label_names), 'label')} of the data set"
    if policy := config.get("label_policy"):
        labels += f"; {', '.join(f'{name} {value}' for name, value in policy.items())}"
    yield "labels", Fact(labels, "details")
    yield "blinding", Fact("probabilities are computed from images alone", "details")
    if cohort is None:
        return
    n_excluded = count_noun(sum(cohort.excluded.values()), "excluded image")
    yield "flow", Fact(f"flow diagram, {n_excluded}", "cohort")
    yield "cohort", Fact("patients, sex, age, view and positives by split", "cohort")
    yield "views", Fact("views by split", "cohort")
    yield (
        "missing",
        Fact(f"{n_excluded} by reason; unknown labels are left out label by label", "cohort"),
    )
    splits = {split: used for split, used in cohort.splits.items() if split != OVERALL}
    numbers = ", ".join(f"{SPLIT_NAMES[split]} {used.n:,}" for split, used in splits.items())
    yield "partition", Fact(f"{pluralize(run.metrics.level)}: {numbers}", "cohort")
    yield "size", Fact("patients, images and positives by split", "cohort")
    unused = f"{sum(cohort.unused.values()):,}" if cohort.unused else "none"
    yield "subset", Fact(f"left out of the splits: {unused}", "cohort")
    yield "disjoint", Fact(_disjointness(splits, cohort), "cohort")


def _disjointness(splits: Mapping[str, SplitCohort], cohort: Cohort) -> str:
    of_splits = [used.n_patients for used in splits.values() if used.n_patients is not None]
    overall = cohort.splits[OVERALL].n_patients if splits else 0
    if overall is None:
        return "patients are unknown: each image counts as one"
    shared = sum(of_splits) - overall
    return "patients: none is in two splits" if not shared else "images: splits share patients"


def _facts_of_model(run: ScoredRun) -> Iterator[tuple[str, Fact]]:
    config = run.config
    settings = config.get("settings", {})
    versions = ", ".join(f"{name} {number}" for name, number in config.get("versions", {}).items())
    if versions:
        yield "software", Fact(versions, "details")
    made = "commands that make the run again"
    if run.kind in ("head", "finetune"):
        made += ", and weights in its folder"
    yield "code", Fact(made, "details")
    yield "audit", Fact("predictions.csv in the run folder has every prediction", "details")
    if run.kind == "external":
        model = Fact(f"the model of {config.get('run', '?')}, unchanged; see its report", "details")
        for name in ("model", "initialization", "training", "selection"):
            yield name, model
        return
    if run.kind == "zero-shot":
        prompts = (config.get("prompts") or {}).get("name", "?")
        yield "model", Fact(f"{run.model} with the prompts {prompts}, no training", "details")
        return
    trained = (
        "fine-tuned encoder" if run.kind == "finetune" else f"head {settings.get('head', '?')} on"
    )
    yield "model", Fact(f"{trained} {run.model}; all settings", "details")
    seed = f"; seed {settings['seed']} for the rest" if "seed" in settings else ""
    yield "initialization", Fact(f"encoder by fingerprint{seed}", "details")
    yield "training", Fact("all settings, and losses by epoch or settings tried", "details")
    if config.get("chosen"):
        yield "selection", Fact(str(config["chosen"]), "details")
    elif config.get("best_epoch") is not None:
        yield "selection", Fact(f"epoch {config['best_epoch']} by validation loss", "details")
    n_members = config.get("ensemble", 1)
    yield "ensemble", Fact("none" if n_members == 1 else f"mean of {n_members} heads", "details")
    balancing = {name: settings.get(name, "none") for name in ("resample", "pos_weight")}
    used = ", ".join(f"{name} {value}" for name, value in balancing.items() if value != "none")
    yield "imbalance", Fact(used or "no method is used", "details")


def _facts_of_metrics(run: ScoredRun) -> Iterator[tuple[str, Fact]]:
    metrics = run.metrics
    scored = count_scored(metrics.n, metrics.split, metrics.level, metrics.n_patients)
    is_external = run.kind == "external"
    yield ("external" if is_external else "internal"), Fact(scored, "results")
    measures = "AUROC, AUPRC, sensitivity, specificity, predictive values, F1, calibration"
    yield "metrics", Fact(f"{measures}, net benefit", "results")
    yield "performance", Fact("averages and labels, with intervals", "labels")
    yield "accuracy", Fact("by label, with intervals", "operating")
    yield "failures", Fact("confusion matrix by label", "labels")
    if metrics.n_bootstrap:
        delong = metrics.delong is not None and metrics.delong.reason is None
        also = ", and DeLong's for AUROC" if delong else ""
        yield "uncertainty", Fact(f"95 % intervals over patients{also}", "labels")
    rules = {scores.threshold_source for scores in metrics.per_label.values()} - {None}
    if rules:
        chosen = "; ".join(sorted(map(str, rules)))
        yield "threshold", Fact(f"probabilities; thresholds: {chosen}", "operating")
    if metrics.retuned is not None and metrics.retuned.per_label:
        yield "updating", Fact("thresholds of the training beside retuned ones", "operating")
    elif metrics.calibration is not None:
        yield "updating", Fact("calibration before and after Platt scaling", "labels")
    if metrics.seeds is not None:
        yield "robustness", Fact(f"spread over {len(metrics.seeds.seeds)} seeds", "results")
    elif any(metrics.controls.values()):
        yield "robustness", Fact("negative controls", "controls")
    if metrics.localization is not None:
        yield "explanation", Fact("attention compared with boxes, in metrics.json", "details")
    if metrics.subgroups:
        yield "subgroups", Fact(f"performance by {', '.join(metrics.subgroups)}", "subgroups")
    if is_external and metrics.familiarity is not None and metrics.familiarity.reason is None:
        yield "shift", Fact("how familiar the images are to the model", "answers")
    answers = {} if metrics.answers is None else metrics.answers.per_label
    if any(label.reason is None for label in answers.values()):
        yield "unsure", Fact("unsure answers, by label", "answers")
    if run.warnings:
        yield "warnings", Fact(count_noun(len(run.warnings), "warning"), "warnings")
