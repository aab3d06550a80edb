"""Flipped bytes and cut ends of a finished cache: damage is found, or of no account."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from featurecache.errors import CacheError
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


def write_example(path: Path, *, prefix: str = "film") -> None:
    """A cache with something of everything, in three blocks of rows."""
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
            collection="chest-films",
            trained_on={"kermany": frozenset({"a.jpeg", "b.jpeg"}), "nih": frozenset()},
            bf16_cosine=0.9997,
        ),
        images=ImageTable(
            id=ids,
            sha256=to_utf8([f"{row:064x}" for row in range(ROWS)]),
            patient=to_utf8([f"p{row // 2}" for row in range(ROWS)]),
            split=to_utf8([("train", "val", "test")[row // 2 % 3] for row in range(ROWS)]),
            view=to_utf8([("PA", "AP", "")[row % 3] for row in range(ROWS)]),
            sex=to_utf8([("F", "M", "")[row % 3] for row in range(ROWS)]),
            age=to_utf8([str(row % 90) for row in range(ROWS)]),
            size=generator.integers(1, 2**20, ROWS),
            mtime_ns=generator.integers(1, 2**60, ROWS),
        ),
        dim=DIM,
        embedding=lambda start, stop: embedding[start:stop],
        labels=Labels(LABELS, generator.integers(-1, 2, (ROWS, 2)).astype(np.int8)),
        texts={"signs": _texts(generator)},
        failures={"film-x.png": "the file is empty"},
    )


def _texts(generator: np.random.Generator) -> TextSet:
    def encoded(kind: str, number: int) -> TextEmbeddings:
        embedding = generator.standard_normal((2, number, DIM))
        unit = embedding / np.linalg.norm(embedding, axis=2, keepdims=True)
        mean = unit.mean(axis=1)
        return TextEmbeddings(
            prompts=tuple(tuple(f"{kind} {c} {k}" for k in range(number)) for c in LABELS),
            embedding=embedding.astype(np.float32),
            ensemble=(mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32),
        )

    return TextSet(
        name="signs",
        fingerprint="f" * 64,
        templates=("signs of {pathology}", "no {pathology}"),
        labels=LABELS,
        positive=encoded("signs of", 2),
        negative=encoded("no", 1),
        aligned=True,
        scale=10.5,
        bias=-2.25,
        encoder_spec={"model": "m", "tokenizer": "t"},
    )


def content(cache: Cache) -> dict[str, object]:
    """All that a reader of a cache sees, in values that compare."""
    text = cache.texts["signs"]
    assert text.negative is not None
    parts = {
        **vars(cache.images),
        "embedding": cache.embedding,
        "labels": cache.labels.values,
        "positive": text.positive.embedding,
        "positive ensemble": text.positive.ensemble,
        "negative": text.negative.embedding,
        "negative ensemble": text.negative.ensemble,
    }
    said = (text.fingerprint, text.templates, text.labels, text.aligned, text.scale, text.bias)
    return {
        **{name: (array.dtype, array.shape, array.tobytes()) for name, array in parts.items()},
        "header": cache.header,
        "fingerprint": cache.fingerprint,
        "created": cache.created,
        "names": cache.labels.names,
        "sets": list(cache.texts),
        "text": (*said, text.encoder_spec, text.positive.prompts, text.negative.prompts),
        "failures": dict(cache.failures),
    }


def outcome(path: Path, expected: Mapping[str, object]) -> str:
    """How a damaged cache is taken: refused, found by verify, or as good as the sound one."""
    try:
        problems = verify_cache(path)
    except CacheError:
        return "refused"
    if problems:
        return "found"
    seen = content(read_cache(path))
    differing = [name for name in expected if seen.get(name) != expected[name]]
    assert not differing, f"verify finds nothing, and {differing[0]} is another"
    return "of no account"


def _trial(damage: Callable[[bytearray, random.Random], None], seed: int, folder: Path) -> str:
    path = folder / "m.h5"
    write_example(path)
    expected = content(read_cache(path))
    damaged = bytearray(path.read_bytes())
    damage(damaged, random.Random(seed))
    other = folder / "damaged.h5"
    other.write_bytes(damaged)
    return outcome(other, expected)


def flipped_bit(data: bytearray, generator: random.Random) -> None:
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)


def changed_byte(data: bytearray, generator: random.Random) -> None:
    data[generator.randrange(len(data))] ^= generator.randrange(1, 256)


def zeroed_sector(data: bytearray, generator: random.Random) -> None:
    start = generator.randrange(0, len(data), 512)
    data[start : start + 512] = bytes(len(data[start : start + 512]))


def cut_end(data: bytearray, generator: random.Random) -> None:
    del data[generator.randrange(len(data)) :]


FAULTS: Mapping[str, Callable[[int, Path], str]] = {
    "a flipped bit in a cache": lambda seed, folder: _trial(flipped_bit, seed, folder),
    "a changed byte in a cache": lambda seed, folder: _trial(changed_byte, seed, folder),
    "a sector of zeros in a cache": lambda seed, folder: _trial(zeroed_sector, seed, folder),
    "a cache that was cut short": lambda seed, folder: _trial(cut_end, seed, folder),
}
