"""Stage 1: images and prompts through frozen encoders into caches."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.errors import FeaturecacheError, UsageError
from featurecache.extraction.local_engine import encode_locally
from featurecache.extraction.pipeline import Engine, Job, encode_images
from featurecache.extraction.plan import file_states, plan, require_inside_root
from featurecache.extraction.provenance import provenance_for
from featurecache.extraction.texts import encode_prompts, text_fingerprint
from featurecache.images.subprocess_decoder import IMAGE_TIMEOUT
from featurecache.io.atomic import remove_leftovers
from featurecache.io.lock import OnWait, exclusive_lock
from featurecache.progress import Progress
from featurecache.prompts import PromptSet
from featurecache.provenance import base_name
from featurecache.store.builder import CacheBuilder
from featurecache.store.layout import cache_path, lock_path
from featurecache.store.merge import Shard
from featurecache.store.records import (
    Header,
    ImageTable,
    Labels,
    TextSet,
    Utf8,
    positions,
    to_utf8,
)

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder


@dataclass(frozen=True)
class Summary:
    """What an extraction did for one cache.

    The shares split the wall time spent waiting for pixels, encoding, and writing.
    """

    model: str
    dataset: str
    path: Path
    images: int
    done: int
    reused: int
    failed: Mapping[str, str]
    seconds: float
    images_per_second: float | None
    read_share: float | None
    encode_share: float | None
    write_share: float | None
    prompts: str
    written: bool


def extract(
    manifest: "Dataset",
    encoders: Sequence["Encoder"],
    *,
    cache: Path,
    engine: Engine = encode_locally,
    prompts: PromptSet | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 2,
    image_timeout: float = IMAGE_TIMEOUT,
    prune: bool = False,
    shard: Shard | None = None,
    on_wait: OnWait | None = None,
    progress: Progress | None = None,
) -> list[Summary]:
    """Bring the caches of a data set up to date, decoding each image once for all encoders.

    What a cache holds already is not encoded again. Killed at any moment, the same call goes on
    where it was, and ends with the same cache.

    Args:
        manifest: the images and labels.
        encoders: one per cache, with different names.
        cache: the folder of caches.
        engine: where images are decoded and encoded: ``encode_locally``, or ``encode_on_ray`` with
            its loads.
        prompts: a prompt set to encode for the labels; None leaves the cached texts as they are.
        limit: encode the first images only, in order of id.
        batch_size: images an encoder sees at once.
        workers: decoding threads, for each process that decodes.
        image_timeout: that reading an image may take; one that takes longer is recorded as failed.
        prune: drop cached images that the manifest does not have any more.
        shard: encode only this part of the images, into caches of their own; see ``merge_caches``.
        on_wait: told of a cache that another process is at work on, before that is waited for; None
            refuses.
        progress: told how far the images are.

    Returns:
        One summary per encoder.

    Raises:
        CacheError: a cache is damaged, was made with other settings, or holds images that the
            manifest does not have.
        UsageError: another process is at work on a cache, an encoder cannot embed images, two
            encoders have one name, an encoder was trained on test images, or a number is below 1.
        FeaturecacheError: no image at all could be used.
    """
    for name, value in (("limit", limit), ("batch_size", batch_size), ("workers", workers)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}: give 1 or more")
    if not image_timeout > 0:
        raise UsageError(f"image_timeout is {image_timeout}: give more than 0")
    paths = [cache_path(cache, manifest.name, encoder.name) for encoder in encoders]
    if shard is not None:
        paths = [shard.path(path) for path in paths]
        manifest = manifest.take(np.arange(shard.number - 1, len(manifest), shard.count))
    if len(set(paths)) < len(paths):
        raise UsageError("two of the models have the same name: give each model once")
    test = manifest.images["id"].iloc[manifest.rows("test")].tolist()
    for encoder in encoders:
        if not encoder.has_images:
            raise UsageError(f"model {encoder.name!r} reads no images; pair it with one that does")
        provenance_for(manifest, encoder).require_unseen(manifest.collection, test)
    ids = to_utf8(manifest.images["id"])
    with ExitStack() as stack:
        for path in sorted(paths):
            stack.enter_context(exclusive_lock(path, lock_path(path), on_wait=on_wait))
            # Under the lock nobody else is writing them.
            remove_leftovers(path)
        builders = []
        for encoder, path in zip(encoders, paths, strict=True):
            builder = CacheBuilder(path, _header(manifest, encoder), ids)
            if not prune:
                require_inside_root(builder.outside, path)
            builders.append(builder)
        jobs = _jobs(manifest, encoders, builders, limit)
        start = time.monotonic()
        try:
            encode_images(
                manifest,
                jobs,
                ids,
                engine=engine,
                batch_size=batch_size,
                workers=workers,
                image_timeout=image_timeout,
                progress=progress,
            )
        finally:
            # An interrupt must not cost the batches that are encoded already.
            for job in jobs:
                job.builder.flush()
        seconds = time.monotonic() - start
        return [_finish(manifest, job, ids, prompts, seconds) for job in jobs]


def _jobs(
    manifest: "Dataset",
    encoders: Sequence["Encoder"],
    builders: Sequence[CacheBuilder],
    limit: int | None,
) -> list[Job]:
    states = file_states(manifest)
    return [
        Job(encoder, builder, plan(states, builder.stored, limit=limit))
        for encoder, builder in zip(encoders, builders, strict=True)
    ]


def _header(manifest: "Dataset", encoder: "Encoder") -> Header:
    provenance = provenance_for(manifest, encoder)
    return Header(
        model=encoder.name,
        dataset=manifest.name,
        notes=tuple(manifest.notes),
        image_level_split=manifest.image_level_split,
        exposed=base_name(manifest.collection) in provenance.exposed_to,
        encoder_spec=dict(encoder.image_spec),
        collection=manifest.collection,
        trained_on=dict(provenance.trained_on),
        bf16_cosine=encoder.bf16_cosine,
        revision=encoder.revision,
    )


def _finish(
    manifest: "Dataset",
    job: Job,
    ids: Utf8,
    prompts: PromptSet | None,
    seconds: float,
) -> Summary:
    start = time.monotonic()
    cache = job.builder.cache
    old_failures = {} if cache is None else dict(cache.failures)
    job.builder.flush()
    stored = job.builder.stored
    kept = stored.present()
    # A file that changed and cannot be used any more takes its old embedding with it.
    kept[positions(ids, to_utf8(list(job.failures)))] = False
    failures = {**old_failures, **job.failures}
    at = positions(ids, to_utf8(list(failures)))
    failures = dict(compress(failures.items(), (at >= 0) & ~kept[at]))
    if not kept.any():
        first = next(iter(failures.items()), ("", "there is none"))
        raise FeaturecacheError(
            f"no image of {manifest.name} could be used by {job.encoder.name}; "
            f"{first[0]}: {first[1]}"
        )
    # A slice of everything copies nothing.
    rows = slice(None) if kept.all() else np.flatnonzero(kept)
    images = ImageTable(
        id=ids[rows],
        sha256=stored.sha256[rows],
        size=stored.size[rows],
        mtime_ns=stored.mtime_ns[rows],
        **{
            name: to_utf8(manifest.images[name])[rows]
            for name in ("patient", "split", "view", "sex", "age")
        },
    )
    texts, told = _texts(job, prompts, manifest.label_names)
    written = job.builder.finish(
        images=images,
        labels=Labels(tuple(manifest.label_names), manifest.label_values[rows]),
        texts=texts,
        failures=failures,
    )
    job.write_seconds += time.monotonic() - start
    busy = job.read_seconds + job.encode_seconds + job.write_seconds if job.done else None
    return Summary(
        model=job.encoder.name,
        dataset=manifest.name,
        path=job.builder.path,
        images=len(images),
        done=job.done,
        reused=job.plan.reused + job.touched,
        failed=failures,
        seconds=seconds + time.monotonic() - start,
        images_per_second=job.done / seconds if busy else None,
        read_share=job.read_seconds / busy if busy else None,
        encode_share=job.encode_seconds / busy if busy else None,
        write_share=job.write_seconds / busy if busy else None,
        prompts=told,
        written=written,
    )


def _texts(
    job: Job, prompts: PromptSet | None, labels: Sequence[str]
) -> tuple[dict[str, TextSet], str]:
    """The cache's prompt sets with this one among them, and what was done about it."""
    cache = job.builder.cache
    texts = {} if cache is None else dict(cache.texts)
    if prompts is None:
        return texts, "none asked for"
    if not job.encoder.has_text:
        return texts, "none: the model reads no text"
    known = texts.get(prompts.name)
    if known is not None and known.fingerprint == text_fingerprint(job.encoder, prompts, labels):
        texts[prompts.name] = replace(known, encoder=dict(job.encoder.text_spec))
        return texts, f"{prompts.name}, reused"
    texts[prompts.name] = encode_prompts(job.encoder, prompts, labels)
    return texts, f"{prompts.name}, encoded"
