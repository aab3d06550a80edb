"""Each data set as it is released: loaded, described, embedded and trained on."""

import gzip
import shutil
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import featurecache as fc
from featurecache.datasets.load import recognize_dataset
from featurecache.datasets.phantom.folder import generate_phantom
from featurecache.errors import DatasetError
from tests.datasets.releases import RELEASES, drawer


@dataclass(frozen=True)
class Expected:
    """What a data set of six studies holds."""

    images: int
    patients: int | None
    studies: int | None
    views: dict[str, int]
    splits: set[str]
    label: str
    cells: tuple[int, int, int, int]
    """Positive, negative, uncertain and blank cells of the label."""


EXPECTED = {
    "chexpert": Expected(
        images=12,
        patients=6,
        studies=6,
        views={"AP": 6, "LATERAL": 6},
        splits={"train", "val", "test"},
        label="Atelectasis",
        cells=(4, 0, 4, 4),
    ),
    "padchest": Expected(
        images=12,
        patients=6,
        studies=6,
        views={"PA": 6, "LATERAL": 6},
        splits={"train", "val", "test"},
        label="pleural effusion",
        cells=(4, 6, 0, 2),
    ),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    folder = tmp_path_factory.mktemp("pictures") / "phantom"
    generate_phantom(folder, n_images=20, seed=1, size=64)
    return [np.asarray(Image.open(file)) for file in sorted((folder / "images").iterdir())]


@pytest.fixture(scope="module", params=RELEASES)
def release(
    request: Any, pictures: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    root = tmp_path_factory.mktemp("release")
    RELEASES[request.param](root, drawer(root, cycle(pictures)))
    return request.param, root


def test_release_is_described_without_images(release, tmp_path):
    name, root = release
    expected = EXPECTED[name]
    found = fc.load_dataset(root).describe()
    assert (found["dataset"], found["images"], found["on_disk"]) == (
        *(name, expected.images),
        expected.images,
    )
    assert (found["patients"], found["studies"]) == (expected.patients, expected.studies)
    assert found["views"] == expected.views
    assert set(found["splits"]) == expected.splits
    assert tuple(found["labels"][expected.label].values()) == expected.cells

    def only_tables(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if n.endswith((".jpg", ".png", ".dcm", ".dicom"))]

    shutil.copytree(root, tmp_path / "tables", ignore=only_tables)
    bare = fc.load_dataset(name, tmp_path / "tables", require_images=False).describe()
    assert bare["on_disk"] == 0
    for field in ("images", "patients", "labels"):
        assert bare[field] == found[field]
    with pytest.raises(DatasetError, match=r"none of the .* images of .* is in"):
        fc.load_dataset(name, tmp_path / "tables")


def test_release_is_recognized_and_trained_on(release, tmp_path, monkeypatch):
    name, root = release
    monkeypatch.chdir(tmp_path)
    assert recognize_dataset(root) == name
    data = fc.load_dataset(root)
    cache = fc.extract(data, "tiny", backend="torch", precision="fp32")
    assert len(cache) == EXPECTED[name].images
    run = fc.train_head(cache, "prototype", controls=False, n_bootstrap=0)
    assert np.isfinite(run.scored.probability).any()


def test_empty_folder_names_the_missing_file(tmp_path):
    for name in RELEASES:
        with pytest.raises(DatasetError, match=r"no .*(csv|xml|txt)"):
            fc.load_dataset(name, tmp_path)


def test_missing_images_are_counted(release, tmp_path):
    name, root = release
    shutil.copytree(root, tmp_path / "half")
    image = fc.load_dataset(tmp_path / "half").files().popitem()[1]
    image.unlink()
    data = fc.load_dataset(tmp_path / "half")
    assert data.excluded["listed, but not on disk"] == 1
    assert len(data) == EXPECTED[name].images - 1


def test_compressed_table_and_folder_of_an_archive(release, tmp_path):
    name, root = release
    if name != "chexpert":
        pytest.skip("one data set stands for all")
    inner = tmp_path / "CheXpert-v1.0-small"
    shutil.copytree(root, inner)
    table = inner / "train.csv"
    with gzip.open(f"{table}.gz", "wb") as file:
        file.write(table.read_bytes())
    table.unlink()
    assert len(fc.load_dataset("chexpert", tmp_path)) == 12
