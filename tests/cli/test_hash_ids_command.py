"""With --pseudonymize no id, patient or file name gets into anything that is written or said."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

SECRET = "zqxname"
"""In every id, patient, file name and folder, and in the header of a DICOM file."""


def write_dicom(path: Path, pixels: np.ndarray) -> None:
    found = pydicom.Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    found.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    found.PatientName = found.PatientID = found.InstitutionName = f"{SECRET}^DICOM"
    found.Rows, found.Columns = pixels.shape
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated, found.BitsStored, found.HighBit = 8, 8, 7
    found.PixelRepresentation = 0
    found.PixelData = pixels.tobytes()
    found.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 40 films of 20 patients; one is broken, one is missing, two are DICOM."""
    root = tmp_path_factory.mktemp("hospital")
    folder = root / f"{SECRET}-folder"
    folder.mkdir()
    rng = np.random.default_rng(1)
    lines = ["id,path,patient,split,Opacity"]
    for number in range(40):
        patient = number // 2
        split = "train" if patient < 10 else "val" if patient < 14 else "test"
        pixels = rng.integers(20, 120, (40, 40)).astype(np.uint8)
        pixels[10:30, 10:30] += 100 * (number % 2)
        name = f"{SECRET}-file-{number}." + ("dcm" if number in (3, 4) else "png")
        if number in (3, 4):
            write_dicom(folder / name, pixels)
        elif number == 30:
            (folder / name).write_bytes(b"no image")
        elif number != 31:
            Image.fromarray(pixels).save(folder / name)
        lines.append(
            f"{SECRET}-id-{number},{folder.name}/{name},{SECRET}-patient-{patient},{split},"
            f"{number % 2}"
        )
    damaged = folder / f"{SECRET}-file-4.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-300])
    (root / "films.csv").write_text("\n".join(lines) + "\n")
    (root / "key").write_bytes(b"0123456789abcdef")
    (root / "other-key").write_bytes(b"fedcba9876543210")
    return root


def table(named: Path, key: str | None = "key") -> list[object]:
    hashing = [] if key is None else ["--pseudonymize", named / key]
    return [
        *("--dataset", "csv", "--data-root", named / "films.csv", "--label-column", "Opacity"),
        *("--id-column", "id", *hashing),
    ]


def whole(named: Path, key: str | None = "key") -> list[object]:
    return [*table(named, key), "--patient-column", "patient", "--split-column", "split"]


class Said:
    """Runs commands, and keeps what they said."""

    def __init__(self, run: Any) -> None:
        self.run, self.everything = run, ""

    def __call__(self, *arguments: object, code: int = 0) -> Any:
        outcome = self.run(*arguments)
        self.everything += outcome.stdout + outcome.stderr
        assert outcome.code == code, outcome.stderr
        return outcome


def assert_nameless(said: str, folder: Path) -> None:
    assert SECRET not in said
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert SECRET not in str(path.relative_to(folder))
        assert SECRET.encode() not in path.read_bytes(), path


def test_nothing_that_leaves_holds_a_name_and_with_the_key_all_is_found_again(
    run, tiny_clip, named, tmp_path, monkeypatch
):
    monkeypatch.setenv("FEATURECACHE_LOG_FILE", str(tmp_path / "log"))
    say = Said(run)
    films = whole(named)
    first = say("extract", "--model", tiny_clip, *films, "--json").json[0]
    assert (first["done"], len(first["failed"])) == (37, 3)
    assert all(len(image) == 32 for image in first["failed"])
    # Said to people, too; and nothing is encoded anew.
    assert "37" in say("extract", "--model", tiny_clip, *films).stdout
    cache = Path(first["path"])
    info = say("cache", "info", cache, "--json").json
    assert info["ids"].startswith("pseudonymized with the key ")
    assert info["patients"] == 19  # both films of one could not be read
    say("cache", "info", cache)
    say("cache", "verify", cache)

    say("train-head", "--head", "baseline", "--n-bootstrap", 20, "--out", "runs/one")
    say("train-head", "--head", "linear", "--n-bootstrap", 20, "--out", "runs/two")
    say("compare", "runs/one", "runs/two", "--n-bootstrap", 20)
    with Path("runs/one/predictions.csv").open() as file:
        predicted = list(csv.DictReader(file))
    assert {len(row[column]) for row in predicted for column in ("id", "patient")} == {32}

    # The films, by the key: a sheet of them, pixels of pairs, and pictures on a page.
    say("retrieve", "--label", "Opacity", "--contact-sheet", "found.png", *table(named))
    film = next((named / f"{SECRET}-folder").glob("*-1.png"))
    by_file = say("retrieve", "--image", film, "--model", tiny_clip, *table(named)[-2:], "--json")
    by_id = say("retrieve", "--image", by_file.json["images"][0]["id"], "--json")
    assert by_id.json["images"]
    audited = say(
        "audit", *films, "--n-bootstrap", 20, "--contact-sheet", "pairs.png", "--json"
    ).json
    assert audited["shared_patients"]["patients"] == 0
    assert audited["near_duplicates"]["compared"] > 0
    say("report", "runs/one", "--n-bootstrap", 20, *films)
    assert Path("report.html").read_text().count("data:image/jpeg") > 0

    say("finetune", "--model", tiny_clip, *films, "--objective", "bce", "--epochs", 1,
        "--batch-size", 8, "--n-bootstrap", 0, "--out", "runs/tuned")  # fmt: skip
    assert len(json.loads(Path("runs/tuned/config.json").read_text())["failures"]) == 3
    say("extract", "--model", "runs/tuned", *films)
    say("evaluate", "runs/tuned", "--n-bootstrap", 0, "--cache", cache.with_name("tuned.h5"))
    log = Path("log").read_text()
    assert log.count(" WARNING failed: ") >= 6
    assert log.count(" end: exit code 0 ") == log.count(" command: ")
    assert_nameless(say.everything, tmp_path)


def test_shards_and_an_interrupted_extraction_have_no_names_and_merge(
    run, tiny_clip, named, tmp_path
):
    say = Said(run)
    extract = ["extract", "--model", tiny_clip, *whole(named)]
    for number in (1, 2):
        say(*extract, "--shard", f"{number}/2")
    say("cache", "merge", *sorted(Path("cache/films").glob("*-of-2.h5")))
    whole_cache = Path("cache/films/tiny-clip.h5")
    assert say(*extract, "--json").json[0]["done"] == 0
    whole_cache.unlink()

    from featurecache.store import builder

    def die(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "write_cache", die)
        say(*extract, code=130)
    assert list(Path("cache").rglob("part-*.h5"))
    assert_nameless(say.everything, tmp_path)

    # Parts know their key as caches do.
    refused = say("extract", "--model", tiny_clip, *whole(named, "other-key"), code=2)
    assert "every image would be stored twice" in refused.stderr
    assert "not pseudonymized" in say(*extract[:3], *whole(named, None), code=2).stderr


@pytest.mark.parametrize("second", ["other-key", None])
def test_another_key_or_none_adds_no_images_to_a_cache(run, tiny_clip, named, second):
    first = run("extract", "--model", tiny_clip, *whole(named), "--json").json[0]
    before = Path(first["path"]).read_bytes()
    for prune in ([], ["--prune"]):
        refused = run("extract", "--model", tiny_clip, *whole(named, second), *prune)
        assert refused.code == 2
        assert "give the --pseudonymize that it was begun with" in refused.stderr
        assert SECRET not in refused.stderr
    assert Path(first["path"]).read_bytes() == before


def test_a_cache_with_names_is_not_added_to_under_a_key(run, tiny_clip, named):
    assert run("extract", "--model", tiny_clip, *whole(named, None)).code == 0
    refused = run("extract", "--model", tiny_clip, *whole(named))
    assert refused.code == 2
    assert "give no --pseudonymize" in refused.stderr
    assert SECRET not in refused.stderr


def test_names_of_a_training_before_are_hashed_into_the_cache(run, tiny_clip, named):
    tuned = run("finetune", "--model", tiny_clip, *whole(named, None), "--objective", "bce",
                "--epochs", 1, "--batch-size", 8, "--n-bootstrap", 0, "--json").json["run"]  # fmt: skip
    assert SECRET in Path(tuned, "provenance.json").read_text()
    made = run("extract", "--model", tuned, *whole(named), "--json").json[0]
    assert SECRET.encode() not in Path(made["path"]).read_bytes()
    # The run has names and the cache hashes: nobody can tell which films it knows.
    refused = run("evaluate", tuned, "--cache", made["path"])
    assert refused.code == 2
    assert "--pseudonymize" in refused.stderr


def test_a_table_that_is_wrong_is_not_told_with_its_names(
    run, tiny_clip, named, tmp_path, monkeypatch
):
    root = tmp_path / "broken"
    shutil.copytree(named, root)
    table = root / "films.csv"
    table.write_text(table.read_text().replace("patient-0,train", "patient-0,test", 1))
    monkeypatch.setenv("FEATURECACHE_DEBUG", "1")  # no traceback has them either
    hashed = run("extract", "--model", tiny_clip, *whole(root))
    assert hashed.code == 2
    assert SECRET not in hashed.stderr
    assert "run the same without" in hashed.stderr
    assert (
        f"patient '{SECRET}-patient-0' is in two splits"
        in run("extract", "--model", tiny_clip, *whole(root, None)).stderr
    )


def test_a_key_that_is_too_short_is_refused_before_films_are_read(run, tiny_clip, named, tmp_path):
    (tmp_path / "short").write_bytes(b"123")
    refused = run("extract", "--model", tiny_clip, *whole(named, None), "--pseudonymize", "short")
    assert refused.code == 2
    assert "/dev/urandom" in refused.stderr
    assert not Path("cache").exists()
