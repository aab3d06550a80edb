"""The rows of the section "Splits" in docs/how-to/inputs.md, through the command line."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featurecache as fc

ALL = ["train", "val", "test"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of ten patients."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(10):
        pixels = rng.integers(0, 255, (24, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


def extract(run, images: Path, splits: list[str] | None, *options: object):
    """Extract a table with a column of splits, if there are any."""
    rows = [f"{number}.png,{number % 2}" for number in range(10)]
    if splits is not None:
        rows = [f"{row},{split}" for row, split in zip(rows, splits, strict=True)]
        options = (*options, "--split-column", "part")
    Path("ward.csv").write_text("\n".join(["path,Edema,part"[: None if splits else 10], *rows]))
    return run(
        *("extract", "--data-root", "ward.csv", "--images-root", images, "--json"),
        *("--label-column", "Edema", *options),
    )


def sizes() -> list[int]:
    splits = fc.open_cache("cache/ward/tiny.h5").splits
    return [int((splits == split).sum()) for split in ALL]


ACCEPTED = {
    "none stated": (None, [], [7, 1, 2], "The split is by patient"),
    "blank column": ([""] * 10, [], [7, 1, 2], "The split is by patient"),
    "other names": (["Training"] * 7 + ["validate"] + ["TESTING"] * 2, [], [7, 1, 2], ""),
    "no validation": (["train"] * 8 + ["test"] * 2, [], [7, 1, 2], "so 10% of train is validation"),
    "test only": (["test"] * 10, [], [0, 0, 10], "There are no images in train and val."),
    "fold numbers": (
        list("0123401234"),
        ["--fold", 4],
        *([6, 2, 2], "Fold 4 of the column 'part' of ward.csv is test, the next one validation."),
    ),
    "dealt folds": (None, ["--folds", 5, "--fold", 1], [6, 2, 2], "into 5 folds; fold 1 is test"),
}


@pytest.mark.parametrize("row", ACCEPTED)
def test_what_is_accepted(run, images: Path, row: str) -> None:
    splits, options, expected, note = ACCEPTED[row]
    outcome = extract(run, images, splits, *options)
    assert outcome.code == 0, outcome.stderr
    assert sizes() == expected
    assert note in " ".join(fc.open_cache("cache/ward/tiny.h5").header.notes)


REFUSED = {
    "some blank": (["train"] * 9 + [""], [], "states no split in 1 of 10 rows"),
    "unknown name": (["train"] * 9 + ["x"], [], r"name no split: 'x' \(1\)\. Use train, val and"),
    "fold numbers alone": (list("0123401234"), [], "has the folds 0, 1, 2, 3, 4: give --fold, the"),
    "other numbers": (list("0909090909"), ["--fold", 0], "numbers 0, 9, which are not the three"),
    "folds beside names": (
        ["train", "test"] * 5,
        ["--folds", 5, "--fold", 1],
        "states the splits already: leave out --folds",
    ),
    "folds alone": (None, ["--folds", 5], "give --fold, the fold that is test, from 1 to 5"),
    "fold alone": (None, ["--fold", 5], "give --folds, the number of folds, with --fold"),
    "too many folds": (None, ["--folds", 11, "--fold", 1], "give a number from 3 to 10"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_refused(run, images: Path, row: str) -> None:
    splits, options, message = REFUSED[row]
    outcome = extract(run, images, splits, *options)
    assert outcome.code == 2
    assert re.search(message, " ".join(outcome.stderr.split())), outcome.stderr


def test_few_images_of_many_classes_fill_every_split(run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "sorted" / f"class {number // 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (24, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    outcome = run("extract", "--dataset", "folder", "--data-root", tmp_path / "sorted")
    assert outcome.code == 0, outcome.stderr
    splits = fc.open_cache("cache/sorted/tiny.h5").splits
    assert [int((splits == split).sum()) for split in ALL] == [9, 1, 2]
    assert "these labels are all positive or all negative" in outcome.stderr
