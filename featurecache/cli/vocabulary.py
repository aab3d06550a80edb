"""``vocabulary``: findings, and what each data set calls them."""

from dataclasses import asdict
from typing import Annotated

import typer

from featurecache.cli.output import Json, print_json, print_table
from featurecache.wording import UNDEFINED


def vocabulary(
    dataset: Annotated[
        str | None, typer.Option(help="Only the labels of this data set.", metavar="NAME")
    ] = None,
    json: Json = False,
) -> None:
    """List findings, and the labels of each data set that mean them.

    Labels are the same, kinds of the finding (union), or only similar (near).

    Example: featurecache vocabulary --dataset padchest
    """
    from featurecache import vocabulary

    findings = vocabulary.vocabulary(dataset)
    if json:
        print_json(
            {
                finding: {name: asdict(labels) for name, labels in sets.items()}
                for finding, sets in findings.items()
            }
        )
        return
    print_table(
        "Vocabulary",
        ["finding", "data set", "same", "union", "near"],
        [
            [
                finding,
                name,
                *(
                    ", ".join(names) or UNDEFINED
                    for names in (labels.same, labels.union, labels.near)
                ),
            ]
            for finding, sets in findings.items()
            for name, labels in sets.items()
        ],
        prose=("same", "union", "near"),
    )
