"""``doctor``: check whether this machine is ready."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import CacheFolder
from featurecache.cli.output import Json, print_json, print_table


def doctor(
    cache: CacheFolder = Path("cache"),
    n_images: Annotated[
        int | None,
        typer.Option(help="Number of images to check the disk space for.", metavar="N", min=1),
    ] = None,
    json: Json = False,
) -> None:
    """Check this machine: libraries, hardware, disk, models, data sets and network.

    The exit code is 1 if there is a problem.

    Example: featurecache doctor --n-images 112120
    """
    from dataclasses import asdict

    from featurecache.doctor import check_machine

    checks = list(check_machine(cache, n_images=n_images))
    if json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(
            "",
            ["check", "state", "result", "advice"],
            [[check.subject, check.state, check.result, check.advice] for check in checks],
            prose=("check", "result", "advice"),
        )
    if any(check.state == "problem" for check in checks):
        raise typer.Exit(1)
