"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from featurecache.store.cache import Cache

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
CacheFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--cache",
        envvar="FEATURECACHE_CACHE",
        help="A cache file, or a folder of caches: then the newest one in it. Give it again to "
        "join caches of the same films.",
        metavar="FILE",
        show_default="cache",
    ),
]
Fusion = Annotated[
    str,
    typer.Option(
        help="Of several caches: features trains one head on their embeddings side by side, logits "
        "one on each and takes the mean of their logits."
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


def open_caches(given: list[Path] | None) -> "tuple[Cache, str]":
    """Open the given caches side by side, and describe them for the first line of the output.

    Raises:
        CacheError: There is none, or they do not go together.
    """
    from featurecache.store.open import open_cache

    paths = given or [Path("cache")]
    cache = open_cache(paths)
    chosen = [
        f"{member.path}{' (the newest)' if path.is_dir() else ''}"
        for path, member in zip(paths, cache.members, strict=True)
    ]
    return cache, " and ".join(chosen)


def choose_cache(given: Path) -> tuple[Path, bool]:
    """Return a cache file, and whether it was chosen as the newest of a folder.

    Raises:
        CacheError: There is none.
    """
    from featurecache.store.open import newest_cache

    return (newest_cache(given), True) if given.is_dir() else (given, False)
