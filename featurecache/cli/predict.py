"""``predict``: predict new images with a trained model."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from featurecache.cli.dataset_options import DatasetOptions, load_dataset, takes_dataset_options
from featurecache.cli.options import (
    UNITS_OF_RUN,
    BitDepth,
    Device,
    OptionValues,
    takes_units,
)
from featurecache.cli.output import (
    Json,
    format_float,
    print_json,
    print_result,
    print_status,
    print_table,
    progress_bar,
)
from featurecache.units import IMAGE, require_same_units
from featurecache.wording import UNDEFINED, count_noun

if TYPE_CHECKING:
    import pandas as pd

    from featurecache.metrics.familiarity import FamiliarityScores
    from featurecache.runs.prediction import Images

MAX_COLUMNS: Final = 4
"""With more labels than this, each has a row of its own: their columns would not fit."""
MAX_IMAGES: Final = 20
"""Number of images that are printed one by one; a file and ``--json`` have all."""
_COUNTED: Final = ("present", "unsure", "absent")
"""Answers that are counted by label."""
N_HIGHEST: Final = 3
"""Labels that are printed of each of several images, whatever their probability."""

_OPTIONS_OF_TABLES: Final = (
    *("path_column", "id_column", "patient_column", "study_column", "view_column"),
    *("images_root", "separator", "encoding"),
)


@takes_dataset_options(
    without=tuple(
        field.name for field in fields(DatasetOptions) if field.name not in _OPTIONS_OF_TABLES
    ),
    of_table=True,
)
@takes_units(UNITS_OF_RUN)
def predict(
    *,
    run: Annotated[Path, typer.Argument(help="Run folder of train-head or finetune.")],
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Image files, folders of images, a table with a column of image paths, or a cache "
            "of the run's encoder, whose embeddings are used."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write, .csv or .parquet, with the probability, calibrated probability, "
            "threshold and decision of each image and label, or why an image could not be read.",
            metavar="FILE",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or folder of the encoder, if the one recorded in the run cannot be found; "
            "repeat for a run on several encoders, in their order."
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            help="Local checkpoint of the encoder; repeat for a run on several encoders, in their "
            "order.",
            metavar="PATH",
        ),
    ] = None,
    device: Device = "auto",
    bit_depth: BitDepth = None,
    heatmap: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a picture of each image with the attention of a head on tokens drawn "
            "over it, for each label.",
            metavar="DIR",
        ),
    ] = None,
    units: OptionValues,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Predict new images, or studies, with a trained head or a fine-tuned encoder.

    A run at study level predicts a row for each study. The studies and views of images are those
    of a cache, or of --study-column and --view-column of a table.

    A * marks each probability at or above the threshold of its label, which was chosen on
    validation images, or is 0.5 where none could be. The calibrated probability comes from Platt
    scaling on validation images and is not compared with the threshold. The answer is present,
    absent or unsure, with a share of errors that train-head --coverage guarantees for patients
    like those of the validation. For a label without one of these, the reason is printed. Labels
    that could not be learned have no probability. The exit code is 2 if an image cannot be read,
    unless --out records the reason.

    Example: featurecache predict runs/kermany-dinov2-minilm-baseline image.png
    """
    import featurecache as fc
    from featurecache.io.table import check_table_file, write_table
    from featurecache.metrics.label_support import NOT_LEARNED
    from featurecache.metrics.thresholds import NOT_CHOSEN
    from featurecache.runs.predictions import prediction_document, reasons_by_label
    from featurecache.runs.run import decision_rules

    if out is not None:
        check_table_file(out)
    loaded = fc.load_run(run)
    scored = loaded.units.override(**units)
    require_same_units(loaded.units, scored, names=(str(run), "this prediction"))
    unit = scored.level
    given: Images = images
    if options != DatasetOptions():
        if len(images) != 1:
            raise typer.BadParameter("options of a table need one table", param_hint="IMAGES")
        given = load_dataset("csv", images[0], options, quiet=json)
    with progress_bar(hidden=json) as bar:
        task = bar.add_task("predict", total=None, detail="")
        table = loaded.predict(
            given,
            models=model,
            weights=weights,
            device=device,
            bit_depth=bit_depth,
            heatmap=heatmap,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if out is not None:
        write_table(table, out)
    labels = list(loaded.scored.label_names)
    rules = decision_rules(loaded)
    thresholds = {
        label: None if value != value else value
        for label, value in zip(labels, rules.thresholds.tolist(), strict=True)
    }
    learned = {label: value for label, value in thresholds.items() if value is not None}
    uncalibrated, unanswered = (
        reasons_by_label(labels, rule) for rule in (rules.platt, rules.limits)
    )
    readable = table["error"].isna()
    if json:
        print_json(
            [
                {
                    unit: row[unit],
                    **prediction_document(row, labels, rules),
                    "reason": row["error"],
                }
                for _, row in table.iterrows()
            ]
        )
    elif readable.any():
        if readable.sum() > MAX_IMAGES:
            _print_summary(
                f"predictions of {run}: {count_noun(int(readable.sum()), unit)}"
                + ("" if out else "; --out FILE writes all of them"),
                table[readable],
                learned,
            )
        elif len(learned) <= MAX_COLUMNS:
            _print_by_image(f"probabilities of {run} (calibrated)", table[readable], learned)
        else:
            _print_by_label(f"probabilities of {run}", table[readable], learned)
        if names := [
            label for label in learned if not loaded.metrics.per_label[label].threshold_chosen
        ]:
            print_result(f"threshold of {', '.join(names)}: {NOT_CHOSEN}")
        _print_missing(learned, {"calibrated probability": uncalibrated, "answer": unanswered})
        if readable.sum() > MAX_IMAGES:
            _print_unsure(table[readable], learned)
        if loaded.metrics.familiarity is not None:
            _print_foreign(table[readable], loaded.metrics.familiarity)
        if names := [label for label in labels if label not in learned]:
            print_result(f"no prediction of {', '.join(names)}: {NOT_LEARNED}")
    if heatmap is not None and not json:
        print_result(
            f"heat maps: {heatmap} ({count_noun(int(table['heatmap'].notna().sum()), 'image')})"
        )
    failed = table["error"][~readable]
    for error in failed[:MAX_IMAGES]:
        print_status(f"error: {error}")
    if len(failed) > MAX_IMAGES:
        print_status(
            f"and {count_noun(len(failed) - MAX_IMAGES, f'more {unit}')} that could not be read"
        )
    if out is not None and not json:
        print_result(f"predictions: {out} ({count_noun(len(table), unit)}, {len(failed)} not read)")
    if not readable.any() or (len(failed) and out is None):
        raise typer.Exit(2)


def _print_missing(labels: Iterable[str], reasons: Mapping[str, Mapping[str, str]]) -> None:
    """Print which labels lack what, and why: a line for all that have the same in common.

    Args:
        labels: The labels that were learned.
        reasons: By what is missing, the reasons by label.
    """
    from featurecache.metrics.label_support import IN_VALIDATION

    def in_short(reason: str) -> str:
        if reason.startswith(IN_VALIDATION):
            return "too few validation patients (--json has their numbers)"
        return reason.partition(" (")[0]

    lines: dict[tuple[str, str], list[str]] = {}
    labels = list(labels)
    for what, of_label in reasons.items():
        by_reason: dict[str, list[str]] = {}
        for label in labels:
            if label in of_label:
                by_reason.setdefault(in_short(of_label[label]), []).append(label)
        for reason, names in by_reason.items():
            of = "any label" if len(names) == len(labels) > 1 else ", ".join(names)
            lines.setdefault((of, reason), []).append(what)
    for (of, reason), whats in lines.items():
        print_result(f"no {' or '.join(whats)} of {of}: {reason}")


def _print_summary(title: str, table: "pd.DataFrame", thresholds: Mapping[str, float]) -> None:
    """Print a row for each label, where there are too many images for a row each."""
    has_sd = _has_sd(table)
    rows = []
    for label, threshold in thresholds.items():
        positive = int(table[f"{label} positive"].sum())
        median = float(table[f"{label} probability"].median())
        rows.append(
            [
                label,
                format_float(threshold),
                f"{positive} ({positive / len(table):.0%})",
                format_float(median),
                *_count_answers(table, label),
                *([format_float(float(table[f"{label} sd"].median()))] if has_sd else []),
            ]
        )
    columns = ["label", "threshold", "at or above it", "median probability", *_COUNTED]
    print_table(title, [*columns, "median sd"] if has_sd else columns, rows)


def _count_answers(table: "pd.DataFrame", label: str) -> list[str]:
    """Return how many images have each answer; dashes for a label without answers."""
    counts = table[f"{label} answer"].value_counts()
    return [str(counts.get(answer, 0)) if len(counts) else UNDEFINED for answer in _COUNTED]


def _print_unsure(table: "pd.DataFrame", labels: Iterable[str]) -> None:
    """Print which images the model is unsure of, those with the most labels first."""
    unsure = {label: table[f"{label} answer"] == "unsure" for label in labels}
    numbers = sum(unsure.values(), start=table["error"].notna().astype(int))
    ranked = numbers[numbers > 0].sort_values(ascending=False, kind="stable")
    if ranked.empty:
        return
    unit = table.columns[0]
    named = ", ".join(
        f"{table[unit][row]} ({', '.join(label for label in unsure if unsure[label][row])})"
        for row in ranked.index[:MAX_IMAGES]
    )
    more = ", ..." if len(ranked) > MAX_IMAGES else ""
    print_result(
        f"unsure of {count_noun(len(ranked), unit)}, those with the most labels first: "
        f"{named}{more}"
    )


def _print_by_image(title: str, table: "pd.DataFrame", thresholds: Mapping[str, float]) -> None:
    """Print a row for each image and a column for each label."""
    print_table(
        title,
        [table.columns[0], *thresholds],
        [
            ["threshold", *map(format_float, thresholds.values())],
            *(
                [row.iloc[0], *(_cell(row, label) for label in thresholds)]
                for _, row in table.iterrows()
            ),
        ],
    )
    print_result(
        "* the probability is at or above the threshold of its label; the calibrated "
        "probability, in parentheses, is not compared with it"
    )
    _print_sd(table)


def _print_by_label(title: str, table: "pd.DataFrame", thresholds: Mapping[str, float]) -> None:
    """Print a row for each image and label; of several images only those of interest."""
    unit = table.columns[0]  # image or study
    folders = {str(Path(name).parent) for name in table[unit]}
    in_one_folder = unit == IMAGE and len(folders) == 1
    rows = []
    for _, row in table.iterrows():
        probability = {label: float(row[f"{label} probability"]) for label in thresholds}
        labels = sorted(probability, key=probability.__getitem__, reverse=True)
        if len(table) > 1:
            labels = [
                label
                for rank, label in enumerate(labels)
                if rank < N_HIGHEST or row[f"{label} positive"]
            ]
        name = Path(row[unit]).name if in_one_folder else row[unit]
        for label in labels:
            rows.append(
                [
                    name if label == labels[0] else "",
                    label,
                    format_float(probability[label]) + ("*" if row[f"{label} positive"] else ""),
                    format_float(thresholds[label]),
                    row[f"{label} answer"] or UNDEFINED,
                    UNDEFINED
                    if isnan(calibrated := float(row[f"{label} calibrated"]))
                    else format_float(calibrated),
                ]
            )
            if _has_sd(table):
                rows[-1].append(format_float(float(row[f"{label} sd"])))
    columns = [unit, "label", "probability", "threshold", "answer", "calibrated"]
    if _has_sd(table):
        columns.append("sd")
    if len(table) == 1:
        title = f"{title}: {table[unit].iloc[0]}"
        columns, rows = columns[1:], [row[1:] for row in rows]
    elif in_one_folder:
        title = f"{title}, images in {folders.pop()}"
    print_table(title, columns, rows, optional=3)
    _print_sd(table)
    print_result(
        "* the probability is at or above the threshold of its label; the calibrated probability "
        "is not compared with it"
    )
    if len(table) > 1:
        print_result(
            f"of each {unit} the {N_HIGHEST} highest probabilities and those at or above their "
            "threshold; --out and --json have all"
        )


def _has_sd(table: "pd.DataFrame") -> bool:
    """Return whether the predictions are of an ensemble."""
    return any(str(column).endswith(" sd") for column in table.columns)


def _print_sd(table: "pd.DataFrame") -> None:
    if _has_sd(table):
        print_result("sd, or after ±: standard deviation (n - 1) of the members of the ensemble")


def _print_foreign(table: "pd.DataFrame", familiarity: "FamiliarityScores") -> None:
    """Print which images are more foreign than nearly all training images, or why none is."""
    from featurecache.metrics.familiarity import COLUMNS, FOREIGN, MIN_FOREIGN

    if familiarity.reason is not None:
        print_result(f"no familiarity of the images: {familiarity.reason}")
        return
    n_patients = familiarity.n_reference
    if n_patients < MIN_FOREIGN:
        print_result(
            f"no image is called foreign: familiarity compares with one image each of {n_patients} "
            f"training patients, so that its lowest percentile is {100 / (n_patients + 1):.1f}, "
            f"and {MIN_FOREIGN} are needed"
        )
        return
    lowest = table[list(COLUMNS)].min(axis=1)
    foreign = table.iloc[:, 0][lowest < FOREIGN].tolist()
    if foreign:
        more = ", ..." if len(foreign) > MAX_IMAGES else ""
        print_result(
            f"{count_noun(len(foreign), table.columns[0])} less familiar than {100 - FOREIGN:g} % "
            f"of {n_patients:,} training images, one of each patient: "
            f"{', '.join(map(str, foreign[:MAX_IMAGES]))}{more}"
        )


def _cell(row: "pd.Series[Any]", label: str) -> str:
    mark = "*" if row[f"{label} positive"] else ""
    calibrated = float(row[f"{label} calibrated"])
    suffix = "" if calibrated != calibrated else f" ({format_float(calibrated)})"  # NaN
    answer = f" {row[f'{label} answer']}" if row[f"{label} answer"] else ""
    spread = f" ± {format_float(row[f'{label} sd'])}" if f"{label} sd" in row else ""
    return f"{format_float(row[f'{label} probability'])}{mark}{spread}{suffix}{answer}"
