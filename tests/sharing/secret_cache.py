"""A cache that says much about its images and this machine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import featurecache as fc
from featurecache.provenance.records import ImageRecords
from featurecache.store.reader import read_cache
from featurecache.store.records import Header, to_utf8
from featurecache.store.writer import write_cache
from tests.evaluation.toy_caches import toy_texts, write_toy_cache

REPO = "my-lab/set"
TOKEN = "hf_of_this_user"
N = 80
SECRETS = (b"0001.png", b"patient 1", b"study 1", b"ward/", b"secret", b"/home/me", b"Anna")
SECRETS += (f"{1:064x}".encode(), b"9" * 64)


def make_cache(path: Path, **header: Any) -> fc.Cache:
    """Write a cache that says much about its images and this machine."""
    rng = np.random.default_rng(3)
    names = ("Edema", "Mass")
    labels = rng.integers(0, 2, (N, 2))
    embedding = rng.normal(size=(N, 8)) + labels[:, :1]
    texts = toy_texts(np.eye(8)[:2], np.eye(8)[2:4], names)
    path.parent.mkdir(parents=True, exist_ok=True)
    toy = write_toy_cache(path, embedding, labels, texts, names=names)
    unknown = np.zeros((1, 32), dtype=np.uint8)
    trained_on = ImageRecords.of(
        "ward", ["secret-9"], patients=["patient 9"], sha256=["9" * 64], perceptual_hash=unknown
    )
    extraction = {"data": {"dataset": "csv", "root": "/home/me/x.csv", "options": {}}}
    extraction["data"]["pseudonymized"] = False
    images = replace(
        toy.images,
        age=to_utf8(["94", "89"] * (N // 2)),
        study=to_utf8([f"study {row // 2}" for row in range(N)]),
        path=to_utf8([f"ward/{row}.png" for row in range(N)]),
        perceptual_hash=rng.integers(1, 256, (N, 32), dtype=np.uint8),
    )
    write_cache(
        path,
        header=Header(
            **{
                **vars(toy.header),
                "notes": ("cells of 'Meier, Anna' are blank", "/home/me/x.csv is in UTF-16"),
                "trained_on": {"ward": trained_on},
                "extraction": extraction,
                **header,
            }
        ),
        images=images,
        dim=8,
        embedding=toy.read_rows,
        labels=toy.labels,
        texts=toy.texts,
        failures={"secret-1": "damaged: broken PNG file secret-1"},
    )
    return read_cache(path)
