"""A small encoder, its images and its data sets: what every test of extraction works on.

An image has a single color, which encodes its number in red, green and blue, and its embedding is
a fixed linear map of that color, so that tests can compute the expected result independently.
"""

import hashlib
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from featurecache.datasets.dataset import Dataset
from featurecache.encoders.encoder import Array, Encoder
from featurecache.store.cache import Cache
from tests.extraction.color import color_of

DIM = 6
NOT_FINITE, TOO_LARGE, ALL_ZERO = 0xFF0000, 0xFE0000, 0xFD0000
"""Numbers whose embedding is NaN, beyond float16, or zero."""
LABELS = ("Mass", "Edema")
_TICKS = itertools.count()


def expected_embedding(number: int) -> np.ndarray:
    """The embedding of an image's number, (DIM,) float32; exact in any order of summation."""
    color = np.array([number >> 16, number >> 8 & 255, number & 255], dtype=np.float32)
    weights = np.arange(1, 3 * DIM + 1, dtype=np.float32).reshape(3, DIM)
    return color @ weights / 16 + 1


def expected_text(text: str) -> np.ndarray:
    """The embedding of a text, (DIM,) float32, from its sha256."""
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)[:DIM] + np.float32(1)


class StubEncoder(Encoder):
    """Embeds images and texts by a formula, and records its calls.

    Attributes:
        batches: the image numbers of each call of ``embed_pixels``.
        texts: the texts of each call of ``encode_texts``.
    """

    aligned = True
    has_images = True

    def __init__(
        self,
        name: str = "stub",
        *,
        checkpoint: str = "one",
        has_text: bool = True,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(name=name, device="cpu", precision="fp32")
        self.checkpoint = checkpoint
        self.has_text = has_text
        self.seconds = seconds
        self.batches: list[list[int]] = []
        self.texts: list[list[str]] = []

    @property
    def encoded(self) -> list[int]:
        return [number for batch in self.batches for number in batch]

    @property
    def scale(self) -> float | None:
        return 10.0 if self.has_text else None

    @property
    def bias(self) -> float | None:
        return -2.5 if self.has_text else None

    @property
    def image_spec(self) -> Mapping[str, Any]:
        # The tuple comes back from JSON as a list, which must not count as a difference.
        return {"checkpoint": self.checkpoint, "preprocessing": {"size": (1, 1)}}

    @property
    def text_spec(self) -> Mapping[str, Any]:
        return {"checkpoint": self.checkpoint, "max_length": 8}

    def preprocess(self, image: Image.Image) -> Array:
        return color_of(image)

    picklable_preprocess = staticmethod(color_of)

    def embed_pixels(self, pixels: Array) -> Array:
        time.sleep(self.seconds)
        colors = pixels[:, :, 0, 0].astype(np.int64)
        numbers = (colors @ [1 << 16, 1 << 8, 1]).tolist()
        self.batches.append(numbers)
        rows = np.stack([expected_embedding(number) for number in numbers])
        special = {NOT_FINITE: np.nan, TOO_LARGE: 1e6, ALL_ZERO: 0.0}
        for row, number in enumerate(numbers):
            if number in special:
                rows[row] = special[number]
        return rows

    def encode_texts(self, texts: Sequence[str]) -> Array:
        self.texts.append(list(texts))
        return np.stack([expected_text(text) for text in texts])


def write_image(path: Path, number: int) -> None:
    """Write a 16 x 16 image of that number, with a new modification time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    color = (number >> 16, number >> 8 & 255, number & 255)
    Image.new("RGB", (16, 16), color).save(path)
    touch(path)


def touch(path: Path) -> None:
    """Give a file a modification time that no file had before, however coarse the clock is."""
    changed = 1_700_000_000_000_000_000 + 1_000_000 * next(_TICKS)
    os.utime(path, ns=(changed, changed))


def make_dataset(root: Path, ids: Sequence[str], **changes: Any) -> Dataset:
    """A dataset of ``<id>.png`` files, two images a patient, whose labels follow from the id."""
    position = [int("".join(filter(str.isdigit, image_id)) or 0) for image_id in ids]
    arguments: dict[str, Any] = {
        "name": "set",
        "root": root,
        "images": pd.DataFrame(
            {
                "id": list(ids),
                "path": [f"{image_id}.png" for image_id in ids],
                "patient": [f"p{number // 2}" for number in position],
                "split": [("train", "val", "test")[number // 2 % 3] for number in position],
                "view": ["PA" if number % 2 else "" for number in position],
                "sex": ["FM"[number // 2 % 2] for number in position],
                "age": [str(number % 90) for number in position],
            },
            dtype=str,
        ),
        "labels": np.array([[number % 2, (1, 0, -1)[number % 3]] for number in position], np.int8),
        "label_names": LABELS,
        "notes": ("a note",),
    }
    return Dataset(**(arguments | changes))


def write_images(root: Path, count: int, *, start: int = 0) -> list[str]:
    """Write images ``i000``, ``i001`` ... with these numbers; return their ids."""
    ids = [f"i{number:03d}" for number in range(start, start + count)]
    for number, image_id in enumerate(ids, start):
        write_image(root / f"{image_id}.png", number)
    return ids


def content(cache: Cache) -> dict[str, Any]:
    """Everything in a cache except its creation time, as values that compare with ``==``."""
    images, header = cache.images, cache.header
    table = zip(
        cache.ids.tolist(),
        images.sha256.tolist(),
        cache.patients.tolist(),
        cache.splits.tolist(),
        cache.views.tolist(),
        images.sex.tolist(),
        images.age.tolist(),
        images.path.tolist(),
        images.size.tolist(),
        images.mtime_ns.tolist(),
        strict=True,
    )
    return {
        "header": (
            header.model,
            header.dataset,
            header.notes,
            header.image_level_split,
            header.exposed,
        ),
        "description": dict(header.encoder_spec),
        "fingerprint": cache.fingerprint,
        "images": list(table),
        "embedding": cache.embedding.tobytes(),
        "dim": cache.dim,
        "labels": (cache.labels.names, cache.labels.values.tolist()),
        "failures": dict(cache.failures),
        "texts": {
            name: (
                text.fingerprint,
                text.templates,
                text.labels,
                text.positive.prompts,
                text.positive.embedding.tobytes(),
                text.positive.ensemble.tobytes(),
                None if text.negative is None else text.negative.prompts,
                None if text.negative is None else text.negative.embedding.tobytes(),
                (text.aligned, text.scale, text.bias),
            )
            for name, text in cache.texts.items()
        },
    }
