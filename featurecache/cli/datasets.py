"""``datasets``: list the data sets that can be loaded by name, and describe one."""

from typing import Annotated, Any

import typer

from featurecache.cli.dataset_options import (
    DataRoot,
    DatasetOptions,
    load_dataset,
    takes_dataset_options,
)
from featurecache.cli.errors import with_exit_code
from featurecache.cli.listing import Listing
from featurecache.cli.option_names import running, with_option_names
from featurecache.cli.options import print_policy
from featurecache.cli.output import (
    Json,
    format_known,
    join_counts,
    label_rows,
    print_json,
    print_result,
    print_table,
)
from featurecache.cli.strict_command import StrictCommand
from featurecache.cli.train_head import train_head
from featurecache.plugins import load_entry_points
from featurecache.wording import count_noun


class _Datasets(Listing):
    describing = "describe"


app = typer.Typer(cls=_Datasets, invoke_without_command=True)


@app.callback()
@with_exit_code
def datasets(context: typer.Context, json: Json = False) -> None:
    """List the data sets that --dataset accepts, or describe one.

    Example: featurecache datasets
    """
    from featurecache.datasets.registry import DATASETS

    if context.invoked_subcommand is not None:
        if json:
            raise typer.BadParameter(f"give it after {context.invoked_subcommand}")
        return
    load_entry_points()
    rows = [[spec.name, spec.description, spec.terms] for spec in DATASETS.values()]
    columns = ["name", "description", "terms"]
    if json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    print_table("Data sets", columns, rows, prose=("description", "terms"))


@app.command("describe", cls=StrictCommand)
@with_exit_code
@takes_dataset_options(without=("metadata_column",))
def describe(
    *,
    dataset: Annotated[
        str | None,
        typer.Argument(
            help="Name of the data set. Default: recognized from --data-root.", metavar="NAME"
        ),
    ] = None,
    data_root: DataRoot = None,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Count images, patients, studies, views, splits, and the cells of each label.

    No image is read: for a data set that is listed in tables, these are enough.

    Example: featurecache datasets describe nih --data-root DIR
    """
    data = load_dataset(dataset, data_root, options, quiet=json, require_images=False)
    document = data.describe()
    if json:
        print_json(document)
        return
    print_table(
        "",
        ["field", "value"],
        [
            ["data set", document["dataset"]],
            ["root", document["root"]],
            ["images", f"{document['on_disk']:,} of {document['images']:,} on disk"],
            *([name, format_known(document[name])] for name in ("patients", "studies")),
            *([name, join_counts(document[name])] for name in ("views", "splits", "excluded")),
            *([["boxes", _describe_boxes(document["boxes"])]] if document["boxes"] else []),
            *(["note", with_option_names(note)] for note in document["notes"]),
        ],
        prose=("value",),
    )
    with running(train_head):  # This command has no options for the policy.
        print_policy(data)
    if not document["labels"]:
        print_result("no labels")
        return
    print_table(
        "Labels",
        *label_rows(document["labels"]),
    )


def _describe_boxes(boxes: dict[str, Any]) -> str:
    images = count_noun(boxes["images"], "image")
    return f"{boxes['boxes']:,} on {images}: {join_counts(boxes['labels'])}"
