"""Corrupt or truncated caches: damage is refused, found by verify, or without effect."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from featurecache.errors import CacheError
from featurecache.provenance.records import ImageRecords
from featurecache.store.cache import Cache
from featurecache.store.reader import read_cache
from featurecache.store.records import (
    Header,
    ImageTable,
    Labels,
    TextEmbeddings,
    TextSet,
    to_utf8,
)
from featurecache.store.verify import verify_cache
from featurecache.store.writer import write_cache

ROWS, DIM = 1100, 6
LABELS = ("Mass", "Edema")


def write_example(path: Path, *, prefix: str = "image") -> None:
    """Write a cache that has every kind of content, in three blocks of rows."""
    generator = np.random.default_rng(5)
    ids = to_utf8([f"{prefix}-{row:05d}ä.png" for row in range(ROWS)])
    embedding = generator.standard_normal((ROWS, DIM)).astype(np.float16)
    write_cache(
        path,
        header=Header(
            model="hf:org/m",
            dataset="nih",
            notes=("größer", "n" * 6000),
            image_level_split=False,
            exposed=True,
            encoder_spec={"model": "m", "precision": "bf16", "size": [224, 224]},
            collection="chest-images",
            trained_on={
                "kermany": ImageRecords.of("kermany", ["a.jpeg", "b.jpeg"]),
                "nih": ImageRecords.of("nih", []),
            },
            probe={
                "images": 32,
                "measurements": [
                    {
                        "backend": "torch",
                        "precision": "bf16",
                        "images_per_second": 20.5,
                        "min_cosine": 0.9997,
                    }
                ],
            },
        ),
        images=ImageTable(
            id=ids,
            sha256=to_utf8([f"{row:064x}" for row in range(ROWS)]),
            perceptual_hash=generator.integers(0, 256, (ROWS, 32), dtype=np.uint8),
            patient=to_utf8([f"p{row // 2}" for row in range(ROWS)]),
            split=to_utf8([("train", "val", "test")[row // 2 % 3] for row in range(ROWS)]),
            study=to_utf8([f"study {row // 2}" for row in range(ROWS)]),
            view=to_utf8([("PA", "AP", "")[row % 3] for row in range(ROWS)]),
            sex=to_utf8([("F", "M", "")[row % 3] for row in range(ROWS)]),
            age=to_utf8([str(row % 90) for row in range(ROWS)]),
            path=ids,
            size=generator.integers(1, 2**20, ROWS),
            mtime_ns=generator.integers(1, 2**60, ROWS),
        ),
        dim=DIM,
        embedding=lambda start, stop: embedding[start:stop],
        labels=Labels(LABELS, generator.integers(-1, 2, (ROWS, 2)).astype(np.int8)),
        texts={"signs": _texts(generator)},
        failures={"image-x.png": "the file is empty"},
    )


def _texts(generator: np.random.Generator) -> TextSet:
    def random_embeddings(kind: str, n_prompts: int) -> TextEmbeddings:
        embedding = generator.standard_normal((2, n_prompts, DIM))
        unit = embedding / np.linalg.norm(embedding, axis=2, keepdims=True)
        mean = unit.mean(axis=1)
        return TextEmbeddings(
            prompts=tuple(tuple(f"{kind} {c} {k}" for k in range(n_prompts)) for c in LABELS),
            embedding=embedding.astype(np.float32),
            ensemble=(mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32),
        )

    return TextSet(
        name="signs",
        fingerprint="f" * 64,
        templates=("signs of {pathology}", "no {pathology}"),
        labels=LABELS,
        positive=random_embeddings("signs of", 2),
        negative=random_embeddings("no", 1),
        aligned=True,
        scale=10.5,
        bias=-2.25,
        encoder_spec={"model": "m", "tokenizer": "t"},
    )


def content(cache: Cache) -> dict[str, object]:
    """Return everything that a cache holds, as values that can be compared."""
    text = cache.texts["signs"]
    assert text.negative is not None
    arrays = {
        **vars(cache.images),
        "embedding": cache.embedding,
        "labels": cache.labels.values,
        "positive": text.positive.embedding,
        "positive ensemble": text.positive.ensemble,
        "negative": text.negative.embedding,
        "negative ensemble": text.negative.ensemble,
    }
    text_fields = (
        text.fingerprint,
        text.templates,
        text.labels,
        text.aligned,
        text.scale,
        text.bias,
    )
    return {
        **{name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()},
        "header": cache.header,
        "fingerprint": cache.fingerprint,
        "created": cache.created,
        "names": cache.labels.names,
        "sets": list(cache.texts),
        "text": (*text_fields, text.encoder_spec, text.positive.prompts, text.negative.prompts),
        "failures": dict(cache.failures),
    }


def outcome(path: Path, expected: Mapping[str, object]) -> str:
    """Return how damage is handled: "refused", "found" by verify, or "no effect" on the content.

    Raises:
        AssertionError: Verify finds nothing, but the content differs from the intact one.
    """
    try:
        problems = verify_cache(path)
    except CacheError:
        return "refused"
    if problems:
        return "found"
    stored = content(read_cache(path))
    differing = [name for name in expected if stored.get(name) != expected[name]]
    assert not differing, f"verify finds nothing, but {differing[0]} differs"
    return "no effect"


def _trial(damage: Callable[[bytearray, random.Random], None], seed: int, folder: Path) -> str:
    path = folder / "m.h5"
    write_example(path)
    expected = content(read_cache(path))
    damaged = bytearray(path.read_bytes())
    damage(damaged, random.Random(seed))
    damaged_path = folder / "damaged.h5"
    damaged_path.write_bytes(damaged)
    return outcome(damaged_path, expected)


def flip_bit(data: bytearray, generator: random.Random) -> None:
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)


def change_byte(data: bytearray, generator: random.Random) -> None:
    data[generator.randrange(len(data))] ^= generator.randrange(1, 256)


def zero_sector(data: bytearray, generator: random.Random) -> None:
    start = generator.randrange(0, len(data), 512)
    data[start : start + 512] = bytes(len(data[start : start + 512]))


def truncate(data: bytearray, generator: random.Random) -> None:
    del data[generator.randrange(len(data)) :]


FAULTS: Mapping[str, Callable[[int, Path], str]] = {
    "a flipped bit in a cache": lambda seed, folder: _trial(flip_bit, seed, folder),
    "a changed byte in a cache": lambda seed, folder: _trial(change_byte, seed, folder),
    "a sector of zeros in a cache": lambda seed, folder: _trial(zero_sector, seed, folder),
    "a truncated cache": lambda seed, folder: _trial(truncate, seed, folder),
}
