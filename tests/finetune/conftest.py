"""Small images that a small encoder can learn from, as a data set on disk."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featurecache.datasets.dataset import Dataset
from featurecache.encoders.loading import load_encoder

SPLITS = ["train"] * 48 + ["val"] * 16 + ["test"] * 16


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Dataset:
    """80 images; "Opacity" is a bright upper half, "Nodule" a bright lower one."""
    root = tmp_path_factory.mktemp("finetune-images")
    rng = np.random.default_rng(3)
    labels = (rng.random((80, 2)) < 0.5).astype(np.int8)
    for number, (opacity, nodule) in enumerate(labels):
        pixels = rng.integers(20, 90, (40, 40)).astype(np.uint8)
        pixels[:20] += np.uint8(120 * opacity)
        pixels[20:] += np.uint8(120 * nodule)
        Image.fromarray(pixels).save(root / f"{number:03d}.png")
    names = [f"{number:03d}.png" for number in range(80)]
    patients = [f"p{number // 2}" for number in range(80)]
    images = pd.DataFrame(
        {"id": names, "path": names, "patient": patients, "split": SPLITS, "view": "PA"}, dtype=str
    )
    return Dataset(
        name="clinic", root=root, images=images, labels=labels, label_names=("Opacity", "Nodule")
    )


@pytest.fixture
def part_of(dataset):
    """The data set with some of its rows, or with other labels."""

    def choose(rows: np.ndarray, labels: np.ndarray | None = None) -> Dataset:
        chosen = dataset.label_values[rows] if labels is None else labels
        return dataclasses.replace(dataset, images=dataset.images.iloc[rows], labels=chosen)

    return choose


@pytest.fixture
def clip(tiny_clip):
    return load_encoder(str(tiny_clip), device="cpu")


@pytest.fixture
def vision(tiny_pair: Path):
    return load_encoder(str(tiny_pair / "dinov2-small"), device="cpu")
