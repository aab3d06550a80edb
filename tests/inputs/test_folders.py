"""The rows of the section "Folders" in docs/how-to/inputs.md, through the command line."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featurecache as fc
from featurecache.runs.prediction import find_images
from featurecache.units import Units
from tests.images.test_dicom import dicom_file

CSV = "path,Edema\na.png,1\nb.png,0\n"


def make(root: Path, files: list[str]) -> Path:
    """Write a small image for each name, or text where the suffix says so; ``a -> b`` is a link."""
    rng = np.random.default_rng(0)
    for name in files:
        path, _, target = name.partition(" -> ")
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if target:
            file.symlink_to(target)
        elif file.suffix == ".csv":
            file.write_text(CSV)
        elif file.suffix in (".txt", ".pdf"):
            file.write_text("not an image")
        else:
            pixels = rng.integers(0, 255, (24, 24), dtype=np.uint8)
            Image.fromarray(pixels).save(file, format="PNG")
    return root


def images_in(*folders: str) -> list[str]:
    return [f"{folder}/{number}.png" for folder in folders for number in range(2)]


ACCEPTED = {
    "flat": (["b.png", "a.png"], [], ["a.png", "b.png"], [], "There are no labels."),
    "without suffix": (["IM01", "x.7"], [], ["IM01", "x.7"], [], "no labels"),
    "other files": (
        ["a.png", "b.png", "r.pdf", "n.txt", ".h.png", "__MACOSX/a.png"],
        *([], ["a.png", "b.png"], []),
        "Files that are not images were skipped: 1 .pdf, 1 .txt.",
    ),
    "nested": (["x/y/a.png", "b.png"], [], ["b.png", "x/y/a.png"], [], "There are no labels."),
    "patient folders": (
        images_in("p1", "p2"),
        *([], images_in("p1", "p2"), []),
        "The images are in 2 folders, at level 1 of their paths. If these are patients, give "
        "--patient-level 1; if they are classes, give --dataset folder.",
    ),
    "patient level": (
        images_in("p1/s1", "p2/s1"),
        ["--patient-level", 1],
        *(images_in("p1/s1", "p2/s1"), []),
        "Patients are the folders at level 1: 2 patients.",
    ),
    "splits without classes": (
        ["Train/a.png", "Train/b.png", "test/c.png"],
        *([], ["Train/a.png", "Train/b.png", "test/c.png"], []),
        "no validation split, so 10% of train is validation",
    ),
    "masks": (
        ["images/a.png", "images/b.png", "masks/a.png"],
        *([], ["images/a.png", "images/b.png"], []),
        "named after the image beside them: 1. To embed masks, give a folder with nothing else.",
    ),
    "masks beside their images": (
        ["a.png", "a_mask.png", "x/b.jpg", "x/B-lung-mask_1.png", "x/a_mask.png", "x/mask_b.png"],
        *([], ["a.png", "x/a_mask.png", "x/b.jpg", "x/mask_b.png"], []),
        "Masks were left out, which are in folders of masks or named after the image beside them: "
        "2.",
    ),
    "links": (
        ["a.png", "disk -> ../disk", "again -> ../disk", "up -> ."],
        *([], ["a.png", "again/z.png"], []),
        "Symbolic links were left out where what they lead to is reached another way, too: 2.",
    ),
    "a table beside images": (
        ["a.png", "b.png", "list.csv"],
        *([], ["a.png", "b.png"], []),
        "A table is beside the images, list.csv: to read labels from it, give its columns as "
        "--label-column, --multilabel-column or --class-column.",
    ),
    "a table beside images, with columns": (
        ["a.png", "b.png", "list.csv"],
        ["--label-column", "Edema"],
        *(["a.png", "b.png"], ["Edema"]),
        "",
    ),
    "classes": (
        images_in("Normal", "COVID-19"),
        *([], images_in("COVID-19", "Normal"), ["COVID-19", "Normal"]),
        "",
    ),
    "splits of classes": (
        images_in("train/a", "train/b", "test/a", "test/b"),
        *([], images_in("test/a", "test/b", "train/a", "train/b"), ["a", "b"]),
        "",
    ),
    "other classes": (
        images_in("a", "b"),
        ["--dataset", "folder"],
        *(images_in("a", "b"), ["a", "b"]),
        "",
    ),
    "one class": (
        images_in("normal"),
        ["--dataset", "folder"],
        *(images_in("normal"), ["normal"]),
        "All images are of one class, normal",
    ),
    "an empty class": (
        [*images_in("ill", "well"), "none/n.txt"],
        *([], images_in("ill", "well"), ["ill", "well"]),
        "Folders without images were skipped: none.",
    ),
    "class and patient": (
        images_in("ill/p1", "ill/p2", "well/p3"),
        ["--dataset", "folder"],
        *(images_in("ill/p1", "ill/p2", "well/p3"), ["ill", "well"]),
        "Patients are the folders at level 2, 3 patients. If these folders are something else, "
        "give --patient-level 0.",
    ),
    "below a single folder": (
        images_in("archive/x/ill", "archive/x/well"),
        *([], images_in("ill", "well"), ["ill", "well"]),
        "The classes are the folders of archive/x.",
    ),
}


@pytest.mark.parametrize("row", ACCEPTED)
def test_what_is_accepted(run, tmp_path: Path, row: str) -> None:
    files, options, ids, labels, note = ACCEPTED[row]
    make(tmp_path / "disk", ["z.png"])
    root = make(tmp_path / "my folder", files)
    outcome = run("extract", "--data-root", root, *options)
    assert outcome.code == 0, outcome.stderr
    cache = fc.open_cache(next((tmp_path / "cache").glob("*/tiny.h5")))
    assert cache.ids.tolist() == sorted(ids)
    assert list(cache.labels.names) == labels
    assert note in " ".join(outcome.stderr.split())
    assert cache.path.parent.name == ("list" if "--label-column" in options else "my-folder")


REFUSED = {
    "empty": (["n.txt"], [], "holds no images: looked in it and in all folders below for PNG"),
    "no folder": (None, [], "does not exist: give a folder of images"),
    "no class": (["a.png"], ["--dataset", "folder"], "in no class folder: .* --dataset images"),
    "splits beside classes": (
        images_in("train/a", "b"),
        ["--dataset", "folder"],
        "split folder 'train' beside 'b'",
    ),
    "links, not followed": (
        ["a.png", "disk -> ../disk"],
        ["--no-follow-links"],
        r"'disk/z\.png' leaves the root .* through a symbolic link: .* --follow-links",
    ),
    "too few folders": (["a.png"], ["--patient-level", 1], r"--patient-level is 1, .* 0 folders"),
}


DICOM = {
    "DICOM files": (
        ["SECRET-1", "SECRET-1", "SECRET-2"],
        [],
        2,
        "read from the DICOM headers (PatientID): 2 patient",
    ),
    "without PatientID": (
        ["SECRET-1", "", "SECRET-1"],
        [],
        2,
        "1 image has no patient, and each counts as a",
    ),
    "one PatientID": (
        ["SECRET-1", "SECRET-1", "SECRET-1"],
        [],
        3,
        "All 3 DICOM files have one PatientID",
    ),
    "unknown patients": (
        ["SECRET-1", "SECRET-1", "SECRET-2"],
        ["--patient-level", 0],
        3,
        "Patients are unknown",
    ),
    "other images": (["SECRET-1", "SECRET-1", None], [], 3, "2 of 3 images are DICOM files"),
}


@pytest.mark.parametrize("row", DICOM)
def test_patients_of_dicom_files(run, tmp_path: Path, row: str) -> None:
    patients, options, n_patients, note = DICOM[row]
    pixels = np.random.default_rng(0).integers(2**12, size=(24, 24), dtype=np.uint16)
    for number, patient in enumerate(patients):
        if patient is None:
            make(tmp_path / "x", ["a.png"])
        else:
            file = tmp_path / f"x/{number}.dcm"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(dicom_file(pixels, PatientID=patient))
    outcome = run("extract", "--data-root", tmp_path / "x", *options)
    assert outcome.code == 0, outcome.stderr
    assert note in " ".join(outcome.stderr.split())
    cache = fc.open_cache(tmp_path / "cache/x/tiny.h5")
    assert len(set(cache.patients)) == n_patients
    assert b"SECRET" not in cache.path.read_bytes()


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_refused(run, tmp_path: Path, row: str) -> None:
    files, options, message = REFUSED[row]
    make(tmp_path / "disk", ["z.png"])
    root = tmp_path / "folder" if files is None else make(tmp_path / "folder", files)
    outcome = run("extract", "--data-root", root, *options)
    assert outcome.code == 2
    assert re.search(message, " ".join(outcome.stderr.split())), outcome.stderr


def test_prediction_finds_the_same_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make(tmp_path / "new", ["IM01", "p1/a.png", "n.txt", "masks/a.png"])
    assert find_images(root, Units()).names == [str(root / "IM01"), str(root / "p1/a.png")]
    assert "beside them: 1" in caplog.text


def test_data_set_and_cache_take_the_name(run, tmp_path: Path) -> None:
    root = make(tmp_path / "export 2026-11", ["a.png", "b.png"])
    assert run("extract", "--data-root", root, "--name", "ward").code == 0
    assert fc.open_cache(tmp_path / "cache/ward/tiny.h5").header.dataset == "ward"


def test_labels_are_added_from_a_table(run, tmp_path: Path) -> None:
    root = make(tmp_path / "xrays", ["a.png", "b.png", "list.csv"])
    assert run("extract", "--data-root", root).code == 0
    options = ("--label-column", "Edema", "--name", "xrays")
    outcome = run("extract", "--data-root", root, *options, "--json")
    assert outcome.json[0]["done"] == 0
    assert fc.open_cache(tmp_path / "cache/xrays/tiny.h5").labels.values.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("folders", "level"),
    [
        (["images"], 0),
        (["train/images", "test/images"], 0),
        (["train/p1", "train/p2", "test/p3"], 2),
    ],
)
def test_only_several_folders_may_be_patients(tmp_path: Path, folders, level: int) -> None:
    notes = " ".join(fc.load_dataset("images", make(tmp_path, images_in(*folders))).notes)
    assert ("If these are patients" in notes) == (level > 0)
    assert f"give `patient_level` {level}" in notes or not level
