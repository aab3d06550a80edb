"""``runs ls``, ``push``, ``pull``: manage runs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.errors import with_exit_code
from featurecache.cli.output import Json, print_json, print_result, print_table, with_interval
from featurecache.cli.push_options import (
    KeepIds,
    Key,
    Permission,
    Public,
    Repository,
    Revision,
    Yes,
    print_push,
)
from featurecache.cli.strict_command import StrictCommand
from featurecache.wording import UNDEFINED

app = typer.Typer(help="List, push and pull runs.", no_args_is_help=True)


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


@app.command("push", cls=StrictCommand)
@with_exit_code
def push(
    repo_id: Repository,
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    yes: Yes = False,
    keep_ids: KeepIds = False,
    key: Key = None,
    permission: Permission = None,
    public: Public = False,
    json: Json = False,
) -> None:
    """Send a run to the Hugging Face hub, with pseudonyms for ids and without paths.

    Without --yes, nothing is sent, and what would be is printed.

    Example: featurecache runs push my-lab/kermany-linear runs/kermany-tiny-linear
    """
    import featurecache as fc

    print_push(
        fc.push_run(
            run,
            repo_id,
            yes=yes,
            keep_ids=keep_ids,
            key=key,
            permission=permission,
            public=public,
        ),
        json=json,
    )


@app.command("pull", cls=StrictCommand)
@with_exit_code
def pull(
    repo_id: Repository,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to create. Default: runs/NAME, as the run was called.", metavar="DIR"
        ),
    ] = None,
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Fetch a run that was sent to the Hugging Face hub.

    Example: featurecache runs pull my-lab/kermany-linear
    """
    import featurecache as fc

    run = fc.pull_run(repo_id, out, revision=revision)
    if json:
        print_json({"run": str(run.path), "kind": run.kind})
        return
    print_result(f"{run.path}: {run.kind} run on {run.dataset_name} by {run.model_name}")
