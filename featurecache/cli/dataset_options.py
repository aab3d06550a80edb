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
        help="The data set's folder (for table: its CSV), or one that holds it under its name; "
        "$FEATURECACHE_DATA/NAME without it. phantom is drawn, into a folder that does not exist "
        "yet or, without it, into the user's cache.",
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
    n_images: Annotated[int | None, _option("phantom: how many films to draw; 600 without it.")] = (
        None
    )
    dataset_seed: Annotated[
        int | None, _option("Seed of a split that is drawn; phantom: of everything.")
    ] = None
    path_column: Annotated[str | None, _option("table: column of paths.")] = None
    label_column: Annotated[
        list[str] | None,
        _option("table: column of one label (1, 0, -1 or empty); give it again for more."),
    ] = None
    multilabel_column: Annotated[str | None, _option("table: column of labels joined by '|'.")] = (
        None
    )
    id_column: Annotated[str | None, _option("table: column of ids.")] = None
    patient_column: Annotated[str | None, _option("table: column of patients.")] = None
    split_column: Annotated[str | None, _option("table: column of splits.")] = None
    view_column: Annotated[str | None, _option("table: column of views.")] = None
    sex_column: Annotated[str | None, _option("table: column of sexes.")] = None
    age_column: Annotated[str | None, _option("table: column of ages in years.")] = None
    images_root: Annotated[
        Path | None, _option("table: folder that the paths start from, if not the CSV's.")
    ] = None
    pseudonymize: Annotated[
        Path | None,
        typer.Option(
            help="Put hashes in place of ids and patients, keyed with this file's bytes, in all "
            "that is written; give the same file wherever the data set is read again.",
            metavar="KEYFILE",
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """The loader's options that were given, under the names that it has for them."""
        options = {
            _LOADERS_NAME.get(field.name, field.name): getattr(self, field.name)
            for field in fields(self)
            if field.name != "pseudonymize"
        }
        return {name: value for name, value in options.items() if value not in (None, [])}


_LOADERS_NAME: Final = {
    "dataset_seed": "seed",
    "label_column": "label_columns",
    "images_root": "root",
    "n_images": "images",
}
"""Options that a loader takes too, where it has another name for them."""


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


def read_manifest(
    dataset: str, data_root: Path | None, options: DatasetOptions, *, quiet: bool
) -> "Dataset":
    """Load the data set that the options name."""
    from featurecache.datasets.pseudonymize import pseudonymize, read_key, redact_errors
    from featurecache.datasets.registry import find_root, load_dataset

    given = options.given()
    key = None if options.pseudonymize is None else read_key(options.pseudonymize)
    with _drawing(hidden=quiet) as progress:
        root = find_root(dataset, data_root, progress=progress, **given)
    if key is None:
        return load_dataset(dataset, root, **given)
    with redact_errors(dataset):
        return pseudonymize(load_dataset(dataset, root, **given), key)


@contextmanager
def _drawing(*, hidden: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears with the first film drawn: where nothing is drawn, nothing is shown."""
    with ExitStack() as shown:
        bar: Progress | None = None

        def progress(drawn: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = shown.enter_context(progress_bar(hidden=hidden))
                bar.add_task("draw films", total=total, detail="")
            bar.update(bar.task_ids[0], completed=drawn)

        yield progress
