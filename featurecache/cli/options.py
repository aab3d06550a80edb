"""Options that several commands share."""

from collections.abc import Sequence
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
        help="A cache file, or a folder of caches, of which the newest is used.",
        metavar="FILE",
    ),
]
CacheFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--cache",
        envvar="FEATURECACHE_CACHE",
        help="A cache file, or a folder of caches, of which the newest is used. Repeat to join "
        "caches of the same images.",
        metavar="FILE",
        show_default="cache",
    ),
]
Device = Annotated[str, typer.Option(help="Where the encoder runs: auto, cpu, cuda or mps.")]
Prompts = Annotated[
    str | None,
    typer.Option(help="Prompt set in the cache; needed only where it holds several."),
]
AlignmentFile = Annotated[
    Path | None,
    typer.Option(
        "--alignment",
        help="Alignment file of 'featurecache align', for a model whose images and texts do not "
        "share a space.",
        metavar="FILE",
    ),
]
NBootstrap = Annotated[
    int, typer.Option(help="Bootstrap samples over patients for the intervals; 0 for none.", min=0)
]
OptionalRun = Annotated[
    Path | None,
    typer.Option("--out", help="Run folder to create; by default none.", metavar="DIR"),
]


def describe_choice(given: Path | Sequence[Path], cache: "Cache") -> str:
    """Return the files of an opened cache, and which were chosen as the newest of a folder."""
    paths = [given] if isinstance(given, Path) else given
    return " and ".join(
        f"{member.path}{' (the newest)' if path.is_dir() else ''}"
        for path, member in zip(paths, cache.members, strict=True)
    )


def require_free(out: Path | None) -> None:
    """Check that a folder to create does not exist yet, before any work is done.

    Raises:
        UsageError: It exists.
    """
    from featurecache.io.atomic import require_absent

    if out is not None:
        require_absent(out)


def open_caches(given: list[Path] | None) -> "tuple[Cache, str]":
    """Open caches, and describe which they are."""
    import featurecache as fc

    paths = given or [Path("cache")]
    cache = fc.open_cache(paths)
    return cache, describe_choice(paths, cache)


def choose_cache(given: Path) -> tuple[Path, bool]:
    """Return a cache file, and whether it was chosen as the newest of a folder."""
    from featurecache.store.open import newest_cache

    return (newest_cache(given), True) if given.is_dir() else (given, False)


Draws = NBootstrap
Fusion = Annotated[
    str,
    typer.Option(
        help="early: one head on concatenated features of several "
        "caches; late: one head on each, and the mean of their logits."
    ),
]
