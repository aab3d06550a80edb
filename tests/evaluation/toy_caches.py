"""Small caches of given arrays."""

from pathlib import Path

import numpy as np

from featurecache.store.cache import Cache
from featurecache.store.reader import read_cache
from featurecache.store.records import Header, ImageTable, Labels, TextEmbeddings, TextSet, to_utf8
from featurecache.store.writer import write_cache


def write_toy_cache(
    path: Path,
    embedding: np.ndarray,
    labels: np.ndarray,
    text: TextSet | None = None,
    *,
    names: tuple[str, ...],
    split: np.ndarray | None = None,
    by_image: bool = False,
    dataset: str = "toy",
) -> Cache:
    """A cache of these rows: half train, a quarter validation, a quarter test, two a patient."""
    n = len(embedding)
    half = embedding.astype(np.float16)
    write_cache(
        path,
        header=Header(
            model="toy-encoder",
            dataset=dataset,
            notes=(),
            image_level_split=by_image,
            exposed=False,
            encoder_spec={"checkpoint": "0123"},
            collection=dataset,
            trained_on={},
        ),
        images=ImageTable(
            id=to_utf8([f"{row:04d}.png" for row in range(n)]),
            sha256=to_utf8([f"{row:064x}" for row in range(n)]),
            perceptual_hash=np.zeros((n, 32), dtype=np.uint8),
            patient=to_utf8([f"patient {row // 2}" for row in range(n)]),
            split=to_utf8(
                np.repeat(["train", "val", "test"], [n // 2, n // 4, n - n // 2 - n // 4])
                if split is None
                else split
            ),
            study=np.full(n, b""),
            view=np.full(n, b"PA"),
            sex=np.full(n, b""),
            age=np.full(n, b""),
            path=np.full(n, b""),
            size=np.ones(n, dtype=np.int64),
            mtime_ns=np.ones(n, dtype=np.int64),
        ),
        dim=embedding.shape[1],
        embedding=lambda start, stop: half[start:stop],
        labels=Labels(names, labels.astype(np.int8)),
        texts={} if text is None else {text.name: text},
        failures={},
    )
    return read_cache(path)


def toy_texts(positive: np.ndarray, negative: np.ndarray, names: tuple[str, ...]) -> TextSet:
    """Return a prompt set "signs" with these (C, D) ensembles."""

    def embeddings(vectors: np.ndarray) -> TextEmbeddings:
        prompts = tuple((f"prompt {row}",) for row in range(len(vectors)))
        vectors = vectors.astype(np.float32)
        return TextEmbeddings(prompts, vectors[:, np.newaxis], vectors)

    return TextSet(
        name="signs",
        fingerprint="of the prompts",
        templates=("signs of {}",),
        labels=names,
        positive=embeddings(positive),
        negative=embeddings(negative),
        aligned=True,
        scale=10.0,
        bias=None,
    )
