"""The table of an explorer: one row per image, with all that images are colored and filtered by."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.evaluation.comparison import ScoredImages
from featurecache.evaluation.from_cache import cached_rows
from featurecache.metrics.similarity import Directions, normalize_rows, row_chunks
from featurecache.progress import DetailedProgress
from featurecache.store.cache import Cache

if TYPE_CHECKING:
    import pandas as pd

ROW: Final = "__row"
X: Final = "__x"
Y: Final = "__y"
NEIGHBORS: Final = "__neighbors"
"""Columns for the explorer itself, which hides names that begin with "__"."""

N_NEIGHBORS: Final = 10

_BLOCK: Final = 256
"""Images that are compared with all others at a time: 100 MB for 100,000 others."""

_STATES: Final = {1: "positive", 0: "negative"}


def explorer_table(
    cache: Cache,
    scored: Sequence[ScoredImages] = (),
    *,
    prompts: str | None = None,
    progress: DetailedProgress | None = None,
) -> "pd.DataFrame":
    """Return all that is known of each image of a cache.

    Args:
        cache: The cache.
        scored: Predictions of runs on images of the cache, with names of their own.
        prompts: Prompt set that images are compared with; None for all of the cache.
        progress: Called while images are compared.

    Returns:
        One row per image, in the order of the cache, with these columns:

        - ``__row`` (from 0), ``__x`` and ``__y`` (see ``principal_components``) and
          ``__neighbors``, the ``ids`` (rows) and ``distances`` (1 - cosine) of the nearest images;
        - ``id``, ``patient``, ``study``, ``split``, ``view``, ``sex`` and ``age``, where known;
        - ``labels`` (the positive ones, as one text) and one column per label: "positive",
          "negative", or missing where unknown;
        - ``familiarity``, the cosine with the nearest training image (see ``nearest_images``);
        - per prompt set and label, ``LABEL cosine``, of the image with the label's prompts, where
          images and texts share a space;
        - per run and label, ``LABEL probability`` and ``LABEL error``: "none", "false positive" or
          "false negative" at the threshold of the run, missing where the label is unknown.

        Names of several prompt sets and runs are put in front: ``SET: LABEL cosine``. A label with
        the name of another column is called ``NAME (label)``.

    Raises:
        CacheError: An embedding has norm 0, NaN or infinity, or the file is damaged.
        UsageError: A run scored none of the images, or other files under their ids.
        UnknownNameError: There is no prompt set of that name.
    """
    import pandas as pd

    directions = normalize_rows(cache.embedding)
    points = principal_components(directions)
    neighbors, familiarity = nearest_images(cache, directions, progress=progress)
    columns: dict[str, Any] = {
        ROW: np.arange(len(cache)),
        X: points[:, 0],
        Y: points[:, 1],
        NEIGHBORS: neighbors,
    }
    frame = cache.images.to_pandas().dropna(axis="columns", how="all")
    columns |= {str(name): frame[name] for name in frame}
    if cache.labels.names:
        columns["labels"] = _positive_labels(cache)
    if (cache.splits == "train").any():
        columns["familiarity"] = familiarity
    taken = {name.casefold() for name in columns}
    for c, label in enumerate(cache.labels.names):
        name = f"{label} (label)" if label.casefold() in taken else label
        columns[name] = pd.Series(cache.labels.values[:, c]).map(_STATES)
    sets = sorted(cache.prompt_sets) if prompts is None else [prompts]
    for prompt_set in sets:
        texts = cache.text(prompt_set)
        if texts.aligned:
            prefix = f"{prompt_set}: " if len(sets) > 1 else ""
            cosines = directions @ texts.positive.ensemble.T
            for c, label in enumerate(texts.labels):
                columns[f"{prefix}{label} cosine"] = cosines[:, c]
    for run in scored:
        prefix = f"{run.name}: " if len(scored) > 1 else ""
        columns |= {f"{prefix}{name}": values for name, values in _predictions(cache, run).items()}
    return pd.DataFrame(columns)


def principal_components(directions: Directions) -> NDArray[np.float32]:
    """Project embeddings on their first two principal components.

    Unlike maps that are fitted step by step, this one is the same on every machine, takes seconds
    for a million images, and shows distances as they are, as far as two dimensions go.

    Args:
        directions: Embeddings of unit length, (N, D).

    Returns:
        (N, 2); zeros where there are fewer components.
    """
    from sklearn.decomposition import PCA

    points = np.zeros((len(directions), 2), dtype=np.float32)
    n_components = min(2, *directions.shape)
    if len(directions) > 1:
        # Not a randomized solver: signs and values are the same on every machine.
        pca = PCA(n_components, svd_solver="covariance_eigh")
        points[:, :n_components] = pca.fit_transform(directions)
    return points


def nearest_images(
    cache: Cache, directions: Directions, *, progress: DetailedProgress | None = None
) -> tuple[list[dict[str, Any]], NDArray[np.float32]]:
    """Compare each image with all others.

    Args:
        cache: The cache.
        directions: Its embeddings at unit length, (N, D).
        progress: Called while images are compared.

    Returns:
        For each image, the ``ids`` (rows) and ``distances`` (1 - cosine) of the nearest others,
        nearest first; and its familiarity, (N,): the cosine with the most similar training image,
        of another patient if it is one itself, and NaN where there is none. Images that are far
        from all training images are those that a model has not learned from (see Sun et al.,
        "Out-of-distribution detection with deep nearest neighbors", ICML 2022).
    """
    import torch

    n_images = len(directions)
    is_train = cache.splits == "train"
    _, patient = np.unique(cache.images.patient, return_inverse=True)
    embeddings = torch.from_numpy(directions)
    trained, patients = torch.from_numpy(is_train), torch.from_numpy(patient)
    (train_rows,) = torch.nonzero(trained, as_tuple=True)
    neighbors: list[dict[str, Any]] = []
    familiarity = np.full(n_images, np.nan, dtype=np.float32)
    for rows in row_chunks(n_images, _BLOCK):
        cosines = embeddings[rows] @ embeddings.T
        own = torch.arange(len(cosines))
        cosines[own, own + rows.start] = -torch.inf
        near = cosines.topk(min(N_NEIGHBORS, n_images - 1), dim=1)
        distances = (1 - near.values).clamp(min=0).numpy()
        neighbors += [
            {"ids": ids, "distances": distance}
            for ids, distance in zip(near.indices.numpy(), distances, strict=True)
        ]
        if is_train.any():
            to_train = cosines.index_select(1, train_rows)
            same = (patients[rows, None] == patients[train_rows]) & trained[rows, None]
            highest = to_train.masked_fill_(same, -torch.inf).amax(dim=1).numpy()
            familiarity[rows] = np.where(np.isneginf(highest), np.nan, highest)
        if progress is not None:
            progress(min(rows.stop, n_images), n_images, "compare images")
    return neighbors, familiarity


def _positive_labels(cache: Cache) -> list[str]:
    names = np.array(cache.labels.names, dtype=object)
    return [", ".join(names[row == 1]) for row in cache.labels.values]


def _predictions(cache: Cache, run: ScoredImages) -> dict[str, Any]:
    """Return the columns of a run for all images of the cache, missing where it scored none."""
    import pandas as pd

    rows = cached_rows(cache, run)
    (scored,) = np.nonzero(rows >= 0)
    if not len(scored):
        raise UsageError(
            f"{run.name} scored none of the images of {cache.path}: give the `cache` that it was "
            "made from"
        )
    rows = rows[scored]
    columns: dict[str, Any] = {}
    for c, label in enumerate(run.label_names):
        if not run.learned[c]:
            continue
        probability = np.full(len(cache), np.nan)
        probability[rows] = run.probability[scored, c]
        called, truth = run.probability[scored, c] >= run.thresholds[c], run.truth[scored, c]
        error = np.full(len(cache), None, dtype=object)
        kind = np.where(called, "false positive", "false negative")
        error[rows] = np.where(called == (truth == 1), "none", kind)
        error[rows[truth < 0]] = None
        columns[f"{label} probability"] = probability
        columns[f"{label} error"] = pd.Series(error, dtype="str")
    return columns
