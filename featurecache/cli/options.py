"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.errors import CacheError

DEFAULT_MODEL = "tiny"

CacheFolder = Annotated[
    Path,
    typer.Option("--cache", envvar="FEATURECACHE_CACHE", help="Folder of caches.", metavar="DIR"),
]
CacheFile = Annotated[
    Path,
    typer.Option(
        "--cache",
        envvar="FEATURECACHE_CACHE",
        help="A cache file, or a folder of caches: then the newest one in it.",
        metavar="FILE",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Prompts = Annotated[
    str | None,
    typer.Option(help="Prompt set in the cache; needed only where it holds several."),
]
AlignmentFile = Annotated[
    Path | None,
    typer.Option(
        "--alignment",
        help="What 'featurecache align' made, for a model whose images and texts share no space.",
        metavar="FILE",
    ),
]
Draws = Annotated[int, typer.Option(help="Bootstrap draws for the intervals; 0 for none.", min=0)]
OptionalRun = Annotated[
    Path | None,
    typer.Option("--out", help="Run folder to make; none without it.", metavar="DIR"),
]


def choose_cache(given: Path) -> tuple[Path, bool]:
    """A cache file, and whether it was chosen as the newest of a folder.

    Raises:
        CacheError: there is none.
    """
    if not given.is_dir():
        return given, False
    found = sorted(given.rglob("*.h5"), key=lambda path: path.stat().st_mtime_ns)
    finished = [path for path in found if not path.parent.name.endswith(".parts")]
    if not finished:
        raise CacheError(
            f"no cache in {given}: make one with 'featurecache extract', or give --cache FILE"
        )
    return finished[-1], True
