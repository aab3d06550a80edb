"""Bring the caches of a data set up to date: lock, plan, encode, and write."""

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import FeaturecacheError, FeaturecacheWarning, UsageError
from featurecache.extraction.disk_space import require_disk_space
from featurecache.extraction.library_versions import accept_library_versions
from featurecache.extraction.local_engine import encode_locally
from featurecache.extraction.pipeline import Engine, Job, encode_images
from featurecache.extraction.plan import Plan, file_states
from featurecache.extraction.provenance import (
    is_exposed,
    provenance_for,
    require_unseen_content,
    require_unseen_images,
)
from featurecache.extraction.reuse import FileHashes, find_current, reuse_embeddings
from featurecache.extraction.sample import sample_rows
from featurecache.extraction.table import (
    count_changes,
    format_changes,
    keep_cached_splits,
    table_hashes,
)
from featurecache.extraction.texts import encode_prompts
from featurecache.images.subprocess_decoder import IMAGE_TIMEOUT
from featurecache.io.atomic import remove_leftovers, require_short_name
from featurecache.io.lock import OnWait
from featurecache.progress import Progress
from featurecache.prompts import PromptSet
from featurecache.provenance.records import ImageRecords
from featurecache.store.builder import CacheBuilder
from featurecache.store.layout import cache_path
from featurecache.store.lock import cache_lock
from featurecache.store.merge import Shard
from featurecache.store.open import mark_as_newest
from featurecache.store.records import (
    Extraction,
    Header,
    ImageTable,
    Labels,
    Listed,
    TextSet,
    Utf8,
    positions,
    to_utf8,
)

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractionSummary:
    """What an extraction did for one cache.

    Attributes:
        model: Name of the encoder.
        dataset: Name of the data set.
        path: The cache file.
        images: Number of images in the cache.
        done: Number of images that were encoded now.
        reused: Number of requested images whose embedding was in the cache already.
        reused_by_content: Number of images that took the embedding of the same file under another
            id, by the cache that it came from.
        failed: Reason why an image has no embedding, by image id.
        changed: Number of cached images with another label, split, patient, study, view, sex, age
            or content than before, of those that are no longer in the data set, and of those whose
            file is missing and that keep their embedding: "label", "split", "patient", "study",
            "view", "sex", "age", "content", "removed" and "missing".
        seconds: Wall time in seconds.
        images_per_second: Encoded images per second; None if none were encoded.
        read_share: Share of the time, from 0 to 1, spent waiting for pixels; None if no images were
            encoded.
        encode_share: Share of the time spent encoding; None likewise.
        write_share: Share of the time spent writing; None likewise.
        prompts: What was done about the prompt set, in words.
        written: Whether the cache file changed.
    """

    model: str
    dataset: str
    path: Path
    images: int
    done: int
    reused: int
    reused_by_content: Mapping[str, int]
    failed: Mapping[str, str]
    changed: Mapping[str, int]
    seconds: float
    images_per_second: float | None
    read_share: float | None
    encode_share: float | None
    write_share: float | None
    prompts: str
    written: bool


def check_numbers(
    *, limit: int | None, batch_size: int, workers: int | None, image_timeout: float
) -> None:
    """Check the numbers of an extraction.

    Raises:
        UsageError: One is out of range.
    """
    for name, value in (("limit", limit), ("batch_size", batch_size), ("workers", workers)):
        if value is not None and value < 1:
            raise UsageError(f"`{name}` is {value}: must be at least 1")
    if not image_timeout > 0:
        raise UsageError(f"`image_timeout` is {image_timeout}: must be above 0")


def update_caches(
    dataset: "Dataset",
    encoders: Sequence["Encoder"],
    *,
    cache_dir: Path,
    engine: Engine = encode_locally,
    prompts: PromptSet | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 2,
    image_timeout: float = IMAGE_TIMEOUT,
    rehash: bool = False,
    prune: bool = False,
    shard: Shard | None = None,
    on_wait: OnWait | None = None,
    on_start: Callable[["Dataset"], None] | None = None,
    progress: Progress | None = None,
    hash_progress: Progress | None = None,
    extractions: Sequence[Extraction] | None = None,
) -> list[ExtractionSummary]:
    """Bring the caches of a data set up to date, decoding each image once for all encoders.

    Stored embeddings are not computed again. If the process is killed, at any moment, the same call
    continues from there and ends with the same cache.

    Args:
        dataset: The images and labels.
        encoders: One for each cache, with different names.
        cache_dir: Directory of the caches.
        engine: Where images are decoded and encoded: ``encode_locally``, or ``encode_on_ray`` with
            its loaders.
        prompts: Prompt set to encode for the labels; None keeps the cached texts as they are.
        limit: Encode only a sample of this size; see ``sample_rows``.
        batch_size: Number of images per forward pass.
        workers: Number of decoding threads in each process that decodes.
        image_timeout: Maximum time to read one image, in seconds; one that takes longer is recorded
            as failed.
        rehash: Read all files again and compare their hashes, instead of trusting their sizes and
            modification times.
        prune: Drop cached images that the data set does not have any more, and accept that most
            others have changed.
        shard: Encode only this shard of the data set, into a cache of its own; see
            ``merge_caches``.
        on_wait: Called with a cache that another process is writing, before waiting for it. None
            raises an error instead of waiting.
        on_start: Called before the first image is read, with the data set, in which cached
            patients keep their splits.
        progress: Called with the number of finished images and of all images to read.
        hash_progress: Called before, with the number of hashed files and of all files to hash.
        extractions: For each encoder, the arguments to record in ``Header.extraction``; None
            records nothing.

    Returns:
        One summary for each encoder.

    Raises:
        CacheError: A cache is damaged, was made with other settings, or holds images that the data
            set does not have.
        UsageError: Another process is writing a cache, it would lose most of its images, the
            embeddings do not fit on the disk, an encoder cannot embed images, two encoders have the
            same name, an encoder was trained on test images, or a number is out of range.
        FeaturecacheError: No image could be used.
    """
    check_numbers(limit=limit, batch_size=batch_size, workers=workers, image_timeout=image_timeout)
    paths = cache_paths(dataset, encoders, cache_dir, shard)
    if len(set(paths)) < len(paths):
        raise UsageError(
            "two models have the same name, or features: give each `model` and `features` once"
        )
    for encoder in encoders:
        if not encoder.has_images:
            raise UsageError(
                f"model {encoder.name!r} has no image encoder: pair it with a model that has one"
            )
    with ExitStack() as stack:
        for path in sorted(paths):
            stack.enter_context(cache_lock(path, on_wait=on_wait))
            # Under the lock, no other process is writing them.
            remove_leftovers(path)
        dataset = keep_cached_splits(dataset, cache_paths(dataset, encoders, cache_dir, None))
        if on_start is not None:
            on_start(dataset)
        table, listed = {}, count_listed(dataset)
        if shard is not None:
            table = table_hashes(dataset)
            dataset = dataset.take(np.arange(shard.number - 1, len(dataset), shard.count))
        for encoder in encoders:
            require_unseen_images(dataset, encoder, dataset.rows("test"))
        ids = to_utf8(dataset.images["id"])
        builders = [
            CacheBuilder(path, header_for(dataset, encoder, table, listed), ids)
            for encoder, path in zip(encoders, paths, strict=True)
        ]
        start = time.monotonic()
        states = file_states(dataset)
        requested = np.zeros(len(ids), dtype=np.bool_)
        requested[slice(None) if limit is None else sample_rows(dataset, limit)] = True
        hashes = FileHashes(
            dataset,
            ids,
            states,
            workers=workers,
            image_timeout=image_timeout,
            progress=hash_progress,
        )
        # All caches are checked before any of them is changed.
        current = [
            find_current(builder, hashes, requested, prune=prune, rehash=rehash)
            for builder in builders
        ]
        outdated = [
            np.flatnonzero(builder.stored.present() & ~rows)
            for builder, rows in zip(builders, current, strict=True)
        ]
        before = [
            builder.stored.sha256[rows] for builder, rows in zip(builders, outdated, strict=True)
        ]
        jobs = [
            _job(encoder, builder, hashes, requested, rows)
            for encoder, builder, rows in zip(encoders, builders, current, strict=True)
        ]
        for job, rows in zip(jobs, current, strict=True):
            accept_library_versions(
                dataset, job, rows & (states.size >= 0), prompts, image_timeout=image_timeout
            )
        require_disk_space(jobs)
        # Not needed any more: the hashes of the files that a cache may already hold, 64 bytes each.
        del hashes
        for builder in builders:
            builder.contents.clear()
        try:
            encode_images(
                dataset,
                jobs,
                ids,
                states.path,
                engine=engine,
                batch_size=batch_size,
                workers=workers,
                image_timeout=image_timeout,
                progress=progress,
            )
        finally:
            # An interrupt must not lose the batches that are encoded already.
            for job in jobs:
                job.builder.flush()
        seconds = time.monotonic() - start
        files = [
            {
                "content": int((sha256 != job.builder.stored.sha256[rows]).sum()),
                "missing": int((job.builder.stored.present() & (states.size < 0)).sum()),
            }
            for job, rows, sha256 in zip(jobs, outdated, before, strict=True)
        ]
        for job, extraction in zip(jobs, extractions or [Extraction()] * len(jobs), strict=True):
            _record(job, extraction)
        texts: list[TextSet] = []
        summaries = [
            _finish(dataset, job, ids, prompts, texts, seconds, changed)
            for job, changed in zip(jobs, files, strict=True)
        ]
        mark_as_newest(paths)
        return summaries


def cache_paths(
    dataset: "Dataset", encoders: Sequence["Encoder"], cache_dir: Path, shard: Shard | None
) -> list[Path]:
    """Return the file of each encoder's cache.

    Raises:
        UsageError: Its name is too long.
    """
    paths = [cache_path(cache_dir, dataset.name, encoder.cache_name) for encoder in encoders]
    if shard is not None:
        paths = [shard.path(path) for path in paths]
    for path in paths:
        # The longer of the two names in it is the one to shorten.
        longer = "name" if len(path.parent.name) > len(path.name) else "model"
        require_short_name(path, argument=longer)
    return paths


def _job(
    encoder: "Encoder",
    builder: CacheBuilder,
    hashes: FileHashes,
    requested: NDArray[np.bool_],
    current: NDArray[np.bool_],
) -> Job:
    done, reused_by_content = reuse_embeddings(builder, hashes, requested, current)
    plan = Plan(np.flatnonzero(requested & ~done), reused=int((requested & current).sum()))
    return Job(encoder, builder, plan, reused_by_content)


def count_listed(dataset: "Dataset") -> Listed:
    """Count the images and patients of a data set."""
    patients = dataset.images["patient"].nunique() if dataset.patients_known else None
    return Listed(images=len(dataset), patients=patients)


def header_for(
    dataset: "Dataset",
    encoder: "Encoder",
    table: Mapping[str, str],
    listed: Listed | None = None,
) -> Header:
    """Return the header of an encoder's cache.

    Args:
        dataset: The images.
        encoder: The encoder.
        table: See ``Header``.
        listed: See ``Header``.
    """
    provenance = provenance_for(dataset, encoder)
    return Header(
        model=encoder.name,
        dataset=dataset.name,
        notes=tuple(dataset.notes),
        image_level_split=dataset.image_level_split,
        exposed=is_exposed(dataset, provenance),
        encoder_spec=dict(encoder.image_spec),
        collection=dataset.collection,
        trained_on=dict(provenance.trained_on),
        probe=encoder.probe,
        revision=encoder.revision,
        excluded=dataset.excluded,
        listed=listed,
        bit_depth=dataset.bit_depth,
        split_draw="" if dataset.split_draw is None else str(dataset.split_draw),
        policy=dataset.policy,
        table=table,
    )


def _record(job: Job, extraction: Extraction) -> None:
    """Record the arguments of an extraction in the header of its cache.

    If no image was encoded, the embeddings are still those of the earlier extraction; only labels,
    splits and prompts are new.
    """
    stored = Extraction() if job.builder.cache is None else job.builder.cache.header.extraction
    if stored and extraction:
        limits = [limit for given in (stored, extraction) if (limit := given.get("limit"))]
        extraction = {
            **(extraction if job.done else stored),
            "data": extraction.get("data"),
            "prompts": {**stored.get("prompts", {}), **extraction.get("prompts", {})},
            # A larger sample holds the smaller one.
            "limit": max(limits) if len(limits) == 2 else None,
        }
    job.builder.header = replace(job.builder.header, extraction=extraction or stored)


def _finish(
    dataset: "Dataset",
    job: Job,
    ids: Utf8,
    prompts: PromptSet | None,
    encoded: list[TextSet],
    seconds: float,
    changed_files: Mapping[str, int],
) -> ExtractionSummary:
    """Write the finished cache; ``encoded`` are the prompts of the caches before it."""
    start = time.monotonic()
    cache = job.builder.cache
    job.builder.flush()
    stored = job.builder.stored
    kept = stored.present()
    # A file that changed and cannot be used any more loses its old embedding.
    kept[positions(ids, to_utf8(list(job.failures)))] = False
    failures = {**({} if cache is None else cache.failures), **job.failures}
    rows_of_failures = positions(ids, to_utf8(list(failures)))
    is_current = (rows_of_failures >= 0) & ~kept[rows_of_failures]
    failures = dict(compress(failures.items(), is_current))
    if not kept.any():
        image_id, reason = next(iter(failures.items()), ("", "the data set has no images"))
        raise FeaturecacheError(
            f"no image of {dataset.name} could be used by {job.encoder.name}; {image_id}: {reason}"
        )
    # A slice of everything copies nothing.
    rows = slice(None) if kept.all() else np.flatnonzero(kept)
    images = ImageTable(
        id=ids[rows],
        sha256=stored.sha256[rows],
        perceptual_hash=stored.perceptual_hash[rows],
        path=stored.path[rows],
        size=stored.size[rows],
        mtime_ns=stored.mtime_ns[rows],
        **{
            name: to_utf8(dataset.images[name])[rows]
            for name in ("patient", "study", "split", "view", "sex", "age")
        },
    )
    test = np.flatnonzero(kept & (dataset.images["split"] == "test"))
    test_images = ImageRecords(
        collection=dataset.collection,
        id=ids[test],
        patient=dataset.records(test).patient,
        sha256=stored.sha256[test],
        perceptual_hash=stored.perceptual_hash[test],
    )
    if dataset.label_names:
        _warn_of_seen(dataset, job, test_images)
    texts, prompts_status = _texts(job, prompts, dataset.label_names, encoded)
    labels = Labels(tuple(dataset.label_names), dataset.cells[rows], dataset.policy)
    changed = {**count_changes(cache, images, labels), **changed_files}
    changed = {what: number for what, number in changed.items() if number}
    if changed:
        _log.warning(f"changed: {format_changes(changed)} of {job.builder.path}")
    written = job.builder.finish(
        images=images,
        labels=labels,
        texts=texts,
        failures=failures,
    )
    job.write_seconds += time.monotonic() - start
    busy = job.read_seconds + job.encode_seconds + job.write_seconds if job.done else None
    return ExtractionSummary(
        model=job.encoder.name,
        dataset=dataset.name,
        path=job.builder.path,
        images=len(images),
        done=job.done,
        reused=job.plan.reused,
        reused_by_content=job.reused_by_content,
        failed=failures,
        changed=changed,
        seconds=seconds + time.monotonic() - start,
        images_per_second=job.done / seconds if busy else None,
        read_share=job.read_seconds / busy if busy else None,
        encode_share=job.encode_seconds / busy if busy else None,
        write_share=job.write_seconds / busy if busy else None,
        prompts=prompts_status,
        written=written,
    )


def _warn_of_seen(dataset: "Dataset", job: Job, test_images: ImageRecords) -> None:
    """Warn if images that will be refused when they are scored turned out to be training images."""
    try:
        require_unseen_content(dataset, job.encoder, test_images)
    except UsageError as error:
        warnings.warn(
            f"{job.builder.path} is complete, but its test images will not be scored: {error}",
            FeaturecacheWarning,
            stacklevel=2,
        )


def _texts(
    job: Job, prompts: PromptSet | None, labels: Sequence[str], encoded: list[TextSet]
) -> tuple[dict[str, TextSet], str]:
    """Return the prompt sets of the cache, the given one included, and what was done about it.

    The given one is added to ``encoded``, of which encoders of the same texts take it.
    """
    texts = {} if job.builder.cache is None else dict(job.builder.cache.texts)
    if prompts is None:
        return texts, "none requested"
    if not job.encoder.has_text:
        return texts, "none: the model has no text encoder"
    if not labels:
        return texts, "none: no labels"
    cached = texts.get(prompts.name)
    known = [cached, *encoded] if cached else encoded
    text = encode_prompts(job.encoder, prompts, labels, cached=known)
    encoded.append(text)
    texts[prompts.name] = text
    reused = cached is not None and cached.fingerprint == text.fingerprint
    return texts, f"{prompts.name}, {'reused' if reused else 'encoded'}"
