"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featurecache.errors import CacheError

if TYPE_CHECKING:
    from featurecache.store.reader import Cache

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
    """A cache, or several joined, and how to call it in the first line of the output.

    Raises:
        CacheError: there is none, or they do not go together.
    """
    from featurecache.store.concat import concat_caches
    from featurecache.store.reader import read_cache

    chosen = [choose_cache(path) for path in given or [Path("cache")]]
    called = [f"{path}{' (the newest)' if newest else ''}" for path, newest in chosen]
    return concat_caches([read_cache(path) for path, _ in chosen]), " and ".join(called)


def choose_cache(given: Path) -> tuple[Path, bool]:
    """A cache file, and whether it was chosen as the newest of a folder, where shards do not count.

    Raises:
        CacheError: there is none.
    """
    from featurecache.store.merge import shard_of

    if not given.is_dir():
        return given, False
    found = sorted(given.rglob("*.h5"), key=lambda path: path.stat().st_mtime_ns)
    finished = [path for path in found if not path.parent.name.endswith(".parts")]
    whole = [path for path in finished if shard_of(path) is None]
    if not whole:
        how = (
            "put its shards together with 'featurecache cache merge'"
            if finished
            else "make one with 'featurecache extract'"
        )
        raise CacheError(f"no whole cache in {given}: {how}, or give --cache FILE")
    return whole[-1], True
