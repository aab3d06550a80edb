"""What an evaluation takes from a cache: its labels and splits, its caveats, its identity."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.evaluation.evaluate import caveats
from featurecache.evaluation.split_data import SplitData, choose_scored
from featurecache.metrics.cohort import Cohort, count_unused, describe_splits
from featurecache.provenance.leaks import require_unseen, warn_of_seen
from featurecache.runs.predictions import Predictions
from featurecache.store.cache import Cache
from featurecache.store.concat import concat_caches
from featurecache.store.join_rows import join_rows, row_join_of
from featurecache.store.reader import read_cache
from featurecache.store.records import from_utf8, positions, to_utf8


def cache_reference(cache: Cache) -> dict[str, Any]:
    """Return what a run's config records about its cache, and about each of several.

    ``joined`` are those whose features, ``rows_of`` those whose rows are joined.
    """
    reference: dict[str, Any] = {
        "path": str(cache.path),
        "dataset": cache.header.dataset,
        "collection": cache.header.collection,
        "model": cache.header.model,
        "fingerprint": cache.fingerprint,
        "spec": dict(cache.header.encoder_spec),
        "dim": cache.dim,
        "excluded": cache.excluded,
        "bit_depth": cache.header.bit_depth,
        "extraction": dict(cache.header.extraction),
    }
    if len(cache.members) > 1:
        reference["joined"] = [cache_reference(member) for member in cache.members]
    if joined := row_join_of(cache):
        reference["rows_of"] = [
            {
                **cache_reference(source),
                "label_policy": source.labels.applied_policy,
                "labels": {
                    label.name: list(label.parts[number])
                    for label in joined.joined_labels
                    if label.parts[number]
                },
            }
            for number, source in enumerate(joined.caches)
        ]
    return reference


def cohort_from(cache: Cache, data: SplitData, *, trained: bool = True) -> Cohort:
    """Return what became of the images of a cache, and what those are like that are used.

    Args:
        cache: The cache.
        data: Its labels and splits.
        trained: Whether something was trained on the training rows.
    """
    header, images = cache.header, cache.images
    rows = {"train": data.train if trained else data.train[:0], "val": data.val, "test": data.test}
    listed = header.listed
    return Cohort(
        left_out=dict(header.excluded),
        n_loaded=None if listed is None else listed["images"],
        n_patients_loaded=None if listed is None else listed["patients"],
        failed={
            reason: number
            for reason, number in cache.excluded.items()
            if reason not in header.excluded
        },
        n_images=cache.n_images,
        n_patients=len(np.unique(images.patient)) if cache.patients_known else None,
        unused=count_unused(rows, split=cache.splits, copies=cache.copies.rows),
        splits=describe_splits(
            rows,
            patient=images.patient if cache.patients_known else None,
            sex=from_utf8(images.sex),
            age=from_utf8(images.age),
            view=cache.views,
            truth=data.truth,
            label_names=data.label_names,
        ),
    )


def find_cache(
    reference: Mapping[str, Any], caches: Sequence[Path] = (), *, argument: str = "caches"
) -> Cache:
    """Open the cache that a run was made from, with images as rows.

    Joined data sets have the label policies that they had for the run.

    Args:
        reference: The run's reference to its cache, from its config; see ``cache_reference``.
        caches: Files to try before the path in the reference.
        argument: Argument of the caller that names the cache, for messages.

    Raises:
        CacheError: The cache is missing, or its fingerprint differs.
    """
    if "rows_of" in reference:
        rows_of = []
        for single in reference["rows_of"]:
            cache = _find_single_cache(single, caches, argument)
            policy = cache.policy.override(**single.get("label_policy", {}))
            rows_of.append(cache.with_policy(policy))
        return join_rows(rows_of)
    references = reference.get("joined", [reference])
    return concat_caches([_find_single_cache(single, caches, argument) for single in references])


def _find_single_cache(
    reference: Mapping[str, Any], caches: Sequence[Path], argument: str
) -> Cache:
    try:
        path, fingerprint = Path(reference["path"]), str(reference["fingerprint"])
    except (KeyError, TypeError) as error:
        raise CacheError(f"the run's config does not name its cache ({error})") from error
    other = None
    for candidate in (*caches, path):
        if not candidate.is_file():
            continue
        other = candidate
        cache = read_cache(candidate)
        if cache.fingerprint == fingerprint and cache.header.dataset == reference.get("dataset"):
            return cache
    if other is None:
        raise CacheError(f"the run's cache is not at {path}: give its current path as `{argument}`")
    raise CacheError(
        f"{other} is not the cache that the run was made from, the fingerprint differs: give the "
        f"right file as `{argument}`, or make the run again"
    )


def cached_rows(cache: Cache, scored: Predictions) -> NDArray[np.intp]:
    """Return the row in a cache of each of N images that a run scored, (N,); -1 where it has none.

    Raises:
        CacheError: The cache holds another file under the id of an image.
    """
    rows = positions(cache.images.id, to_utf8(scored.ids))
    (cached,) = np.nonzero(rows >= 0)
    files, scored_files = from_utf8(cache.images.sha256[rows[cached]]), scored.sha256[cached]
    changed = (files != scored_files) & (files != "") & (scored_files != "")
    if changed.any():
        raise CacheError(
            f"{cache.path} holds other files than those that the run scored, "
            f"{str(scored.ids[cached][changed][0])!r} the first: make the run again"
        )
    return rows


def run_name(cache: Cache, method: str) -> str:
    """Return the default name of a run on a cache: "DATASET-MODEL-METHOD"."""
    return f"{cache.path.parent.name}-{cache.path.stem}-{method}"


def split_data_from(
    cache: Cache, *, train: NDArray[np.intp], learned: NDArray[np.bool_] | None = None
) -> SplitData:
    """Return the labels, patients and splits of a cache.

    Args:
        cache: The cache.
        train: Rows of ``cache.inputs`` that were learned from; empty for zero-shot.
        learned: Shape (C,); whether each label could be learned. None for all.
    """
    return SplitData(
        truth=cache.labels.values,
        label_names=cache.labels.names,
        patient=cache.patients,
        view=cache.views,
        train=cache.rows_of_inputs(train),
        val=cache.learning_rows("val"),
        test=cache.rows("test"),
        learned=np.ones(len(cache.labels.names), dtype=np.bool_) if learned is None else learned,
        patients_known=cache.patients_known,
        level=cache.units.level,
    )


def predictions_from(
    cache: Cache, data: SplitData, probability: NDArray[np.float64]
) -> Predictions:
    """Return the predictions of the validation rows, then the test rows.

    Args:
        cache: The cache, with N images.
        data: Its labels and splits.
        probability: Probabilities of all images, shape (N, C).
    """
    sha256 = from_utf8(cache.images.sha256)
    return data.predictions(
        probability, ids=cache.ids, studies=cache.studies, splits=cache.splits, sha256=sha256
    )


def scored_rows(cache: Cache) -> NDArray[np.intp]:
    """Return the rows that are scored by default: test, or validation where there is no test."""
    return choose_scored({"val": cache.learning_rows("val"), "test": cache.rows("test")})[1]


def cache_caveats(cache: Cache, rows: NDArray[np.intp], *, own_split: bool = True) -> list[str]:
    """Return what a reader of metrics has to know about the cache behind them.

    Args:
        cache: The cache.
        rows: Rows that are scored.
        own_split: Whether what is scored was trained on this cache's split, and not elsewhere.

    Raises:
        UsageError: An encoder was trained on images that are scored.
    """
    warnings = caveats(
        model=cache.header.model,
        dataset=cache.header.dataset,
        exposed=cache.header.exposed,
        imported=cache.header.imported,
        image_level_split=own_split and cache.header.image_level_split,
        has_test=not own_split or len(cache.rows("test")) > 0,
        patients_known=cache.patients_known,
        shared_patients=count_shared_patients(cache.patients, cache.splits) if own_split else 0,
    )
    for member in cache.members:
        for scored in cache.records(rows):
            warnings += require_unseen(
                scored,
                member.header.trained_on,
                by=member.header.model,
                by_patient=not cache.header.image_level_split,
            )
    return list(dict.fromkeys(warnings))


def learning_caveats(cache: Cache) -> list[str]:
    """Return a warning for each encoder that was itself trained on images to learn from.

    It is about what learns from the cache or chooses thresholds on it, wherever that is evaluated.

    Args:
        cache: The cache.
    """
    rows = np.concatenate([cache.learning_rows("train"), cache.learning_rows("val")])
    warnings = list[str]()
    for member in cache.members:
        for records in cache.records(rows):
            warnings += warn_of_seen(records, member.header.trained_on, by=member.header.model)
    return warnings


def count_shared_patients(patients: NDArray[np.str_], splits: NDArray[np.str_]) -> int:
    """Return the number of patients with images in several splits.

    Args:
        patients: Patient of each image, (N,).
        splits: Split of each image, (N,).
    """
    pairs = np.unique(np.stack([patients, splits]), axis=1)
    _, counts = np.unique(pairs[0], return_counts=True)
    return int((counts > 1).sum())
