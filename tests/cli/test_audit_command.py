"""The ``audit`` command."""

import csv
import shutil

import pytest
from PIL import Image

from featurecache.datasets.phantom.folder import generate_phantom
from featurecache.images.decode import read_image


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """Create a CSV file with two training images copied to test, one as a smaller JPEG."""
    root = tmp_path_factory.mktemp("leaky")
    generate_phantom(root / "phantom", n_images=60, seed=4)
    images = sorted((root / "phantom" / "images").glob("*_000.png"))
    rows = [
        [path.name, path.stem, "train" if number % 2 else "test", "AP", "F", "40", number % 3 // 2]
        for number, path in enumerate(images)
    ]
    shutil.copy(images[1], images[1].with_name("copy.png"))
    rows.append(["copy.png", "x", "test", "PA", "M", "", 1])
    with read_image(images[3]) as image:
        image.resize((200, 210), Image.Resampling.BILINEAR).save(images[3].with_name("near.jpeg"))
    rows.append(["near.jpeg", "y", "test", "PA", "M", "", rows[3][-1]])
    table = images[0].with_name("leaky.csv")
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "who", "set", "view", "sex", "age", "Mass"], *rows])
    return table


@pytest.fixture
def options(run, tiny_clip, leaky):
    """Extract the data set; return the options that select it."""
    described = [option for name in ("view", "sex", "age") for option in (f"--{name}-column", name)]
    options = [
        *("--dataset", "csv", "--data-root", leaky, "--label-column", "Mass"),
        *("--patient-column", "who", "--split-column", "set"),
    ]
    outcome = run("extract", "--model", tiny_clip, *options, *described, "--json")
    assert outcome.code == 0, outcome.stderr
    return options


def test_leaks_are_reported_with_exit_code_0(run, options, leaky):
    outcome = run("audit", *options, "--n-bootstrap", 20, "--json")
    assert outcome.code == 0, outcome.stderr
    document = outcome.json
    identical = document["identical_files"]
    source = sorted(path.name for path in leaky.parent.glob("*_000.png"))
    assert identical["across_splits"] == {"groups": 1, "images": 2, "conflicting_labels": 1}
    assert identical["groups"][0]["images"] == [source[1], "copy.png"]
    (pair,) = document["near_duplicates"]["pairs"]
    assert pair["images"] == [source[3], "near.jpeg"]
    assert pair["same_labels"] is True
    assert document["shared_patients"]["patients"] == 0
    assert document["n_patients"] == document["n"]
    # Only two images have another view and sex, and all known ages are equal.
    assert document["shortcuts"] == {"view": None, "sex": None, "age": None}
    support = document["label_support"]["Mass"]["splits"]["test"]
    assert min(support["patients"].values()) >= 5
    assert support["state"] == "enough"


def test_near_duplicates_are_not_confirmed_without_images(run, options):
    outcome = run("audit", "--n-bootstrap", 20, "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["near_duplicates"]["pairs"] is None
    printed = run("audit", "--n-bootstrap", 20)
    assert "no images were read: give --images" in printed.stdout
    reason = "not predicted: view, sex, age. View and sex need two values of 20 patients each"
    assert reason in printed.stdout


def test_tables_and_contact_sheet_show_the_leaks(run, options, tmp_path):
    outcome = run("audit", *options, "--n-bootstrap", 20, "--contact-sheet", "pairs.png")
    assert outcome.code == 0, outcome.stderr
    assert "near.jpeg" in outcome.stdout
    assert "1 group, 1 with conflicting labels" in outcome.stdout
    assert "contact sheet: pairs.png" in outcome.stdout
    with Image.open(tmp_path / "pairs.png") as sheet:
        assert sheet.width > 2 * 192
    again = run("audit", *options, "--contact-sheet", "pairs.png")
    assert again.code == 2
    assert "already exists" in again.stderr
