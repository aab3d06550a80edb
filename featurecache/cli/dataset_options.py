"""Options that select a data set, shared by all commands that read images."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from featurecache.cli.config_options import Command, expand_parameter
from featurecache.cli.output import print_status, progress_bar
from featurecache.errors import UsageError
from featurecache.report.command_line import CSV_OPTIONS

if TYPE_CHECKING:
    from rich.progress import Progress

    from featurecache.datasets.dataset import Dataset
    from featurecache.provenance.provenance import Source

_PANEL = "Options of single data sets"


def _option(help_text: str) -> Any:
    return typer.Option(help=help_text, rich_help_panel=_PANEL)


DEFAULT_DATASET = "phantom"

DatasetName = Annotated[
    str | None,
    typer.Option(
        help="Name of the data set: see 'featurecache datasets'. Default: recognized from "
        f"--data-root; without it, {DEFAULT_DATASET}."
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the data set, any folder of images, or a table (CSV, TSV, Excel, parquet). "
        "With --dataset, also a folder that contains it under its name. "
        "Default: $FEATURECACHE_DATA/NAME; for the "
        "data set phantom, which is generated, a folder in the user's cache.",
        metavar="PATH",
    ),
]


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """Options of the loaders of data sets; a loader refuses those that it does not take."""

    split: Annotated[
        str | None,
        _option(
            "Public data sets and phantom: auto, official or patient; kermany: official, published "
            "(all images, for an audit) or image-level-1967-493-616."
        ),
    ] = None
    subset: Annotated[str | None, _option("kermany: all or viral.")] = None
    section: Annotated[
        str | None,
        _option("chexpert-plus: section of the reports: impression, findings or report."),
    ] = None
    labeler: Annotated[
        str | None,
        _option("mimic-cxr-jpg: chexpert, negbio, or radiologist for the labeled test set."),
    ] = None
    n_images: Annotated[int | None, _option("phantom: number of images. Default: 600.")] = None
    n_views: Annotated[
        int | None,
        _option("phantom: images of each study: 1, or 2, frontal and lateral. Default: 1."),
    ] = None
    folds: Annotated[
        int | None,
        _option("Number of folds, by patient, that the images are divided into; with --fold."),
    ] = None
    fold: Annotated[
        int | None,
        _option("Fold that is test, of --folds or of --split-column; the next is validation."),
    ] = None
    dataset_seed: Annotated[
        int | None,
        _option("Seed of splits that the data set does not define; phantom: seed of the images."),
    ] = None
    path_column: Annotated[
        str | None,
        _option("csv: column of image paths. Default: path, or the only one that names images."),
    ] = None
    label_column: Annotated[
        list[str] | None,
        _option(
            "csv: column of one label (1, 0, -1 or empty; yes, no, ...), or a pattern such as "
            "'Finding_*'; repeat for more labels."
        ),
    ] = None
    multilabel_column: Annotated[
        str | None,
        _option("csv: column of positive labels joined by '|', ';' or ',', or written as lists."),
    ] = None
    class_column: Annotated[
        str | None, _option("csv: column of classes; each becomes a label.")
    ] = None
    positive: Annotated[
        list[str] | None,
        _option("csv: word for positive in the columns of labels; repeat for more words."),
    ] = None
    negative: Annotated[
        list[str] | None,
        _option("csv: word for negative, '' for empty cells; repeat for more words."),
    ] = None
    label_separator: Annotated[
        str | None,
        _option("csv: what joins the labels of --multilabel-column. Default: detected."),
    ] = None
    id_column: Annotated[str | None, _option("csv: column of ids.")] = None
    patient_column: Annotated[str | None, _option("csv: column of patients.")] = None
    study_column: Annotated[str | None, _option("csv: column of studies, each of one patient.")] = (
        None
    )
    split_column: Annotated[str | None, _option("csv: column of splits.")] = None
    view_column: Annotated[str | None, _option("csv: column of views.")] = None
    sex_column: Annotated[str | None, _option("csv: column of sexes.")] = None
    age_column: Annotated[str | None, _option("csv: column of ages such as 58, 058Y or 18M.")] = (
        None
    )
    metadata_column: Annotated[
        list[str] | None,
        _option("csv: column to show of the images, such as reports, or a pattern; repeat."),
    ] = None
    images_root: Annotated[
        Path | None,
        _option("csv: folder that the paths are relative to. Default: the folder of the file."),
    ] = None
    separator: Annotated[
        str | None,
        _option("csv: separator of the columns, such as ';' or tab. Default: detected."),
    ] = None
    encoding: Annotated[
        str | None,
        _option("csv: encoding of the file, such as cp1252. Default: detected."),
    ] = None
    patient_level: Annotated[
        int | None,
        _option(
            "images, folder: which folder of an image's path names its patient: 1 for the first, 0 "
            "for none. Default: the PatientID of DICOM files."
        ),
    ] = None
    follow_links: Annotated[
        bool | None,
        typer.Option(
            "--follow-links/--no-follow-links",
            help="Follow symbolic links that lead out of the data set's folder. Default: follow.",
            show_default=False,
        ),
    ] = None
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the data set, and so of the folder of its caches. Default: that of its "
            "folder or file.",
        ),
    ] = None
    pseudonymize: Annotated[
        Path | None,
        typer.Option(
            help="Replace ids and patients by hashes with the key in this file, in everything "
            "that is written. Use the same file whenever the data set is read.",
            metavar="KEYFILE",
        ),
    ] = None
    corrections: Annotated[
        Path | None,
        typer.Option(
            help="Table of labels that replace those of the data set, as 'featurecache audit "
            "--out' or 'featurecache suggest' writes it, with the right labels filled in.",
            metavar="TABLE",
        ),
    ] = None
    only_labels: Annotated[
        list[str] | None,
        typer.Option(
            help="Label to keep, and no other; repeat for more labels. Images and splits stay.",
            metavar="LABEL",
        ),
    ] = None

    def for_loader(self, dataset: str) -> dict[str, Any]:
        """Return the options that the user gave, as arguments of a data set's loader.

        Args:
            dataset: Name of the data set.

        Raises:
            UsageError: If an option for CSV files is given for another data set, or the reverse.
        """
        options: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _COMMON_OPTIONS or value in (None, []):
                continue
            if field.name in _OTHER_OPTIONS if dataset == "csv" else field.name in _CSV_ARGUMENTS:
                raise UsageError(f"the data set {dataset} takes no option `{field.name}`")
            options[_CSV_ARGUMENTS.get(field.name, field.name)] = value
        if "dataset_seed" in options:
            options["seed"] = options.pop("dataset_seed")
        return options


_CSV_ARGUMENTS: Final = {option: argument for argument, option in CSV_OPTIONS.items()}

_COMMON_OPTIONS: Final = ("name", "follow_links", "pseudonymize", "corrections", "only_labels")
"""Options that all data sets have."""

_OTHER_OPTIONS: Final = (
    *("split", "subset", "section", "labeler", "n_images", "n_views", "patient_level"),
)
"""Options that do not apply to CSV files."""


def takes_dataset_options(
    *, without: tuple[str, ...] = (), of_table: bool = False
) -> Callable[[Command], Command]:
    """Give a command one option for each field of ``DatasetOptions``.

    The decorated command receives them as its parameter ``options``.

    Args:
        without: Fields that this command does not offer.
        of_table: Whether the command reads no other data sets than tables, so that the help need
            not say which options are for tables.
    """
    annotations = get_type_hints(DatasetOptions, include_extras=True)
    if of_table:
        annotations = {name: _of_table(annotation) for name, annotation in annotations.items()}
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=annotations[field.name],
        )
        for field in fields(DatasetOptions)
        if field.name not in without
    ]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**arguments: Any) -> None:
            values = {option.name: arguments.pop(option.name) for option in parameters}
            command(**arguments, options=DatasetOptions(**values))

        run.__signature__ = expand_parameter(command, "options", parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _of_table(annotation: Any) -> Any:
    """Return the annotation of an option with a help that is not about other data sets."""
    (option,) = annotation.__metadata__
    option = copy(option)
    if option.rich_help_panel == _PANEL:
        text = option.help.removeprefix("csv: ").partition("; phantom:")[0].removesuffix(".") + "."
        option.help, option.rich_help_panel = text[0].upper() + text[1:], "Options of the table"
    return Annotated[annotation.__origin__, option]


def load_dataset(
    dataset: str | None,
    data_root: Path | None,
    options: DatasetOptions,
    *,
    quiet: bool,
    require_images: bool = True,
) -> "Dataset":
    """Load the data set that the options select; show a progress bar if that takes long.

    Args:
        dataset: Name of a data set; None recognizes it from its root.
        data_root: Its folder or file; None for the default.
        options: Options of its loader.
        quiet: Hide the progress bar.
        require_images: See ``featurecache.load_dataset``.
    """
    from featurecache.datasets import load

    if dataset is None and data_root is not None:
        has_labels = bool(options.label_column or options.multilabel_column or options.class_column)
        dataset = load.recognize_dataset(data_root, {"labels": None} if has_labels else None)
        print_status(f"data set {dataset}, recognized from {data_root}")
    elif dataset is None:
        dataset = DEFAULT_DATASET
        print_status(f"data set {dataset} (the default)")
    with _loading_progress(dataset, hidden=quiet) as progress:
        return load.load_dataset(
            dataset,
            data_root,
            name=options.name,
            follow_links=options.follow_links is not False,
            pseudonymize=options.pseudonymize,
            corrections=options.corrections,
            only_labels=options.only_labels or None,
            require_images=require_images,
            progress=progress,
            **options.for_loader(dataset),
        )


def load_dataset_again(
    source: "Source | None",
    dataset: str | None,
    data_root: Path | None,
    options: DatasetOptions,
    *,
    used_by: Path,
    quiet: bool,
) -> "Dataset":
    """Load the data set that a cache or run was made from.

    Args:
        source: How it was loaded then; options that the user gives replace it one by one.
        dataset: Name of the data set; another one than then replaces everything.
        data_root: See ``load_dataset``.
        options: See ``load_dataset``.
        used_by: The cache or run, for messages.
        quiet: See ``load_dataset``.
    """
    from featurecache.datasets.load import load_source

    is_known = source is not None and dataset in (None, source["dataset"])
    if not is_known and (dataset, data_root) != (None, None):
        return load_dataset(dataset, data_root, options, quiet=quiet)
    given = {} if source is None else options.for_loader(source["dataset"])
    if options.name is not None:
        given["name"] = options.name
    if options.only_labels:
        given["only_labels"] = options.only_labels
    with _loading_progress(source and source["dataset"], hidden=quiet) as progress:
        return load_source(
            source,
            data_root,
            used_by=str(used_by),
            pseudonymize=options.pseudonymize,
            progress=progress,
            **given,
        )


@contextmanager
def _loading_progress(dataset: str | None, *, hidden: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback that shows a progress bar once it is called."""
    task = "generate images" if dataset == "phantom" else "read DICOM headers"
    with ExitStack() as stack:
        bar: Progress | None = None

        def progress(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = stack.enter_context(progress_bar(hidden=hidden))
                bar.add_task(task, total=total, detail="")
            bar.update(bar.task_ids[0], completed=done)

        yield progress
