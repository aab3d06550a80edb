"""The whole audit of a cache, as one document."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featurecache.audit.label_support import label_support
from featurecache.audit.leakage import (
    identical_files_across_splits,
    knows_patients,
    learned_images,
    shared_patients,
)
from featurecache.audit.near_duplicates import NEIGHBOURS, Progress, near_duplicates
from featurecache.audit.shortcuts import shortcut_probes
from featurecache.datasets.splits import SPLITS
from featurecache.store.cache import Cache


def audit(
    cache: Cache,
    films: Mapping[str, Path] | None = None,
    *,
    neighbours: int = NEIGHBOURS,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Look for what would make scores on a data set untrue.

    Args:
        cache: of the data set, by any encoder.
        films: file of each image by its id, to confirm near-identical films on pixels; None
            leaves them unconfirmed.
        neighbours: how many of each image's nearest in other splits are compared with it.
        n_bootstrap: number of bootstrap samples over patients.
        seed: of folds and draws.
        progress: called while films are read and compared.

    Returns:
        The document of ``featurecache audit --json``. Undefined is None.

    Raises:
        UsageError: ``films`` lacks an image of the cache.
        ValueError: an embedding has no direction.
    """
    counts = {split: int((cache.splits == split).sum()) for split in SPLITS}
    return {
        "dataset": cache.header.dataset,
        "model": cache.header.model,
        "n": len(cache.images),
        "n_patients": len(np.unique(cache.patients)) if knows_patients(cache) else None,
        "splits": {split: count for split, count in counts.items() if count},
        "shared_patients": shared_patients(cache),
        "learned_images": learned_images(cache),
        "identical_files_across_splits": identical_files_across_splits(cache),
        "near_duplicates": near_duplicates(cache, films, neighbours=neighbours, progress=progress),
        "readability": shortcut_probes(cache, n_bootstrap=n_bootstrap, seed=seed),
        "labels": label_support(cache),
    }
