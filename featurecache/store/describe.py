"""What caches there are, and what one of them holds, without reading its embeddings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurecache.errors import CacheError
from featurecache.provenance import base_name, describe_id_scheme
from featurecache.store.layout import chunks_path
from featurecache.store.reader import read_cache


@dataclass(frozen=True)
class Entry:
    """One line of a list of caches; None where the file does not say."""

    path: Path
    images: int | None
    dim: int | None
    labels: int | None
    prompts: list[str]
    failed: int | None
    bytes: int
    state: str
    """"finished", "unfinished: run extract again", or why it cannot be read."""


def list_caches(folder: Path) -> list[Entry]:
    """Every cache below a folder, sorted by path, unfinished and unreadable ones too.

    Raises:
        CacheError: the folder does not exist.
    """
    if not folder.is_dir():
        raise CacheError(
            f"no folder {folder}: give --cache, or make it with 'featurecache extract'"
        )
    finished = {p for p in folder.rglob("*.h5") if not p.parent.name.endswith(".parts")}
    started = {
        p.with_name(p.name.removesuffix(".parts")) for p in folder.rglob("*.h5.parts") if p.is_dir()
    }
    return [_entry(path) for path in sorted(finished | started)]


def describe_cache(path: Path) -> dict[str, Any]:
    """What a cache holds and how it was made, as one JSON document.

    Raises:
        CacheError: the file cannot be read as a cache.
    """
    cache = read_cache(path)
    values = cache.labels.values
    splits, counts = np.unique(cache.splits, return_counts=True)
    memory = len(cache.images) * cache.dim * 2
    return {
        "path": str(path),
        "dataset": cache.header.dataset,
        "model": cache.header.model,
        "fingerprint": cache.fingerprint,
        "revision": cache.header.revision,
        "created": cache.created,
        "collection": base_name(cache.header.collection),
        "ids": describe_id_scheme(cache.header.collection),
        "images": len(cache.images),
        "dim": cache.dim,
        "memory": f"{memory / 2**20:.1f} MiB for the embeddings when read",
        "splits": dict(zip(splits.tolist(), counts.tolist(), strict=True)),
        "patients": len(np.unique(cache.patients)),
        "image_level_split": cache.header.image_level_split,
        "exposed": cache.header.exposed,
        "precision": cache.header.encoder_spec.get("precision"),
        "bf16_cosine": cache.header.bf16_cosine,
        "labels": {
            name: {
                "positive": int((values[:, column] == 1).sum()),
                "negative": int((values[:, column] == 0).sum()),
                "unknown": int((values[:, column] == -1).sum()),
            }
            for column, name in enumerate(cache.labels.names)
        },
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
        "failures": dict(cache.failures),
        "notes": list(cache.header.notes),
        "spec": dict(cache.header.encoder_spec),
    }


def _entry(path: Path) -> Entry:
    unfinished = chunks_path(path).is_dir()
    if not path.exists():
        size = sum(part.stat().st_size for part in chunks_path(path).glob("*.h5"))
        return Entry(path, None, None, None, [], None, size, "unfinished: run extract again")
    try:
        cache = read_cache(path)
    except CacheError as error:
        return Entry(path, None, None, None, [], None, path.stat().st_size, str(error))
    return Entry(
        path=path,
        images=len(cache.images),
        dim=cache.dim,
        labels=len(cache.labels.names),
        prompts=sorted(cache.texts),
        failed=len(cache.failures),
        bytes=path.stat().st_size,
        state="unfinished: run extract again" if unfinished else "finished",
    )
