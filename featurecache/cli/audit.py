"""``audit``: look for problems of a data set that make metrics on it misleading."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featurecache.cli.dataset_options import (
    DataRoot,
    DatasetOptions,
    load_dataset_again,
    takes_dataset_options,
)
from featurecache.cli.options import (
    CacheFile,
    NBootstrap,
    OptionValues,
    Views,
    describe_choice,
    print_policy,
    print_units,
    takes_policy,
)
from featurecache.cli.output import (
    Json,
    each_task,
    format_float,
    print_json,
    print_result,
    print_status,
    print_table,
    progress_bar,
    with_interval,
)
from featurecache.wording import UNDEFINED, count_noun

if TYPE_CHECKING:
    from featurecache.audit.audit import Audit
    from featurecache.audit.domain_shift import DomainShift
    from featurecache.audit.doubtful_labels import DoubtfulLabels
    from featurecache.audit.leakage import GroupsAcrossSplits, GroupsWithinSplit
    from featurecache.audit.near_duplicates import ImagePair
    from featurecache.audit.view_change import ViewChange

MAX_ROWS = 20
"""Number of rows printed of a table; --json has all."""


@takes_policy
@takes_dataset_options(
    without=(
        "view_column",
        "sex_column",
        "age_column",
        "metadata_column",
        "corrections",
        "only_labels",
    )
)
def audit(
    *,
    cache: CacheFile = Path("cache"),
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set of the cache, if it cannot be loaded as it was for the cache.",
            metavar="NAME",
        ),
    ] = None,
    data_root: DataRoot = None,
    images: Annotated[
        bool,
        typer.Option(
            "--images",
            help="Read the images, from where they were when the cache was extracted, to compare "
            "them.",
        ),
    ] = False,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(help="Contact sheet of near-duplicate images to write.", metavar="PNG"),
    ] = None,
    labels: Annotated[
        bool,
        typer.Option("--labels", help="Look for labels that are probably wrong."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write the doubtful labels to, .csv or .parquet, to be corrected and "
            "given back to extract as --corrections; implies --labels.",
            metavar="FILE",
        ),
    ] = None,
    label_sheet: Annotated[
        Path | None,
        typer.Option(
            help="Contact sheet of the images with the most doubtful labels to write; implies "
            "--labels.",
            metavar="PNG",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Another cache by the same encoder, such as that of the training: how well its "
            "images can be distinguished from these, and which of these are most unlike them.",
            metavar="FILE",
        ),
    ] = None,
    neighbors: Annotated[
        int,
        typer.Option(
            help="Number of nearest images to compare each image with, pixel by pixel.", min=1
        ),
    ] = 5,
    n_bootstrap: NBootstrap = 1000,
    views: Views = None,
    policy: OptionValues,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Look for leaks between splits, shortcuts, rare or doubtful labels, and a domain shift.

    The exit code is 0 even if there are leaks. Without --images no image is read, and
    near-duplicates are only suspected. Options of the data set are only needed if it has moved, or
    if its ids are pseudonymized; they imply --images, as --contact-sheet does.

    Example: featurecache audit --images --contact-sheet pairs.png --labels --out doubtful.csv
    """
    import featurecache as fc
    from featurecache.audit.contact_sheet import (
        doubtful_images,
        save_contact_sheet,
        save_doubtful_sheet,
    )
    from featurecache.extraction.source import cached_files, source_of_cache
    from featurecache.io.atomic import require_absent
    from featurecache.io.table import check_table_file

    for sheet, argument in ((contact_sheet, "contact_sheet"), (label_sheet, "label_sheet")):
        if sheet is not None:
            require_absent(sheet, argument=argument)
    if out is not None:
        check_table_file(out)
    opened = fc.open_cache(cache, views=views, **policy)
    print_status(f"auditing {describe_choice(cache, opened)}")
    print_policy(opened)
    print_units(opened)
    compares = bool(images or dataset or data_root or contact_sheet)
    data = None
    if compares or label_sheet:
        data = load_dataset_again(
            source_of_cache(opened), dataset, data_root, options, used_by=opened.path, quiet=json
        )
    with progress_bar(hidden=json) as bar:
        result = fc.audit(
            opened,
            data if compares else None,
            labels=bool(labels or out or label_sheet),
            against=against,
            neighbors=neighbors,
            n_bootstrap=n_bootstrap,
            progress=each_task(bar),
        )
    pairs = result.near_duplicates.pairs
    if contact_sheet is not None and data is not None and pairs:
        save_contact_sheet(contact_sheet, pairs, data.files())
    doubtful = result.doubtful_labels
    if doubtful is not None and out is not None:
        doubtful.save(out)
    if doubtful is not None and label_sheet is not None and data is not None and doubtful.cells:
        files = cached_files(opened, data, list(doubtful_images(doubtful.cells)))
        save_doubtful_sheet(label_sheet, doubtful.cells, files)
    if json:
        print_json(result.to_json())
        return
    _print(result)
    if result.domain_shift is not None:
        _print_shift(result.dataset, result.domain_shift)
    if result.view_change is not None:
        _print_change(result.view_change)
    if doubtful is not None:
        _print_doubtful(doubtful)
    if out is not None:
        print_result(f"doubtful labels: {out}")
    if contact_sheet is not None:
        print_result(
            f"contact sheet: {contact_sheet}" if pairs else "no near-duplicates: no contact sheet"
        )
    if label_sheet is not None and doubtful is not None:
        print_result(
            f"contact sheet: {label_sheet}"
            if doubtful.cells
            else "no doubtful labels: no contact sheet"
        )


def _print(result: "Audit") -> None:
    from featurecache.audit.probe import MIN_PATIENTS

    splits = ", ".join(f"{count} {split}" for split, count in result.splits.items())
    print_table(
        f"{count_noun(result.n, 'image')} of {result.dataset}: {splits}",
        ["leaks", "count", "details"],
        _leak_rows(result),
        prose=("leaks", "details"),
    )
    near = result.near_duplicates
    pairs = near.suspected.pairs if near.pairs is None else near.pairs
    if pairs:
        kind = "suspected near-duplicates" if near.pairs is None else "near-duplicates"
        limited = f" ({MAX_ROWS} of {len(pairs)}; --json has all)" if len(pairs) > MAX_ROWS else ""
        print_table(
            f"{kind} in different splits, most similar first{limited}",
            ["", "similarity", "cosine", "image", "image", "patient", "labels"],
            [_pair_row(number, pair) for number, pair in enumerate(pairs[:MAX_ROWS], start=1)],
        )
    for image, reason in list(near.unreadable.items())[:MAX_ROWS]:
        print_status(f"not compared: {image}: {reason}")
    print_table(
        "predicted from the embeddings of unseen patients [95 % interval over patients]",
        ["", "images", "patients", "AUROC", "R²", "mean error"],
        _shortcut_rows(result),
        optional=1,
        prose=("mean error",),
    )
    missing = [name for name in ("view", "sex", "age") if getattr(result.shortcuts, name) is None]
    if missing:
        print_result(
            f"not predicted: {', '.join(missing)}. View and sex need two values of {MIN_PATIENTS} "
            f"patients each, age needs {MIN_PATIENTS} patients of different ages\n"
        )
    if not result.label_support:
        print_result("the cache has no labels, so their support is not checked")
        return
    print_table(
        "labels: images (and patients) with a positive label, and the expected width of the 95 % "
        "interval of an AUROC",
        [
            "",
            "split",
            "positive",
            "labeled",
            "prevalence",
            "width",
            "support",
            "prevalence by view",
        ],
        _label_rows(result),
        optional=1,
    )


def _print_shift(dataset: str, shift: "DomainShift") -> None:
    for note in shift.notes:
        print_status(f"{shift.against} was made with other library versions ({note})")
    print_result(
        f"domain shift from {shift.against}: a linear classifier distinguishes the images of "
        f"unseen patients ({shift.n:,} of {dataset}, {shift.n_against:,} of {shift.dataset}) with "
        f"an AUROC of {with_interval(shift.auroc, shift.ci95)}; 0.5 is chance"
    )
    print_result(
        f"familiarity with {shift.dataset}: median percentile {shift.knn:.0f} (nearest neighbors) "
        f"and {shift.mahalanobis:.0f} (Mahalanobis) among one image each of "
        f"{count_noun(shift.n_reference, 'patient')}; 50 is typical, 0 is foreign\n"
    )
    print_table(
        f"images of {dataset} that are most unlike those of {shift.dataset}, and their percentiles",
        ["", "image", "split", "nearest neighbors", "Mahalanobis"],
        [
            [str(number), image.image, image.split, f"{image.knn:.1f}", f"{image.mahalanobis:.1f}"]
            for number, image in enumerate(shift.foreign[:MAX_ROWS], start=1)
        ],
    )


def _print_change(change: "ViewChange") -> None:
    if change.cosine is None or change.nearest_cosine is None or change.same_nearest is None:
        print_result(
            f"what {change.views} views changed is not known: {change.plain} has no embeddings of "
            "the same images by the same encoder without views; extract it without --views\n"
        )
        return
    print_result(
        f"{change.views} views against {change.plain}, in {count_noun(change.n or 0, 'image')} of "
        f"different patients: mean cosine {change.cosine:.4f} with the same image alone (the "
        f"nearest image of another patient: {change.nearest_cosine:.4f}); "
        f"{change.same_nearest:.0%} keep their nearest image\n"
    )


def _print_doubtful(doubtful: "DoubtfulLabels") -> None:
    print_table(
        "labels that contradict what other patients' embeddings predict, and the expected share of "
        "wrong labels [95 % interval over patients]",
        ["", "known", "AUROC", "doubtful", "wrong"],
        [
            [
                label,
                str(doubt.n),
                format_float(doubt.auroc),
                UNDEFINED if doubt.doubtful is None else str(doubt.doubtful),
                with_interval(doubt.wrong_share, doubt.ci95),
            ]
            for label, doubt in doubtful.labels.items()
        ],
    )
    undefined = {label: doubt.reason for label, doubt in doubtful.labels.items() if doubt.reason}
    for label, reason in undefined.items():
        print_status(f"not looked at: {label}: {reason}")
    cells = doubtful.cells[:MAX_ROWS]
    if cells:
        limited = (
            f" ({MAX_ROWS} of {len(doubtful.cells)}; --out and --json have all)"
            if len(doubtful.cells) > MAX_ROWS
            else ""
        )
        print_table(
            f"doubtful labels, most doubtful first{limited}",
            ["", "label", "value", "probability", "image", "split"],
            [
                [
                    str(number),
                    cell.label,
                    "positive" if cell.value else "negative",
                    format_float(cell.probability),
                    cell.image,
                    cell.split,
                ]
                for number, cell in enumerate(cells, start=1)
            ],
        )


def _leak_rows(result: "Audit") -> list[list[str]]:
    shared, near = result.shared_patients, result.near_duplicates
    across, within = result.identical_files.across_splits, result.identical_files.within_split
    suspected = near.suspected

    def describe(groups: "GroupsAcrossSplits | GroupsWithinSplit") -> str:
        return (
            f"{count_noun(groups.groups, 'group')}, {groups.conflicting_labels} with conflicting "
            "labels"
        )

    return [
        [
            "patients in several splits",
            UNDEFINED if shared is None else str(shared.patients),
            "patients are unknown"
            if shared is None
            else f"with {count_noun(shared.images, 'image')}",
        ],
        ["byte-identical images across splits", str(across.images), describe(across)],
        ["byte-identical copies within a split", str(within.copies), describe(within)],
        [
            "re-encoded or resized copies across splits",
            str(result.reencoded_copies),
            "images in train or val; training leaves them out",
        ],
        [
            "near-duplicate pairs across splits",
            format_float(None) if near.pairs is None else str(len(near.pairs)),
            "no images were read: give --images"
            if near.compared is None
            else f"similarity {near.min_similarity} or more, of "
            f"{count_noun(near.compared, 'pair')} compared; "
            f"{count_noun(len(near.unreadable), 'image')} could not be read",
        ],
        [
            "unusually similar embeddings across splits",
            format_float(None) if suspected.cosine is None else str(len(suspected.pairs)),
            "too few images to tell"
            if suspected.cosine is None
            else f"pairs with a cosine of {suspected.cosine:.4f} or more, estimated from "
            f"{count_noun(suspected.sample, 'image')}",
        ],
        [
            "images that the encoder was fine-tuned on",
            str(sum(result.fine_tuning_images.values())),
            ", ".join(f"{count} {split}" for split, count in result.fine_tuning_images.items()),
        ],
    ]


def _pair_row(number: int, pair: "ImagePair") -> list[str]:
    first, second = pair.patients
    return [
        str(number),
        format_float(pair.similarity),
        format_float(pair.cosine, digits=4),
        *(f"{split}: {image}" for split, image in zip(pair.splits, pair.images, strict=True)),
        "same" if first == second else f"{first}, {second}",
        "same" if pair.same_labels else "conflicting",
    ]


def _shortcut_rows(result: "Audit") -> list[list[str]]:
    undefined = [format_float(None)] * 5
    rows = []
    for name in ("view", "sex"):
        probe = getattr(result.shortcuts, name)
        if probe is None:
            rows.append([name, *undefined])
            continue
        sizes = [str(probe.n), str(probe.n_patients)]
        rows += [
            [f"{name} {value}", *sizes, with_interval(score.auroc, score.ci95), *undefined[:2]]
            for value, score in probe.values.items()
        ]
    age = result.shortcuts.age
    if age is None:
        return [*rows, ["age", *undefined]]
    r2, mae = with_interval(age.r2, age.ci95.r2), with_interval(age.mae, age.ci95.mae)
    error = f"{mae} years; {age.mae_of_median:.3f} for the median"
    return [*rows, ["age", str(age.n), str(age.n_patients), undefined[0], r2, error]]


def _width(width: float | None) -> str:
    """Format the width of an interval; the formula's can be larger than the range of the AUROC."""
    return "> 1" if width is not None and width > 1 else format_float(width)


def _label_rows(result: "Audit") -> list[list[str]]:
    return [
        [
            label,
            name,
            f"{split.positive} ({split.patients.positive})",
            f"{split.positive + split.negative}",
            format_float(split.prevalence),
            _width(split.expected_width),
            split.state,
            ", ".join(f"{view} {format_float(of.prevalence)}" for view, of in support.views.items())
            if position == 0
            else "",
        ]
        for label, support in result.label_support.items()
        for position, (name, split) in enumerate(support.splits.items())
    ]
