"""Write finished caches."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.io.atomic import new_file
from featurecache.io.fingerprint import canonical_json, fingerprint
from featurecache.label_cells import LabelPolicy
from featurecache.store.cache import BLOCK_ROWS
from featurecache.store.checksums import RunningSums, Sums, write_checksums
from featurecache.store.hdf5 import sealed_file, write_attributes, write_strings
from featurecache.store.layout import EMBEDDING, FORMAT, VERSION
from featurecache.store.records import (
    Header,
    ImageTable,
    Labels,
    TextEmbeddings,
    TextSet,
    to_utf8,
    usable_rows,
)
from featurecache.store.validation import Value

if TYPE_CHECKING:
    import h5py

ReadRows = Callable[[int, int], NDArray[np.float16]]
"""Reads rows ``start`` to ``stop`` of the embeddings: (stop - start, D) float16."""


def write_cache(
    path: Path,
    *,
    header: Header,
    images: ImageTable,
    dim: int,
    embedding: ReadRows,
    labels: Labels,
    texts: Mapping[str, TextSet],
    failures: Mapping[str, str],
    created: str | None = None,
) -> None:
    """Write a cache file to a temporary name and move it into place.

    The embeddings are stored contiguously, so that they can be memory-mapped.

    Args:
        path: The cache file.
        header: What the cache is about.
        images: Metadata of the N images, ordered by id.
        dim: Length D of an embedding.
        embedding: Reads rows of the embeddings.
        labels: Labels of the images.
        texts: Encoded prompt sets by name.
        failures: Reason why an image has no embedding, by image id.
        created: When the cache that is copied was written, in ISO 8601, UTC; None for now.

    Raises:
        OSError: The disk is full or not writable; an existing file at ``path`` is untouched.
        CacheError: An embedding is not finite or all zero, so its source is damaged; an existing
            file is untouched.
    """
    rows = np.broadcast_to(np.float16(0), (len(images), dim))
    content = (header, images, rows, labels, texts, failures)
    with new_file(path) as temporary, sealed_file(temporary, *content) as file:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_attributes(file, {**_root_attributes(header), "created": created or now})
        group = file.create_group("trained_on")
        for collection, trained in sorted(header.trained_on.items()):
            members = group.create_group(collection)
            for name in ("id", "patient", "sha256"):
                write_strings(members, name, getattr(trained, name))
            members.create_dataset("perceptual_hash", data=trained.perceptual_hash)
        sums = _write_images(file.create_group("images"), images, dim, embedding)
        group = file.create_group("labels")
        write_strings(group, "names", to_utf8(labels.names))
        group.create_dataset("values", data=labels.cells, dtype=np.int8)
        group = file.create_group("text")
        for name, text in texts.items():
            _write_text(group.create_group(name), text)
        group = file.create_group("failures")
        write_strings(group, "id", to_utf8(sorted(failures)))
        write_strings(group, "reason", to_utf8([failures[key] for key in sorted(failures)]))
        write_checksums(file, {EMBEDDING: sums})


def _root_attributes(header: Header) -> dict[str, Value | None]:
    policy = header.policy
    return {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": fingerprint(header.encoder_spec),
        "spec": canonical_json(header.encoder_spec),
        "model": header.model,
        "dataset": header.dataset,
        "notes": json.dumps(header.notes, ensure_ascii=False),
        "image_level_split": header.image_level_split,
        "exposed": header.exposed,
        "collection": header.collection,
        "probe": canonical_json(header.probe) if header.probe else None,
        "revision": header.revision,
        "excluded": canonical_json(header.excluded),
        "listed": canonical_json(header.listed) if header.listed else None,
        "bit_depth": header.bit_depth,
        "libraries": canonical_json(header.libraries) if header.libraries else None,
        "split_draw": header.split_draw or None,
        "label_policy": canonical_json(asdict(policy)) if policy != LabelPolicy() else None,
        "table": canonical_json(header.table) if header.table else None,
        "extraction": canonical_json(header.extraction),
        "imported": canonical_json(header.imported) if header.imported else None,
    }


def _write_images(group: "h5py.Group", images: ImageTable, dim: int, embedding: ReadRows) -> Sums:
    """Write metadata and embeddings; return the embeddings' checksums, taken before writing."""
    for field in fields(ImageTable):
        column = getattr(images, field.name)
        if field.name == "study" and not (column != b"").any():
            continue
        if column.dtype.kind == "S":
            write_strings(group, field.name, column)
        else:
            group.create_dataset(field.name, data=column)
    target = group.create_dataset("embedding", shape=(len(images), dim), dtype=np.float16)
    running = RunningSums()
    for start in range(0, len(images), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(images))
        block = embedding(start, stop)
        broken = ~usable_rows(block)
        if broken.any():
            first = images.id[start:stop][broken][0].decode()
            raise CacheError(
                f"the stored embedding of {first!r} is not finite or all zero, so the cache or its "
                "chunk files are damaged: delete both and extract again"
            )
        target[start:stop] = block
        running.add(block)
    return running.sums()


def _write_text(group: "h5py.Group", text: TextSet) -> None:
    write_attributes(
        group,
        {
            "fingerprint": text.fingerprint,
            "templates": json.dumps(text.templates, ensure_ascii=False),
            "aligned": text.aligned,
            "scale": text.scale,
            "bias": text.bias,
            "n_cut": text.n_cut or None,
            "max_tokens": text.max_tokens,
            "encoder": None if text.encoder_spec is None else canonical_json(text.encoder_spec),
        },
    )
    write_strings(group, "labels", to_utf8(text.labels))
    _write_embeddings(group, text.positive)
    if text.negative is not None:
        _write_embeddings(group.create_group("negatives"), text.negative)


def _write_embeddings(group: "h5py.Group", texts: TextEmbeddings) -> None:
    write_strings(group, "prompts", to_utf8(texts.prompts))
    group.create_dataset("embedding", data=texts.embedding, dtype=np.float32)
    group.create_dataset("ensemble", data=texts.ensemble, dtype=np.float32)
