"""``doctor``: is this machine ready?"""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import CacheFolder
from featurecache.cli.output import Json, print_json, print_table


def doctor(
    cache: CacheFolder = Path("cache"),
    n_images: Annotated[
        int | None,
        typer.Option(help="Whether the disk has room for a cache of N images.", metavar="N", min=1),
    ] = None,
    json: Json = False,
) -> None:
    """Say what is installed, what this machine is fast at, and which models and data are at hand.

    Exits with 1 where something stops work.

    Example: featurecache doctor --n-images 112120
    """
    from dataclasses import asdict

    from featurecache.doctor import examine

    findings = list(examine(cache, images=n_images))
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(
            "",
            ["", "", "found", "advice"],
            [[one.subject, one.state, one.found, one.advice] for one in findings],
        )
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
