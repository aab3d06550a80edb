"""``runs ls``: list runs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.errors import with_exit_code
from featurecache.cli.output import Json, print_json, print_table, with_interval
from featurecache.cli.strict_command import StrictCommand
from featurecache.wording import UNDEFINED

app = typer.Typer(help="List runs.", no_args_is_help=True)


@app.callback()
def runs() -> None:
    """List runs."""


@app.command("ls", cls=StrictCommand)
@with_exit_code
def ls(
    folder: Annotated[Path, typer.Argument(help="Folder of run folders.", metavar="DIR")] = Path(
        "runs"
    ),
    json: Json = False,
) -> None:
    """List the runs in a folder: head, data set, encoder, and macro AUROC with its interval.

    Example: featurecache runs ls
    """
    from featurecache.runs.describe import list_runs

    entries = list_runs(folder)
    if json:
        print_json([{**asdict(entry), "path": str(entry.path)} for entry in entries])
        return
    print_table(
        f"Runs in {folder}/",
        ["run", "macro AUROC", "kind", "head", "data set", "encoder", "problem"],
        [
            [
                str(entry.path),
                with_interval(entry.auroc, entry.auroc_ci),
                *(
                    text or UNDEFINED
                    for text in (entry.kind, entry.method, entry.dataset, entry.model)
                ),
                entry.problem or UNDEFINED,
            ]
            for entry in entries
        ],
        optional=3,
        prose=("problem",),
    )
