"""Toy caches and toy training data."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import TrainingData
from featurecache.provenance.records import ImageRecords
from featurecache.store.cache import Cache
from featurecache.store.reader import read_cache
from featurecache.store.records import Header, ImageTable, Labels, TextEmbeddings, TextSet, to_utf8
from featurecache.store.writer import write_cache

SPLITS = ("train", "val", "test")
DESCRIPTION = {
    "checkpoint": "0123",
    "preprocessing": {"size": 8},
    "precision": "fp32",
    "libraries": {"torch": "2.6"},
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    # On a busy machine, two threads spend their time waiting for each other.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def text_set(ensemble: np.ndarray, labels: tuple[str, ...], *, name: str = "toy") -> TextSet:
    """Return a prompt set with one prompt per label and unaligned texts."""
    prompts = tuple((f"signs of {label}",) for label in labels)
    texts = TextEmbeddings(prompts, ensemble[:, np.newaxis].astype(np.float32), ensemble)
    return TextSet(
        name, f"fingerprint of {name}", ("signs of {}",), labels, texts, None, False, None, None
    )


def write_toy(
    folder: Path,
    embedding: np.ndarray,
    labels: np.ndarray,
    split: np.ndarray,
    *,
    names: tuple[str, ...],
    patient: np.ndarray | None = None,
    study: np.ndarray | None = None,
    view: np.ndarray | None = None,
    texts: tuple[TextSet, ...] = (),
    image_level_split: bool = False,
    spec: Mapping[str, Any] = DESCRIPTION,
    file: str = "toy.h5",
) -> Cache:
    """Write a cache of given arrays and open it.

    Without ``patient``, every image has a patient of its own.
    """
    n, dim = embedding.shape
    ids = np.array([f"image {row:05d}.png" for row in range(n)])
    half = embedding.astype(np.float16)
    write_cache(
        folder / file,
        header=Header(
            model="toy-encoder",
            dataset="toy",
            notes=(),
            image_level_split=image_level_split,
            exposed=False,
            encoder_spec=spec,
            collection="toys",
            trained_on={"others": ImageRecords.of("others", ["a.png", "b.png"])},
        ),
        images=ImageTable(
            id=to_utf8(ids),
            sha256=to_utf8([f"{row:064x}" for row in range(n)]),
            perceptual_hash=np.zeros((n, 32), dtype=np.uint8),
            patient=to_utf8(ids if patient is None else patient),
            split=to_utf8(split),
            study=np.full(n, b"") if study is None else to_utf8(study),
            view=np.full(n, b"") if view is None else to_utf8(view),
            sex=np.full(n, b""),
            age=np.full(n, b""),
            path=to_utf8(ids),
            size=np.ones(n, dtype=np.int64),
            mtime_ns=np.ones(n, dtype=np.int64),
        ),
        dim=dim,
        embedding=lambda start, stop: half[start:stop],
        labels=Labels(names, labels.astype(np.int8)),
        texts={text.name: text for text in texts},
        failures={},
    )
    return read_cache(folder / file)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Cache]:
    """Return `write_toy` for the folder of the test."""
    return partial(write_toy, tmp_path)


@pytest.fixture(scope="session")
def problem() -> dict[str, np.ndarray]:
    """Return 300 images of 150 patients with three findings that partly show in the embedding.

    Mass is easy to recognize, Effusion less so, Nodule hardly at all. Ill patients have AP views.
    """
    rng = np.random.default_rng(3)
    embedding = rng.normal(size=(300, 12))
    clarity = np.array([4.0, 1.5, 0.3])
    directions = np.linalg.qr(rng.normal(size=(12, 12)))[0][:, :3]
    logits = clarity * (embedding @ directions)
    labels = (rng.random((300, 3)) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    labels[rng.random(labels.shape) < 0.05] = -1
    ill = (labels == 1).sum(axis=1) >= 2
    return {
        "embedding": embedding,
        "labels": labels,
        "split": np.repeat(SPLITS, [160, 60, 80]),
        "patient": np.array([f"patient {row // 2}" for row in range(300)]),
        "view": np.where(rng.random(300) < np.where(ill, 0.8, 0.2), "AP", "PA"),
        "directions": directions,
        "text": rng.normal(size=(3, 10)).astype(np.float32),
    }


NAMES = ("Mass", "Effusion", "Nodule")


@pytest.fixture(scope="session")
def cache(tmp_path_factory, problem: dict[str, np.ndarray]) -> Cache:
    """Return the problem as a cache with one prompt set."""
    arrays = {name: problem[name] for name in ("embedding", "labels", "split", "patient", "view")}
    texts = (text_set(problem["text"], NAMES),)
    return write_toy(tmp_path_factory.mktemp("toy"), **arrays, names=NAMES, texts=texts)


@pytest.fixture(scope="session")
def aligned_cache(tmp_path_factory, problem: dict[str, np.ndarray]) -> Cache:
    """Return the problem as a cache with texts that are aligned with the images."""
    arrays = {name: problem[name] for name in ("embedding", "labels", "split", "patient", "view")}
    texts = (aligned_texts(problem),)
    return write_toy(tmp_path_factory.mktemp("aligned"), **arrays, names=NAMES, texts=texts)


@pytest.fixture(scope="session")
def aligned_set(problem: dict[str, np.ndarray]) -> TextSet:
    """Return the texts of the aligned cache."""
    return aligned_texts(problem)


def aligned_texts(problem: dict[str, np.ndarray]) -> TextSet:
    """Return noisy directions towards and away from each finding."""
    rng = np.random.default_rng(8)
    true = problem["directions"].T + 0.2 * rng.normal(size=(3, 12))
    positive = (true / np.linalg.norm(true, axis=1, keepdims=True)).astype(np.float32)
    texts = text_set(positive, NAMES)
    negative = text_set(-positive, NAMES).positive
    return replace(texts, negative=negative, aligned=True, scale=10.0)


@pytest.fixture
def data(problem: dict[str, np.ndarray]) -> TrainingData:
    """Return the problem as training data."""
    return TrainingData(
        embedding=problem["embedding"].astype(np.float16),
        labels=problem["labels"],
        train=np.flatnonzero(problem["split"] == "train"),
        val=np.flatnonzero(problem["split"] == "val"),
        texts=LabelTexts(problem["text"]),
    )
