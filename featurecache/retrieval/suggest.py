"""Suggest which images of a cache to label next."""

import os
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.metrics.coverage import farthest_first
from featurecache.metrics.similarity import Floats, normalize_rows
from featurecache.provenance.names import key_fingerprint
from featurecache.runs.run import Run, as_run
from featurecache.store.cache import Cache
from featurecache.store.join_rows import row_join_of
from featurecache.store.open import CacheLike, open_cache
from featurecache.store.records import from_utf8, label_columns

if TYPE_CHECKING:
    import pandas as pd

POOL: Final = 10
"""The ``POOL * n`` most uncertain images are chosen from, but no more than half of all (Zhdanov,
"Diverse mini-batch active learning", 2019)."""


def suggest(
    cache: CacheLike,
    n: int = 200,
    *,
    run: Run | str | os.PathLike[str] | None = None,
    split: str = "train",
    seed: int = 0,
) -> "pd.DataFrame":
    """Suggest images to label next: uncertain ones that differ, of different patients.

    Unlabeled images are those of which no label is known. With a run, those are kept whose
    predictions have the highest mean entropy over labels: ``10 n``, but at most half. Of these,
    images are chosen one after another, each as far as possible, by the cosine of
    embeddings, from all labeled images and from those chosen before. No patient has a second image
    before each has one.

    Args:
        cache: A cache, or its path.
        n: Number of images, or as many as there are.
        run: A run, or its folder, that was trained on embeddings of the same encoder.
        split: Split to choose from, or "all". Test images that were chosen because a model is
            uncertain are not typical, and scores on them are too low.
        seed: Seed of the order of images that are equally uncertain or far.

    Returns:
        One row per image, in the order of choice, with the columns ``rank`` (from 1), ``path``,
        ``id``, ``patient``, ``study``, ``split``, ``view``, ``sex`` and ``age`` (texts, "" where
        unknown), ``uncertainty`` (mean entropy in bits, 0 to 1; NaN without a run), ``distance``
        (1 - cosine with the nearest image that was labeled or chosen before; NaN for the first if
        none was), and an empty column for each label, to fill in. As a file, it is a table that
        ``load_dataset`` reads as a data set, with the folder that the paths are relative to as
        ``images_root``, or takes as ``corrections`` of the same data set. Where ids are
        pseudonymized, there is no ``path``.

    Raises:
        UsageError: ``n`` is not positive, no image of the split is unlabeled, the rows of the cache
            are studies or of several data sets, or the run trained no model, scored
            studies, or has labels that the cache does not have.
        RunError: The cache was made with another encoder than the run.

    Example:
        >>> import featurecache as fc
        >>> phantom = fc.load_dataset("phantom", n_images=40)
        >>> unlabeled = fc.Dataset(name="ward", root=phantom.root, images=phantom.images)
        >>> fc.suggest(fc.extract(unlabeled, "tiny", cache_dir="unlabeled"), 5)["rank"].tolist()
        [1, 2, 3, 4, 5]
    """
    import pandas as pd

    if n < 1:
        raise UsageError(f"`n` is {n}: must be at least 1")
    cache = open_cache(cache)
    cache.require_images()
    cache.require_vectors()
    if row_join_of(cache) is not None:
        raise UsageError("the rows are of several data sets: give the cache of one of them")
    is_labeled: NDArray[np.bool_] = np.any(cache.labels.values >= 0, axis=1)
    rows = np.arange(len(cache)) if split == "all" else cache.require_rows(split)
    rows = rows[~is_labeled[rows]]
    if not len(rows):
        which = "image" if split == "all" else f"{split} image"
        raise UsageError(
            f"{cache.path} has no {which} whose labels are all unknown: extract new images into "
            "it, or give another `split`"
        )
    rows = np.random.default_rng(seed).permutation(rows)
    uncertainty, labels = np.full(len(cache), np.nan), cache.labels.names
    if run is not None:
        uncertainty, run_labels = _uncertainty(cache, as_run(run))
        labels = labels or run_labels
        if unknown := [label for label in run_labels if label not in labels]:
            raise UsageError(
                f"`run` predicts {', '.join(unknown)}, but the labels of {cache.path} are "
                f"{', '.join(labels)}: give a run that was trained on these"
            )
        size = max(n, min(POOL * n, len(rows) // 2))
        rows = _most_uncertain(rows, uncertainty, cache.patients, size=size)
    index, cosines = farthest_first(
        normalize_rows(cache.embedding[rows]),
        cache.patients[rows],
        normalize_rows(cache.embedding[is_labeled]),
        n=min(n, len(rows)),
    )
    rows = rows[index]
    columns = ("path", "id", "patient", "study", "split", "view", "sex", "age")
    frame = pd.DataFrame({name: from_utf8(getattr(cache.images, name)[rows]) for name in columns})
    frame.insert(0, "rank", np.arange(1, len(frame) + 1))
    if key_fingerprint(cache.header.collection):
        del frame["path"]  # it would name the image
    frame["uncertainty"] = uncertainty[rows]
    frame["distance"] = 1 - cosines.astype(np.float64)
    return frame.assign(**dict.fromkeys(label_columns(labels), ""))


def _uncertainty(cache: Cache, run: Run) -> tuple[Floats, tuple[str, ...]]:
    """Return the mean entropy of the predictions of each image, in bits, (N,), and the labels.

    Probabilities are calibrated where that is defined; labels that were not learned do not count.
    """
    from scipy.special import entr

    table = run.predict(cache)
    assert run.model is not None  # else it could not predict
    labels = run.model.labels
    calibrated = table[[f"{label} calibrated" for label in labels]].to_numpy(dtype=np.float64)
    raw = table[[f"{label} probability" for label in labels]].to_numpy(dtype=np.float64)
    probability = np.where(np.isnan(calibrated), raw, calibrated)
    probability = probability[:, ~np.isnan(probability).all(axis=0)]
    bits: Floats = (entr(probability) + entr(1 - probability)) / np.log(2)
    return bits.mean(axis=1), labels


def _most_uncertain(
    rows: NDArray[np.intp], uncertainty: Floats, patients: NDArray[np.str_], *, size: int
) -> NDArray[np.intp]:
    """Return the most uncertain rows: first of those that are it among their patient's, and so on.

    So, none of a patient's further images displaces the only one of another.
    """
    rows = rows[np.argsort(-uncertainty[rows], kind="stable")]
    order = np.argsort(patients[rows], kind="stable")
    _, first, counts = np.unique(patients[rows[order]], return_index=True, return_counts=True)
    rank = np.empty(len(rows), dtype=np.intp)
    rank[order] = np.arange(len(rows)) - np.repeat(first, counts)
    return rows[np.argsort(rank, kind="stable")][:size]
