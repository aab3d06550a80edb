"""The complete examples of own encoders, data sets and heads."""

import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli import main
from featurecache.store.reader import read_cache

EXAMPLES = ["own_encoder", "own_dataset", "own_head"]


@pytest.fixture(autouse=True)
def importable(docs, monkeypatch):
    monkeypatch.syspath_prepend(str(docs / "examples"))
    yield
    for name in EXAMPLES:
        sys.modules.pop(name, None)


@pytest.fixture
def ward(tmp_path):
    """A folder of images in the layout of ``own_dataset``."""
    folder = tmp_path / "ward"
    folder.mkdir()
    random = np.random.default_rng(0)
    for patient in range(20):
        for number in range(2):
            state = "sick" if (patient + number) % 3 == 0 else "healthy"
            pixels = random.integers(0, 256, (20, 20), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"p{patient:02d}_{number}_{state}.png")
    return folder


def test_every_example_is_tested_and_shorter_than_40_lines(docs):
    files = sorted((docs / "examples").glob("*.py"))
    assert sorted(file.stem for file in files) == sorted(EXAMPLES)
    for file in files:
        assert len(file.read_text().splitlines()) < 40, file.name


def test_own_dataset_can_be_loaded_by_name(ward):
    import own_dataset  # noqa: F401

    dataset = fc.load_dataset("ward", ward)
    assert len(dataset) == 40
    assert set(dataset.images["patient"]) == {f"p{patient:02d}" for patient in range(20)}
    sick = [name.endswith("_sick.png") for name in dataset.images["id"]]
    np.testing.assert_array_equal(dataset.labels["Sick"], sick)


def test_examples_work_from_the_command_line(ward, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (
        [
            *("--plugin", "own_encoder", "--plugin", "own_dataset"),
            *("extract", "--model", "thumbnail", "--dataset", "ward", "--data-root", str(ward)),
        ],
        ["--plugin", "own_head", "train-head", "--head", "medoid", "--n-bootstrap", "20"],
    ):
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    cache = read_cache(tmp_path / "cache" / "ward" / "thumbnail.h5")
    assert cache.embedding.shape == (40, 64)
    assert fc.load_run("runs/ward-thumbnail-medoid").config["settings"]["head"] == "medoid"
