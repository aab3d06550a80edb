"""The options that say which films are meant; ``extract`` and ``finetune`` share them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurecache.cli.output import progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress

    from featurecache.datasets.manifest import Manifest

_PANEL = "Options of single data sets"


def _option(help_text: str) -> Any:
    return typer.Option(help=help_text, rich_help_panel=_PANEL)


DEFAULT_DATASET = "phantom"

Dataset = Annotated[str, typer.Option(help="Data set. See 'featurecache datasets'.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="The data set's folder (for table: its CSV), or one that holds it under its name; "
        "$FEATURECACHE_DATA/NAME without it. phantom is drawn, into a folder that does not exist "
        "yet or, without it, into the user's cache.",
        metavar="DIR",
    ),
]
Split = Annotated[
    str | None,
    _option(
        "nih, phantom: auto, official or patient; kermany: official, published (nothing left out, "
        "for an audit) or image-level-1967-493-616."
    ),
]
Images = Annotated[int | None, _option("phantom: how many films to draw; 600 without it.")]
Subset = Annotated[str | None, _option("kermany: all or viral.")]
SplitSeed = Annotated[int | None, _option("Seed of a split that is drawn; phantom: of everything.")]
PathColumn = Annotated[str | None, _option("table: column of paths.")]
LabelColumn = Annotated[
    list[str] | None,
    _option("table: column of one label (1, 0, -1 or empty); give it again for more."),
]
LabelsColumn = Annotated[str | None, _option("table: column of labels joined by '|'.")]
IdColumn = Annotated[str | None, _option("table: column of ids.")]
PatientColumn = Annotated[str | None, _option("table: column of patients.")]
SplitColumn = Annotated[str | None, _option("table: column of splits.")]
ViewColumn = Annotated[str | None, _option("table: column of views.")]
SexColumn = Annotated[str | None, _option("table: column of sexes.")]
AgeColumn = Annotated[str | None, _option("table: column of ages in years.")]
ImagesRoot = Annotated[
    Path | None, _option("table: folder that the paths start from, if not the CSV's.")
]


def read_manifest(
    dataset: str, data_root: Path | None, *, quiet: bool, **options: Any
) -> "Manifest":
    """Load the data set that the options name; an option that was not given is None or empty."""
    from featurecache.datasets.registry import find_root, load_dataset

    given = {name: value for name, value in options.items() if value not in (None, [])}
    with _drawing(hidden=quiet) as progress:
        root = find_root(dataset, data_root, progress=progress, **given)
    return load_dataset(dataset, root, **given)


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
