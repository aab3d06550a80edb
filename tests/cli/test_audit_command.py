"""``audit`` as a user runs it."""

import csv
import shutil

import pytest
from PIL import Image

from featurecache.datasets.phantom.folder import generate_phantom
from featurecache.images.decode import read_image


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """Sixty drawn films as a table: one of train is copied to test, one is so as a small JPEG."""
    root = tmp_path_factory.mktemp("leaky")
    generate_phantom(root / "films", n_images=60, seed=4)
    films = sorted((root / "films" / "images").glob("*_000.png"))
    rows = [
        [film.name, film.stem, "train" if number % 2 else "test", "AP", "F", "40", number % 3 // 2]
        for number, film in enumerate(films)
    ]
    shutil.copy(films[1], films[1].with_name("copy.png"))
    rows.append(["copy.png", "x", "test", "PA", "M", "", 1])
    with read_image(films[3]) as film:
        film.resize((200, 210), Image.Resampling.BILINEAR).save(films[3].with_name("near.jpeg"))
    rows.append(["near.jpeg", "y", "test", "PA", "M", "", rows[3][-1]])
    table = films[0].with_name("leaky.csv")
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "who", "set", "view", "sex", "age", "Mass"], *rows])
    return table


@pytest.fixture
def options(run, tiny_clip, leaky):
    """A cache of the table, and what says where its films are."""
    described = [option for name in ("view", "sex", "age") for option in (f"--{name}-column", name)]
    options = [
        *("--dataset", "csv", "--data-root", leaky, "--label-column", "Mass"),
        *("--patient-column", "who", "--split-column", "set"),
    ]
    outcome = run("extract", "--model", tiny_clip, *options, *described, "--json")
    assert outcome.code == 0, outcome.stderr
    return options


def test_planted_leaks_are_found_and_are_no_errors(run, options, leaky):
    outcome = run("audit", *options, "--n-bootstrap", 20, "--json")
    assert outcome.code == 0, outcome.stderr
    found = outcome.json
    identical = found["identical_files_across_splits"]
    source = sorted(path.name for path in leaky.parent.glob("*_000.png"))
    assert identical["across_splits"] == {"groups": 1, "images": 2, "other_labels": 1}
    assert identical["list"][0]["images"] == [source[1], "copy.png"]
    (pair,) = found["near_duplicates"]["pairs"]
    assert pair["images"] == [source[3], "near.jpeg"]
    assert pair["same_labels"] is True
    assert found["shared_patients"]["patients"] == 0
    assert found["n_patients"] == found["n"]
    # Two images alone have another view and sex, and all known ages are the same.
    assert found["readability"] == {"view": None, "sex": None, "age": None}
    assert found["labels"]["Mass"]["splits"]["test"]["state"] == "too few"


def test_without_films_nothing_is_confirmed_and_that_is_said(run, options):
    outcome = run("audit", "--n-bootstrap", 20, "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["near_duplicates"]["pairs"] is None
    told = run("audit", "--n-bootstrap", 20)
    assert "no films were looked at: give --data-root" in told.stdout


def test_the_tables_hold_the_findings_and_the_sheet_the_films(run, options, tmp_path):
    outcome = run("audit", *options, "--n-bootstrap", 20, "--contact-sheet", "pairs.png")
    assert outcome.code == 0, outcome.stderr
    assert "near.jpeg" in outcome.stdout
    assert "1 groups, 1 with other labels" in outcome.stdout
    assert "contact sheet: pairs.png" in outcome.stdout
    with Image.open(tmp_path / "pairs.png") as sheet:
        assert sheet.width > 2 * 192
    again = run("audit", *options, "--contact-sheet", "pairs.png")
    assert again.code == 2
    assert "already exists" in again.stderr


def test_a_sheet_needs_films(run, options):
    outcome = run("audit", "--contact-sheet", "pairs.png")
    assert outcome.code == 2
    assert "give --dataset or --data-root too" in outcome.stderr
