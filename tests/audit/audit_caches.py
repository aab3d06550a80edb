"""Caches with given metadata, for tests of the audit."""

from pathlib import Path
from typing import Any

import numpy as np

from featurecache.store.cache import Cache
from featurecache.store.reader import read_cache
from featurecache.store.records import Header, ImageTable, Labels, to_utf8
from featurecache.store.writer import write_cache


def make_cache(folder: Path, split: list[str], **columns: Any) -> Cache:
    """Write a cache of images "0000", "0001", ... and open it.

    By default, each image has a patient and a file hash of its own.

    Args:
        folder: Where the file is written.
        split: Split of each image.
        **columns: Columns of ``ImageTable``, ``embedding``, ``labels``, ``label_names``,
            ``texts`` and ``trained_on``; or ``file`` and ``spec``, its name and what its encoder
            spec has besides the model.
    """
    n = len(split)
    ids = np.array(columns.pop("id", [f"{row:04d}" for row in range(n)]))
    rng = np.random.default_rng(0)
    embedding = np.asarray(columns.pop("embedding", rng.normal(size=(n, 8))), dtype=np.float16)
    labels = np.asarray(columns.pop("labels", np.arange(n)[:, None] % 2), dtype=np.int8)
    hashes = columns.pop("perceptual_hash", np.zeros((n, 32), dtype=np.uint8))
    names = columns.pop("label_names", ("Mass", "Edema")[: labels.shape[1]])
    header = Header(
        model="m",
        dataset="set",
        notes=(),
        image_level_split=True,
        exposed=False,
        encoder_spec={"model": "m", **columns.pop("spec", {})},
        collection="set",
        trained_on=columns.pop("trained_on", {}),
    )
    texts, path = columns.pop("texts", {}), folder / columns.pop("file", "set.h5")
    text = {
        "sha256": [f"{row:064d}" for row in range(n)],
        "patient": [f"p{row}" for row in range(n)],
        **{name: [""] * n for name in ("study", "view", "sex", "age", "path")},
        **columns,
    }
    write_cache(
        path,
        header=header,
        images=ImageTable(
            id=to_utf8(ids),
            split=to_utf8(split),
            size=np.ones(n, dtype=np.int64),
            mtime_ns=np.ones(n, dtype=np.int64),
            perceptual_hash=hashes,
            **{name: to_utf8(values) for name, values in text.items()},
        ),
        dim=embedding.shape[1],
        embedding=lambda start, stop: embedding[start:stop],
        labels=Labels(names, labels),
        texts=texts,
        failures={},
    )
    return read_cache(path)
