"""Simulated data: an image is the rotated mean of the prompt embeddings that are true of it."""

from pathlib import Path

import numpy as np

from featurecache.provenance.records import ImageRecords
from featurecache.store.cache import Cache
from featurecache.store.reader import read_cache
from featurecache.store.records import Header, ImageTable, Labels, TextEmbeddings, TextSet, to_utf8
from featurecache.store.writer import write_cache

DIM = 16
LABELS = 64
_rng = np.random.default_rng(7)
ROTATION = np.linalg.qr(_rng.normal(size=(DIM, DIM)))[0]
_texts = _rng.normal(size=(2, LABELS, DIM))
POSITIVE, NEGATIVE = (_texts / np.linalg.norm(_texts, axis=2, keepdims=True)).astype(np.float32)
ENCODER = {"checkpoint": "of the texts", "libraries": {"torch": "1"}}


def simulate(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image embeddings (N, DIM) and their labels (N, LABELS)."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, LABELS)) < 0.04).astype(np.int8)
    captions = labels @ POSITIVE + (1 - labels) @ NEGATIVE
    images = (captions + 0.1 * rng.normal(size=captions.shape)) @ ROTATION
    return images * rng.uniform(0.5, 5, size=(n, 1)), labels


def prompt_set(columns: range, *, negative: bool = True, **changes) -> TextSet:
    names = tuple(f"finding {c}" for c in columns)

    def texts(vectors: np.ndarray) -> TextEmbeddings:
        prompts = tuple((f"text of {name}",) for name in names)
        return TextEmbeddings(prompts, vectors[columns][:, np.newaxis], vectors[columns])

    defaults = {
        "name": "signs",
        "fingerprint": "of the prompts",
        "templates": ("signs of {}",),
        "labels": names,
        "positive": texts(POSITIVE),
        "negative": texts(NEGATIVE) if negative else None,
        "aligned": False,
        "scale": None,
        "bias": None,
        "encoder_spec": ENCODER,
    }
    return TextSet(**{**defaults, **changes})


def write_planted(
    path: Path,
    images: np.ndarray,
    labels: np.ndarray,
    text: TextSet,
    *,
    collection: str = "planted",
) -> Cache:
    """Write a cache with two images per patient: half train, a quarter validation and test each."""
    n = len(images)
    half = images.astype(np.float16)
    write_cache(
        path,
        header=Header(
            model="planted",
            dataset=collection,
            notes=(),
            image_level_split=False,
            exposed=False,
            encoder_spec={"checkpoint": "of the images"},
            collection=collection,
            trained_on={"earlier": ImageRecords.of("earlier", ["image"])},
        ),
        images=ImageTable(
            id=to_utf8([f"{row:05d}.png" for row in range(n)]),
            sha256=to_utf8([f"{collection:0>32}{row:032x}" for row in range(n)]),
            perceptual_hash=np.zeros((n, 32), dtype=np.uint8),
            patient=to_utf8([f"patient {row // 2}" for row in range(n)]),
            split=to_utf8(
                np.repeat(["train", "val", "test"], [n // 2, n // 4, n - n // 2 - n // 4])
            ),
            study=np.full(n, b""),
            view=np.full(n, b"PA"),
            sex=np.full(n, b""),
            age=np.full(n, b""),
            path=np.full(n, b""),
            size=np.ones(n, dtype=np.int64),
            mtime_ns=np.ones(n, dtype=np.int64),
        ),
        dim=images.shape[1],
        embedding=lambda start, stop: half[start:stop],
        labels=Labels(text.labels, labels.astype(np.int8)),
        texts={text.name: text},
        failures={},
    )
    return read_cache(path)
