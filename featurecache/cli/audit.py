"""``audit``: what is wrong with a data set, before a score on it is believed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurecache.cli.dataset_options import (
    DataRoot,
    DatasetOptions,
    load_dataset,
    takes_dataset_options,
)
from featurecache.cli.options import CacheFile, Draws, choose_cache
from featurecache.cli.output import (
    Json,
    format_float,
    print_json,
    print_result,
    print_status,
    print_table,
    progress_bar,
    with_interval,
)
from featurecache.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import TaskID

SHOWN = 20
"""Rows of a list that a table shows; --json has them all."""


@takes_dataset_options(without=("view_column", "sex_column", "age_column"))
def audit(
    *,
    cache: CacheFile = Path("cache"),
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The data set of the cache: its films are looked at too. --data-root alone is "
            "enough where the cache is named after its data set.",
            metavar="NAME",
        ),
    ] = None,
    data_root: DataRoot = None,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(help="Show near-identical films on this contact sheet.", metavar="PNG"),
    ] = None,
    neighbours: Annotated[
        int,
        typer.Option(help="How many of each image's nearest are compared on pixels.", min=1),
    ] = 5,
    n_bootstrap: Draws = 1000,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Look for leaks between splits, shortcuts in the embeddings and labels too rare to score.

    What is found is no error: the exit code is 0. Without --dataset or --data-root no film is
    looked at, and near-identical ones are only suspected. Give the options that the cache was
    extracted with.

    Example: featurecache audit --dataset kermany --data-root ~/data/kermany --contact-sheet pairs.png
    """
    from featurecache.audit.audit import audit as run
    from featurecache.store.reader import read_cache

    path, chosen = choose_cache(cache)
    looks = dataset is not None or data_root is not None
    if contact_sheet is not None:
        if not looks:
            raise UsageError("--contact-sheet shows films: give --dataset or --data-root too")
        if contact_sheet.exists():
            raise UsageError(f"{contact_sheet} already exists: give another --contact-sheet")
    found = read_cache(path)
    print_status(f"cache {path}{' (the newest)' if chosen else ''}, {found.header.model}")
    films = None
    if looks:
        films = load_dataset(
            dataset or found.header.dataset, data_root, options, quiet=json
        ).files()
    with progress_bar(hidden=json) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total, detail="")
            bar.update(tasks[what], completed=done)

        document = run(
            found, films, neighbours=neighbours, n_bootstrap=n_bootstrap, progress=progress
        )
    pairs = document["near_duplicates"]["pairs"]
    if contact_sheet is not None and films is not None and pairs:
        _write_sheet(contact_sheet, pairs, films)
    if json:
        print_json(document)
        return
    _print(document)
    if contact_sheet is not None:
        print_result(
            f"contact sheet: {contact_sheet}" if pairs else "no near-identical films: no sheet"
        )


def _print(document: Mapping[str, Any]) -> None:
    splits = ", ".join(f"{count} {split}" for split, count in document["splits"].items())
    print_table(
        f"{document['n']} images of {document['dataset']}: {splits}",
        ["leaks", "found", ""],
        _leaks(document),
    )
    near = document["near_duplicates"]
    listed = near["outstanding"]["pairs"] if near["pairs"] is None else near["pairs"]
    if listed:
        title = "suspected, nearest first" if near["pairs"] is None else "most alike first"
        print_table(
            f"near-identical films in two splits, {title}"
            + (f" ({SHOWN} of {len(listed)}; --json has all)" if len(listed) > SHOWN else ""),
            ["", "likeness", "cosine", "image", "image", "patient", "labels"],
            [_pair(place, pair) for place, pair in enumerate(listed[:SHOWN], start=1)],
        )
    for image, reason in list(near["unreadable"].items())[:SHOWN]:
        print_status(f"not compared: {image}: {reason}")
    print_table(
        "read from the embeddings of patients not seen [95 % interval over patients]",
        ["", "images", "patients", "AUROC", "R2", "mean error"],
        _readable(document["readability"]),
    )
    print_table(
        "labels: positive images of known (of how many patients), the width that the 95 % "
        "interval of an AUROC would have",
        ["", "split", "positive", "known", "prevalence", "width", "", "prevalence by view"],
        _labels(document["labels"]),
    )


def _leaks(document: Mapping[str, Any]) -> list[list[str]]:
    shared, learned = document["shared_patients"], document["learned_images"]
    identical, near = document["identical_files_across_splits"], document["near_duplicates"]
    across, within = identical["across_splits"], identical["within_split"]
    outstanding = near["outstanding"]

    def derangement(groups: Mapping[str, int]) -> str:
        return f"{groups['groups']} groups, {groups['other_labels']} with other labels"

    return [
        [
            "patients in two splits",
            "-" if shared is None else str(shared["patients"]),
            "no patients are known" if shared is None else f"with {shared['images']} images",
        ],
        ["byte-identical images across splits", str(across["images"]), derangement(across)],
        ["byte-identical copies within a split", str(within["copies"]), derangement(within)],
        [
            "near-identical pairs across splits",
            format_float(None) if near["pairs"] is None else str(len(near["pairs"])),
            "no films were looked at: give --data-root"
            if near["pairs"] is None
            else f"likeness {near['least_likeness']} or more, of {near['compared']} pairs "
            f"compared; {len(near['unreadable'])} films could not be read",
        ],
        [
            "pairs across splits out of the ordinary",
            format_float(None) if outstanding["cosine"] is None else str(len(outstanding["pairs"])),
            "too few images to say"
            if outstanding["cosine"] is None
            else f"by embedding alone, from a cosine of {outstanding['cosine']:.4f} on",
        ],
        [
            "images that the encoder learned from",
            str(sum(learned.values())),
            ", ".join(f"{count} {split}" for split, count in learned.items()),
        ],
    ]


def _pair(place: int, pair: Mapping[str, Any]) -> list[str]:
    one, two = pair["patients"]
    return [
        str(place),
        format_float(pair["likeness"]),
        format_float(pair["cosine"], digits=4),
        *(f"{split}: {image}" for split, image in zip(pair["splits"], pair["images"], strict=True)),
        "the same" if one == two else f"{one}, {two}",
        "the same" if pair["same_labels"] else "others",
    ]


def _readable(document: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name in ("view", "sex"):
        if (of := document[name]) is None:
            rows.append([name, *[format_float(None)] * 5])
            continue
        sizes = [str(of["n"]), str(of["n_patients"])]
        rows += [
            [f"{name} {value}", *sizes, with_interval(figures["auroc"], figures["ci95"]), "", ""]
            for value, figures in of["values"].items()
        ]
    if (age := document["age"]) is None:
        return [*rows, ["age", *[format_float(None)] * 5]]
    r2, mae = (with_interval(age[key], age["ci95"][key]) for key in ("r2", "mae"))
    guess = f"{mae} years; {age['mae_of_median']:.3f} by guessing the median"
    return [*rows, ["age", str(age["n"]), str(age["n_patients"]), "", r2, guess]]


def _labels(document: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            label,
            split,
            f"{of['positive']} ({of['patients']['positive']})",
            f"{of['positive'] + of['negative']}",
            format_float(of["prevalence"]),
            format_float(of["expected_width"]),
            of["state"],
            ", ".join(
                f"{view} {format_float(at['prevalence'])}" for view, at in figures["views"].items()
            )
            if first == 0
            else "",
        ]
        for label, figures in document.items()
        for first, (split, of) in enumerate(figures["splits"].items())
    ]


def _write_sheet(target: Path, pairs: list[Mapping[str, Any]], films: Mapping[str, Path]) -> None:
    from featurecache.audit.contact_sheet import pair_sheet
    from featurecache.io.atomic import new_file

    with new_file(target) as unfinished:
        pair_sheet(pairs, films).save(unfinished, format="PNG")
