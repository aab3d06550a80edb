"""``explore``: look at a cache and at runs in the browser."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.errors import FeaturecacheError, FeaturecacheWarning, UsageError
from featurecache.evaluation.comparison import scored_images
from featurecache.evaluation.from_cache import find_cache
from featurecache.explore import server
from featurecache.explore.table import explorer_table
from featurecache.extraction.source import as_dataset, cached_files
from featurecache.progress import DetailedProgress
from featurecache.retrieval.query import add_metadata, search
from featurecache.runs.run import Run, as_run, displayed_names
from featurecache.store.cache import Cache
from featurecache.store.open import CacheLike, open_cache

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder
    from featurecache.extraction.source import DatasetLike

StrPath = str | os.PathLike[str]


def explore(
    cache: CacheLike | None = None,
    runs: "Run | StrPath | Sequence[Run | StrPath]" = (),
    *,
    data: "DatasetLike | None" = None,
    text: str | None = None,
    image: StrPath | None = None,
    prompts: str | None = None,
    names: Mapping[str, str] | None = None,
    model: "Encoder | StrPath | None" = None,
    weights: StrPath | None = None,
    device: str = "auto",
    port: int = 0,
    browser: bool = True,
    announce: Callable[[str], None] = print,
    progress: DetailedProgress | None = None,
) -> None:
    """Show a cache, and what runs predict for its images, in the browser until interrupted.

    The page is Apple's Embedding Atlas (the extra ``explore``): a map of the images by the first
    two principal components of their embeddings, which can be colored and filtered by every column
    of ``explorer_table``, the nearest images of an image, and lists that can be saved as CSV. It is
    served to this machine only, and requests nothing from the network. Images are read from the
    local disk when they are displayed.

    Example:
        >>> import featurecache as fc
        >>> fc.explore("cache/phantom/tiny.h5")  # doctest: +SKIP
        http://127.0.0.1:40001/1dLR_B5D3zzmmKPyt1SO7A/

    Args:
        cache: A cache, its path, or a folder of caches, of which the newest is opened. By default
            the cache that the first run was made from.
        runs: Runs that predicted labels of images of the cache, or their folders.
        data: The data set of the cache, anything that ``load_dataset`` takes, where its files have
            moved or its ids are pseudonymized. Its ``metadata`` become columns.
        text: Add the column ``cosine with text``: of each image with this text.
        image: Add the column ``cosine with image``: of each image with this image file, or image
            of the cache.
        prompts: Prompt set that images are compared with; by default all of the cache.
        names: What to call runs, by their name or folder.
        model: See ``retrieve``.
        weights: See ``retrieve``.
        device: See ``retrieve``.
        port: Port that the explorer listens on; 0 for any that is free.
        browser: Open the page in the browser.
        announce: Called with the address of the page.
        progress: Called while images are compared.

    Raises:
        UsageError: The explorer is not installed, there is neither a cache nor a run, the port is
            in use, or a run scored none of the images.
        CacheError: The cache is missing or damaged, or the cache of a run is not where it was.
        FeaturecacheError: See ``retrieve``, for ``text`` and ``image``.
    """
    server.require_explorer()
    loaded = [as_run(run) for run in _as_list(runs)]
    opened = cache_to_explore(cache, loaded)
    displayed = displayed_names([run.name for run in loaded], [run.path for run in loaded], names)
    scored = [
        replace(scored_images(run), name=name) for run, name in zip(loaded, displayed, strict=True)
    ]
    dataset, files = _dataset_and_files(opened, data)
    table = explorer_table(opened, scored, prompts=prompts, progress=progress)
    if dataset is not None:
        table = add_metadata(table, dataset)
    for query in ({"text": text}, {"image": image}):
        ((kind, value),) = query.items()
        if value is not None:
            found = search(
                opened, **query, top=len(opened), model=model, weights=weights, device=device
            )
            cosines = dict.fromkeys(found.copies, 1.0)
            cosines |= zip(found.images["id"], found.images["cosine"], strict=True)
            table[f"cosine with {kind}"] = table["id"].map(cosines)
    server.serve(
        table,
        files,
        text="labels" if opened.labels.names else "id",
        bit_depth=opened.header.bit_depth,
        port=port,
        browser=browser,
        announce=announce,
    )


def _as_list(runs: "Run | StrPath | Sequence[Run | StrPath]") -> "Sequence[Run | StrPath]":
    return [runs] if isinstance(runs, (Run, str, os.PathLike)) else runs


def cache_to_explore(cache: CacheLike | None, runs: Sequence[Run]) -> Cache:
    """Open the given cache, or that of the first run, with its label policy and its units.

    Raises:
        UsageError: There is neither, the run was not made from a cache, or it joined the scores of
            the images of studies.
        CacheError: The cache is missing or damaged, or is not where it was for the run.
    """
    if cache is not None:
        return open_cache(cache)
    if not runs:
        raise UsageError("there is nothing to show: give `cache` or `runs`")
    run = runs[0]
    if "cache" not in run.config:
        raise UsageError(
            f"{run.name} was not made from a cache: give as `cache` one of the images that it "
            "scored"
        )
    if run.units.study_scores is not None:
        raise UsageError(
            f"{run.name} joined the scores of the images of studies, which have no embeddings to "
            "show: give a run of images, or one with `study_features`"
        )
    return open_cache(
        find_cache(run.config["cache"], argument="cache"),
        **run.label_policy,
        **run.units.chosen,
    )


def _dataset_and_files(
    cache: Cache, data: "DatasetLike | None"
) -> "tuple[Dataset | None, Mapping[str, Path]]":
    """Return the data set of a cache and the files of its images; None and {} where unknown."""
    if data is not None:
        dataset = as_dataset(data)
        return dataset, cached_files(cache, dataset)
    try:
        dataset = as_dataset(cache)
        return dataset, cached_files(cache, dataset)
    except FeaturecacheError as error:
        warnings.warn(f"images are not shown: {error}", FeaturecacheWarning, stacklevel=3)
        return None, {}
