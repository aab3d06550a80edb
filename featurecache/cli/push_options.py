"""Options and output of ``cache push`` and ``runs push``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featurecache.cli.output import print_json, print_result, print_status, print_table
from featurecache.wording import count_noun, format_size

if TYPE_CHECKING:
    from featurecache.sharing.push import Push

Repository = Annotated[
    str, typer.Argument(help="Repository on the Hugging Face hub.", metavar="ORG/NAME")
]
Yes = Annotated[
    bool, typer.Option("--yes", help="Send it, instead of only printing what would be sent.")
]
KeepIds = Annotated[
    bool,
    typer.Option(
        "--keep-ids", help="Keep ids of images, patients and studies, and hashes of the files."
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        help="File with the key of the pseudonyms. Default: one in ~/.local/share/featurecache, "
        "which is created when it is first needed.",
        metavar="KEYFILE",
    ),
]
Permission = Annotated[
    str | None,
    typer.Option(
        help="Who permits sharing, and where that is documented, for a data set whose terms forbid "
        "it; the card of the repository quotes it.",
        metavar="TEXT",
    ),
]
Public = Annotated[
    bool,
    typer.Option("--public", help="Make a new repository public. Default: private."),
]
Revision = Annotated[
    str | None,
    typer.Option(help="Branch, tag or commit. Default: the newest.", metavar="REVISION"),
]


def print_push(push: "Push", *, json: bool) -> None:
    """Print what was sent, or would be."""
    if json:
        print_json({**asdict(push), "bytes": push.bytes})
        return
    print_table(
        push.repo_id,
        ["file", "size"],
        [[name, format_size(size)] for name, size in push.files.items()],
    )
    if push.left_out:
        print_result(f"not sent: {', '.join(push.left_out)}")
    print_result(f"ids: {push.ids}")
    for line in push.terms:
        print_result(f"terms: {line}")
    total = f"{count_noun(len(push.files), 'file')}, {format_size(push.bytes)}"
    if push.url is not None:
        print_result(f"{push.url}: sent {push.name} ({total})")
    else:
        visibility = "public" if push.public else "private"
        print_status(
            f"nothing was sent: --yes sends {total} to {push.repo_id}, {visibility} if it is new"
        )
