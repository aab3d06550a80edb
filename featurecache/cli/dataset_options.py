"""Options that select a data set, shared by all commands that read images."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from featurecache.cli.output import print_status, progress_bar
from featurecache.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from featurecache.datasets.dataset import Dataset

_PANEL = "Options of single data sets"


def _option(help_text: str) -> Any:
    return typer.Option(help=help_text, rich_help_panel=_PANEL)


DEFAULT_DATASET = "phantom"

DatasetName = Annotated[
    str | None,
    typer.Option(
        help="Data set: a name from 'featurecache datasets'. By default it is recognized from "
        f"--data-root; without that, it is {DEFAULT_DATASET}."
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the data set, any folder of images sorted by class, or a CSV or TSV file. "
        "With --dataset also a folder that contains it under its name; default "
        "$FEATURECACHE_DATA/NAME. phantom is generated in a folder that does not exist yet or, by "
        "default, in the user's cache.",
        metavar="PATH",
    ),
]


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """Options of the loaders; a data set refuses those that it does not take.

    A command takes them as its parameter ``options`` and is decorated with
    ``takes_dataset_options``.
    """

    split: Annotated[
        str | None,
        _option(
            "nih, phantom: auto, official or patient; kermany: official, published (keeps all "
            "images, for an audit) or image-level-1967-493-616."
        ),
    ] = None
    subset: Annotated[str | None, _option("kermany: all or viral.")] = None
    n_images: Annotated[int | None, _option("phantom: number of images; default 600.")] = None
    dataset_seed: Annotated[
        int | None,
        _option("Seed of splits that the data set does not define; phantom: of everything."),
    ] = None
    path_column: Annotated[str | None, _option("csv: column of image paths; default path.")] = None
    label_column: Annotated[
        list[str] | None,
        _option("csv: column of one label (1, 0, -1 or empty); repeat it for more labels."),
    ] = None
    multilabel_column: Annotated[
        str | None, _option("csv: column of positive labels joined by '|'.")
    ] = None
    id_column: Annotated[str | None, _option("csv: column of ids.")] = None
    patient_column: Annotated[str | None, _option("csv: column of patients.")] = None
    split_column: Annotated[str | None, _option("csv: column of splits.")] = None
    view_column: Annotated[str | None, _option("csv: column of views.")] = None
    sex_column: Annotated[str | None, _option("csv: column of sexes.")] = None
    age_column: Annotated[str | None, _option("csv: column of ages in years.")] = None
    images_root: Annotated[
        Path | None,
        _option("csv: folder that the paths are relative to; default the file's folder."),
    ] = None
    pseudonymize: Annotated[
        Path | None,
        typer.Option(
            help="Replace ids and patients by hashes keyed with the bytes of this file in "
            "everything that is written. Use the same file whenever the data set is read.",
            metavar="KEYFILE",
        ),
    ] = None

    def for_loader(self, dataset: str) -> dict[str, Any]:
        """Return the options that were given, by the names that the data set's loader uses.

        Args:
            dataset: Name of the data set.

        Raises:
            UsageError: If an option for CSV files is given for another data set, or the reverse.
        """
        options: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "pseudonymize" or value in (None, []):
                continue
            if field.name in _OTHER_OPTIONS if dataset == "csv" else field.name in _CSV_OPTIONS:
                raise UsageError(f"the data set {dataset} takes no option `{field.name}`")
            options[_CSV_OPTIONS.get(field.name, field.name)] = value
        if "dataset_seed" in options:
            options["seed"] = options.pop("dataset_seed")
        return options


_CSV_OPTIONS: Final = {
    "path_column": "path",
    "label_column": "labels",
    "multilabel_column": "multilabel",
    "id_column": "id",
    "patient_column": "patient",
    "split_column": "split",
    "view_column": "view",
    "sex_column": "sex",
    "age_column": "age",
    "images_root": "images_root",
}
"""Options for CSV files, and the names that ``load_dataset`` has for them."""

_OTHER_OPTIONS: Final = ("split", "subset", "n_images")


def takes_dataset_options(
    *, without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make each field of a command's ``DatasetOptions`` an option of the command.

    Args:
        without: Fields that this command does not offer.
    """
    kinds = get_type_hints(DatasetOptions, include_extras=True)
    offered = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=kinds[field.name],
        )
        for field in fields(DatasetOptions)
        if field.name not in without
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            options = DatasetOptions(**{option.name: given.pop(option.name) for option in offered})
            command(**given, options=options)

        flat: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            flat += offered if parameter.name == "options" else [parameter]
        run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
        return run

    return decorate


def load_dataset(
    dataset: str | None, data_root: Path | None, options: DatasetOptions, *, quiet: bool
) -> "Dataset":
    """Load the data set that the options select, with a progress bar while it is generated.

    Args:
        dataset: Name of a data set; None recognizes it from its root.
        data_root: Its folder or file; None for the default.
        options: Options of the loader.
        quiet: Show no progress bar.
    """
    from featurecache.datasets import load

    if dataset is None and data_root is not None:
        has_labels = bool(options.label_column or options.multilabel_column)
        dataset = load.recognize_dataset(data_root, {"labels": None} if has_labels else None)
        print_status(f"data set {dataset}, recognized from {data_root}")
    elif dataset is None:
        dataset = DEFAULT_DATASET
        print_status(f"data set {dataset} by default")
    with _generation_progress(hidden=quiet) as progress:
        return load.load_dataset(
            dataset,
            data_root,
            pseudonymize=options.pseudonymize,
            progress=progress,
            **options.for_loader(dataset),
        )


@contextmanager
def _generation_progress(*, hidden: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that appears with the first generated image."""
    with ExitStack() as stack:
        bar: Progress | None = None

        def progress(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = stack.enter_context(progress_bar(hidden=hidden))
                bar.add_task("generate images", total=total, detail="")
            bar.update(bar.task_ids[0], completed=done)

        yield progress
