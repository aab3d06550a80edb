"""The options that say which films are meant; every command that reads films takes them."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from featurecache.cli.output import progress_bar
from featurecache.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from featurecache.datasets.dataset import Dataset

_PANEL = "Options of single data sets"


def _option(help_text: str) -> Any:
    return typer.Option(help=help_text, rich_help_panel=_PANEL)


DEFAULT_DATASET = "phantom"

DatasetName = Annotated[str, typer.Option(help="Data set. See 'featurecache datasets'.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="The data set's folder (for csv: its file), or one that holds it under its name; "
        "$FEATURECACHE_DATA/NAME without it. phantom is generated, in a folder that does not "
        "exist yet or, by default, in the user's cache.",
        metavar="DIR",
    ),
]


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """How a data set is read; each data set refuses what it does not take.

    A command has them as its parameter ``options`` and is decorated with
    ``takes_dataset_options``.
    """

    split: Annotated[
        str | None,
        _option(
            "nih, phantom: auto, official or patient; kermany: official, published (nothing left "
            "out, for an audit) or image-level-1967-493-616."
        ),
    ] = None
    subset: Annotated[str | None, _option("kermany: all or viral.")] = None
    n_images: Annotated[int | None, _option("phantom: number of images; default 600.")] = None
    dataset_seed: Annotated[
        int | None, _option("Seed of a split that is drawn; phantom: of everything.")
    ] = None
    path_column: Annotated[str | None, _option("csv: column of paths.")] = None
    label_column: Annotated[
        list[str] | None,
        _option("csv: column of one label (1, 0, -1 or empty); give it again for more."),
    ] = None
    multilabel_column: Annotated[str | None, _option("csv: column of labels joined by '|'.")] = None
    id_column: Annotated[str | None, _option("csv: column of ids.")] = None
    patient_column: Annotated[str | None, _option("csv: column of patients.")] = None
    split_column: Annotated[str | None, _option("csv: column of splits.")] = None
    view_column: Annotated[str | None, _option("csv: column of views.")] = None
    sex_column: Annotated[str | None, _option("csv: column of sexes.")] = None
    age_column: Annotated[str | None, _option("csv: column of ages in years.")] = None
    images_root: Annotated[
        Path | None, _option("csv: folder that the paths start from, if not the CSV's.")
    ] = None
    pseudonymize: Annotated[
        Path | None,
        typer.Option(
            help="Put hashes in place of ids and patients, keyed with this file's bytes, in all "
            "that is written; give the same file wherever the data set is read again.",
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
    """Show typer the fields of a command's ``DatasetOptions`` as options, one for each field.

    Args:
        without: fields that this command does not offer.
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
    dataset: str, data_root: Path | None, options: DatasetOptions, *, quiet: bool
) -> "Dataset":
    """Load the data set that the options select, with a progress bar while it is generated.

    Args:
        dataset: Name of a data set.
        data_root: Its folder or file; None for the default.
        options: How the data set is read.
        quiet: Show no progress bar.
    """
    from featurecache.datasets import load

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
