"""Write the copy of a cache that may leave this machine."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.dataset import IMAGE_LEVEL_SPLIT, KEPT_SPLITS, UNKNOWN_PATIENTS
from featurecache.datasets.pseudonymize import IdKey
from featurecache.encoders.registry import ENCODERS
from featurecache.prompts import PROMPT_SETS
from featurecache.provenance.names import is_published, key_fingerprint, pseudonymized_collection
from featurecache.provenance.perceptual_hash import HASH_BYTES
from featurecache.provenance.provenance import Provenance
from featurecache.sharing.pseudonyms import pseudonymize_training, without_folders
from featurecache.store.cache import Cache
from featurecache.store.records import (
    Extraction,
    Header,
    ImageTable,
    Utf8,
    from_utf8,
    to_utf8,
)
from featurecache.store.writer import write_cache

_OLDEST: Final = 90.0
"""Years; higher ages are identifying, by 45 CFR 164.514(b)(2)(i)(C)."""


def write_shared_cache(
    cache: Cache, path: Path, *, key: IdKey | None, origin: dict[str, str]
) -> None:
    """Write a cache without what identifies images, patients or this machine.

    Paths, sizes and times of the image files are always left out. With a key, ids, patients and
    studies are hashed, unless they are already; hashes of files and of their content are left out,
    ages above 90 become 90, failures are only counted, and of the notes on one's own data only
    those remain that name nothing in it. The same cache gives the same file, byte for byte, so that
    the hub need not store it again.

    Args:
        cache: The cache.
        path: The file to write.
        key: The key of the pseudonyms; None keeps ids and hashes.
        origin: What the copy states as ``Header.imported``.

    Raises:
        CacheError: The cache is damaged.
        OSError: The disk is full or not writable.
    """
    images = _without_files(cache.images)
    order = np.arange(len(cache))
    if key is not None:
        images = _pseudonymize(images, key, hashed=bool(key_fingerprint(cache.header.collection)))
        order = np.argsort(images.id, kind="stable")
        images = images.take(order)

    def read(start: int, stop: int) -> NDArray[np.float16]:
        rows = order[start:stop]
        embedding = np.empty((len(rows), cache.dim), dtype=np.float16)
        for block, values in cache.iter_embeddings(rows):
            embedding[block] = values
        return embedding

    write_cache(
        path,
        header=_shared_header(cache, key, origin),
        images=images,
        dim=cache.dim,
        embedding=read,
        labels=replace(cache.labels, cells=cache.cells[order]),
        texts=cache.texts,
        failures={} if key is not None else cache.failures,
        created=cache.created,
    )


def _without_files(images: ImageTable) -> ImageTable:
    zeros = np.zeros(len(images), dtype=np.int64)
    return replace(images, path=np.zeros(len(images), dtype="S1"), size=zeros, mtime_ns=zeros)


def _pseudonymize(images: ImageTable, key: IdKey, *, hashed: bool) -> ImageTable:
    ages = np.unique(images.age).tolist()
    images = replace(
        images,
        sha256=np.zeros(len(images), dtype="S1"),
        perceptual_hash=np.zeros((len(images), HASH_BYTES), dtype=np.uint8),
        age=images.age.copy(),
    )
    for age in ages:
        if age and float(age) > _OLDEST:
            images.age[images.age == age] = b"90"
    if hashed:
        return images
    ids = from_utf8(images.id).tolist()
    patients_known = not np.array_equal(images.patient, images.id)
    hash_patient = key.hash_patient if patients_known else key.hash
    return replace(
        images,
        id=_hashed(map(key.hash, ids)),
        patient=_hashed(map(hash_patient, from_utf8(images.patient).tolist())),
        study=_hashed(map(key.hash_study, from_utf8(images.study).tolist())),
    )


def _hashed(texts: "map[str]") -> Utf8:
    return to_utf8(list(texts))


def _shared_header(cache: Cache, key: IdKey | None, origin: dict[str, str]) -> Header:
    header = cache.header
    extraction = header.extraction
    shared = replace(
        header,
        policy=cache.policy,
        extraction=_shared_extraction(extraction) if extraction else extraction,
        table={},
        imported=origin,
        notes=tuple(without_folders(header.notes)),
    )
    if key is None:
        return shared
    collection = header.collection
    harmless = (IMAGE_LEVEL_SPLIT, KEPT_SPLITS, UNKNOWN_PATIENTS)
    provenance = pseudonymize_training(Provenance(trained_on=header.trained_on), key)
    return replace(
        shared,
        collection=collection
        if key_fingerprint(collection)
        else pseudonymized_collection(collection, key.fingerprint),
        trained_on=provenance.trained_on,
        excluded=cache.excluded,
        notes=tuple(note for note in shared.notes if is_published(collection) or note in harmless),
    )


def _shared_extraction(extraction: Extraction) -> Extraction:
    model, prompts = extraction.get("model"), extraction.get("prompts", {})
    return {
        **extraction,
        "data": None,
        "weights": None,
        "model": model if model in ENCODERS else None,
        "prompts": {name: file if file in PROMPT_SETS else None for name, file in prompts.items()},
    }
