"""List caches, and describe one, without reading embeddings."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurecache.errors import CacheError
from featurecache.io.atomic import find_finished
from featurecache.label_cells import count_cells
from featurecache.provenance.names import base_name, describe_id_scheme
from featurecache.store.layout import chunks_path
from featurecache.store.reader import read_cache
from featurecache.wording import format_size

_UNFINISHED = "unfinished: extract again"


@dataclass(frozen=True)
class CacheEntry:
    """One line of a list of caches.

    Attributes:
        path: The cache file.
        images: Number of images; None, like the next four, if it cannot be read.
        dim: Length of an embedding, or of all tokens of an image together.
        tokens: Number of tokens of an image; None if there is one vector for each image.
        labels: Number of labels.
        prompts: Names of prompt sets.
        failed: Number of images without an embedding.
        bytes: Size on the disk.
        state: "finished", "unfinished: ...", or why the file cannot be read.
    """

    path: Path
    images: int | None
    dim: int | None
    tokens: int | None
    labels: int | None
    prompts: list[str]
    failed: int | None
    bytes: int
    state: str


def list_caches(folder: str | os.PathLike[str]) -> list[CacheEntry]:
    """Return every cache below a folder, sorted by path, with unfinished and unreadable ones.

    Raises:
        CacheError: The folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CacheError(f"there is no folder {folder}: extract a cache, or check the path")
    finished = {
        path for path in find_finished(folder, "*.h5") if not path.parent.name.endswith(".parts")
    }
    started = {
        path.with_name(path.name.removesuffix(".parts"))
        for path in folder.rglob("*.h5.parts")
        if path.is_dir()
    }
    return [_describe_entry(path) for path in sorted(finished | started)]


def describe_cache(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a cache holds and how it was made, as a JSON document.

    Raises:
        CacheError: The file cannot be read as a cache.
    """
    cache = read_cache(path)
    splits, counts = np.unique(cache.splits, return_counts=True)
    return {
        "path": str(cache.path),
        "dataset": cache.header.dataset,
        "model": cache.header.model,
        "fingerprint": cache.fingerprint,
        "revision": cache.header.revision,
        "created": cache.created,
        "collection": base_name(cache.header.collection),
        "ids": describe_id_scheme(cache.header.collection),
        "features": cache.features,
        "tokens": cache.n_tokens,
        "images": len(cache),
        "dim": cache.dim,
        "memory": f"{format_size(2 * len(cache) * cache.dim)} for the embeddings when read",
        "splits": dict(zip(splits.tolist(), counts.tolist(), strict=True)),
        "patients": len(np.unique(cache.images.patient)) if cache.patients_known else None,
        "studies": len(np.unique(cache.images.study[cache.images.study != b""])) or None,
        "image_level_split": cache.header.image_level_split,
        "exposed": cache.header.exposed,
        "backend": cache.header.encoder_spec.get("backend"),
        "precision": cache.header.encoder_spec.get("precision"),
        "bit_depth": cache.header.bit_depth,
        "probe": cache.header.probe,
        "labels": count_cells(cache.cells, cache.labels.names),
        "label_policy": asdict(cache.policy),
        "label_decisions": cache.policy.decisions(cache.cells),
        "prompts": {
            name: {
                "fingerprint": text.fingerprint,
                "templates": list(text.templates),
                "aligned": text.aligned,
                "scale": text.scale,
                "bias": text.bias,
            }
            for name, text in cache.texts.items()
        },
        "excluded": cache.excluded,
        "listed": cache.header.listed,
        "failures": dict(cache.failures),
        "notes": list(cache.header.notes),
        "extraction": dict(cache.header.extraction),
        "imported": dict(cache.header.imported),
        "spec": dict(cache.header.encoder_spec),
    }


def _describe_entry(path: Path) -> CacheEntry:
    chunks = chunks_path(path)
    if not path.exists():
        size = sum(chunk.stat().st_size for chunk in chunks.glob("*.h5"))
        return CacheEntry(path, None, None, None, None, [], None, size, _UNFINISHED)
    try:
        cache = read_cache(path)
    except (CacheError, OSError) as error:
        return CacheEntry(path, None, None, None, None, [], None, path.stat().st_size, str(error))
    return CacheEntry(
        path=path,
        images=len(cache),
        dim=cache.dim,
        tokens=cache.n_tokens,
        labels=len(cache.labels.names),
        prompts=sorted(cache.texts),
        failed=len(cache.failures),
        bytes=path.stat().st_size,
        state=_UNFINISHED if chunks.is_dir() else "finished",
    )
