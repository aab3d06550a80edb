"""With --pseudonymize, no id, patient or file name is written or printed."""

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
"""Part of every id, patient, file name and folder, and of the headers of DICOM files."""


def write_dicom(path: Path, pixels: np.ndarray) -> None:
    dicom = pydicom.Dataset()
    dicom.file_meta = FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dicom.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dicom.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dicom.PatientName = dicom.PatientID = dicom.InstitutionName = f"{SECRET}^DICOM"
    dicom.Rows, dicom.Columns = pixels.shape
    dicom.SamplesPerPixel, dicom.PhotometricInterpretation = 1, "MONOCHROME2"
    dicom.BitsAllocated, dicom.BitsStored, dicom.HighBit = 8, 8, 7
    dicom.PixelRepresentation = 0
    dicom.PixelData = pixels.tobytes()
    dicom.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create 40 images of 20 patients (one damaged, one missing, two DICOM) and a CSV file."""
    return write_images(tmp_path_factory.mktemp("hospital"), dicom=(3, 4))


@pytest.fixture(scope="module")
def pngs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the same without DICOM files, which are slow to read."""
    return write_images(tmp_path_factory.mktemp("hospital"), dicom=())


def write_images(root: Path, dicom: tuple[int, ...]) -> Path:
    folder = root / f"{SECRET}-folder"
    folder.mkdir()
    rng = np.random.default_rng(1)
    lines = ["id,path,patient,split,Opacity"]
    for number in range(40):
        patient = number // 2
        split = "train" if patient < 10 else "val" if patient < 14 else "test"
        pixels = rng.integers(20, 120, (40, 40)).astype(np.uint8)
        pixels[10:30, 10:30] += 100 * (number % 2)
        name = f"{SECRET}-file-{number}." + ("dcm" if number in dicom else "png")
        if number in dicom:
            write_dicom(folder / name, pixels)
        elif number == 30:
            (folder / name).write_bytes(b"no image")
        elif number != 31:
            Image.fromarray(pixels).save(folder / name)
        lines.append(
            f"{SECRET}-id-{number},{folder.name}/{name},{SECRET}-patient-{patient},{split},"
            f"{number % 2}"
        )
    for number in dicom[1:]:
        damaged = folder / f"{SECRET}-file-{number}.dcm"
        damaged.write_bytes(damaged.read_bytes()[:-300])
    (root / "xrays.csv").write_text("\n".join(lines) + "\n")
    (root / "key").write_bytes(b"0123456789abcdef")
    (root / "other-key").write_bytes(b"fedcba9876543210")
    return root


def options_without_splits(named: Path, key: str | None = "key") -> list[object]:
    pseudonymize = [] if key is None else ["--pseudonymize", named / key]
    return [
        *("--dataset", "csv", "--data-root", named / "xrays.csv", "--label-column", "Opacity"),
        *("--id-column", "id", *pseudonymize),
    ]


def dataset_options(named: Path, key: str | None = "key") -> list[object]:
    return [
        *options_without_splits(named, key),
        "--patient-column",
        "patient",
        "--split-column",
        "split",
    ]


class Recorder:
    """Runs commands and keeps their output."""

    def __init__(self, run: Any) -> None:
        self.run, self.output = run, ""

    def __call__(self, *arguments: object, code: int = 0) -> Any:
        outcome = self.run(*arguments)
        self.output += outcome.stdout + outcome.stderr
        assert outcome.code == code, outcome.stderr
        return outcome


def assert_no_names(output: str, folder: Path) -> None:
    """Check that neither the output nor any file of a folder contains a name."""
    assert SECRET not in output
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert SECRET not in str(path.relative_to(folder))
        assert SECRET.encode() not in path.read_bytes(), path


def test_no_command_writes_or_prints_names_and_the_key_finds_the_images(
    run, tiny_clip, named, tmp_path, monkeypatch
):
    monkeypatch.setenv("FEATURECACHE_LOG_FILE", str(tmp_path / "log"))
    execute = Recorder(run)
    options = dataset_options(named)
    first = execute("extract", "--model", tiny_clip, *options, "--json").json[0]
    assert (first["done"], len(first["failed"])) == (37, 3)
    assert all(len(image) == 32 for image in first["failed"])
    assert "37" in execute("extract", "--model", tiny_clip, *options).stdout  # reused
    cache = Path(first["path"])
    info = execute("cache", "info", cache, "--json").json
    assert info["ids"].startswith("pseudonymized with the key ")
    assert info["patients"] == 19  # neither image of the other can be read
    execute("cache", "info", cache)
    execute("cache", "verify", cache)

    execute("train-head", "--head", "baseline", "--n-bootstrap", 20, "--out", "runs/baseline")
    execute("train-head", "--head", "linear", "--n-bootstrap", 20, "--out", "runs/linear")
    execute("compare", "runs/baseline", "runs/linear")
    with Path("runs/baseline/predictions.csv").open() as file:
        predicted = list(csv.DictReader(file))
    assert {len(row[column]) for row in predicted for column in ("id", "patient")} == {32}

    # With the key, these commands find the image files.
    execute(
        "retrieve",
        "--label",
        "Opacity",
        "--contact-sheet",
        "sheet.png",
        *options_without_splits(named),
    )
    image = next((named / f"{SECRET}-folder").glob("*-1.png"))
    by_file = execute(
        "retrieve",
        "--image",
        image,
        "--model",
        tiny_clip,
        *options_without_splits(named)[-2:],
        "--json",
    )
    by_id = execute("retrieve", "--image", by_file.json["images"][0]["id"], "--json")
    assert by_id.json["images"]
    for key in ((), options_without_splits(named)[-2:]):  # an original id is not repeated
        execute("retrieve", "--image", f"{SECRET}-id-1", *key, code=2)
    audited = execute(
        "audit", *options, "--n-bootstrap", 20, "--contact-sheet", "pairs.png", "--json"
    ).json
    assert audited["shared_patients"]["patients"] == 0
    assert audited["near_duplicates"]["compared"] > 0
    execute("report", "runs/baseline", *options)
    assert Path("report.html").read_text().count("data:image/jpeg") > 0

    execute("finetune", "--model", tiny_clip, *options, "--objective", "bce", "--epochs", 1,
        "--batch-size", 8, "--n-bootstrap", 0, "--out", "runs/tuned")  # fmt: skip
    assert len(json.loads(Path("runs/tuned/config.json").read_text())["failures"]) == 3
    execute("extract", "--model", "runs/tuned", *options)
    execute("evaluate", "runs/tuned", "--n-bootstrap", 0, "--cache", cache.with_name("tuned.h5"))
    log = Path("log").read_text()
    assert log.count(" WARNING failed: ") >= 6
    assert log.count(" end: exit code 0 ") == log.count(" command: ") - 2
    assert_no_names(execute.output, tmp_path)


def test_shards_and_interrupted_extractions_have_no_names(run, tiny_clip, pngs, tmp_path):
    execute = Recorder(run)
    extract = ["extract", "--model", tiny_clip, *dataset_options(pngs)]
    for number in (1, 2):
        execute(*extract, "--shard", f"{number}/2")
    execute("cache", "merge", *sorted(Path("cache/xrays").glob("*-of-2.h5")))
    merged = Path("cache/xrays/tiny-clip.h5")
    assert execute(*extract, "--json").json[0]["done"] == 0
    merged.unlink()

    from featurecache.store import builder

    def die(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "write_cache", die)
        execute(*extract, code=130)
    assert list(Path("cache").rglob("part-*.h5"))
    assert_no_names(execute.output, tmp_path)

    # Unfinished caches record the key, too.
    refused = execute("extract", "--model", tiny_clip, *dataset_options(pngs, "other-key"), code=2)
    assert "every image would be stored twice" in refused.stderr
    assert "not pseudonymized" in execute(*extract[:3], *dataset_options(pngs, None), code=2).stderr


@pytest.mark.parametrize("second", ["other-key", None])
def test_images_with_another_key_or_none_are_not_added_to_a_cache(run, tiny_clip, pngs, second):
    first = run("extract", "--model", tiny_clip, *dataset_options(pngs), "--json").json[0]
    before = Path(first["path"]).read_bytes()
    for prune in ([], ["--prune"]):
        refused = run("extract", "--model", tiny_clip, *dataset_options(pngs, second), *prune)
        assert refused.code == 2
        assert "give the same key file as --pseudonymize" in refused.stderr
        assert SECRET not in refused.stderr
    assert Path(first["path"]).read_bytes() == before


def test_pseudonymized_images_are_not_added_to_a_cache_with_names(run, tiny_clip, pngs):
    assert run("extract", "--model", tiny_clip, *dataset_options(pngs, None)).code == 0
    refused = run("extract", "--model", tiny_clip, *dataset_options(pngs))
    assert refused.code == 2
    assert "leave out --pseudonymize" in refused.stderr
    assert SECRET not in refused.stderr


def test_names_of_training_images_are_pseudonymized_in_the_cache(run, tiny_clip, pngs):
    outcome = run(
        *(
            "finetune",
            "--model",
            tiny_clip,
            *dataset_options(pngs, None),
            "--objective",
            "bce",
        ),
        *("--epochs", 1, "--batch-size", 8, "--n-bootstrap", 0, "--json"),
    )
    tuned = outcome.json["run"]
    assert SECRET in Path(tuned, "provenance.json").read_text()
    cache = run("extract", "--model", tuned, *dataset_options(pngs), "--json").json[0]
    assert SECRET.encode() not in Path(cache["path"]).read_bytes()
    # The run has names and the cache has hashes: content is compared, but patients cannot be.
    refused = run("evaluate", tuned, "--cache", cache["path"], "--split", "all")
    assert refused.code == 2
    assert "with the same file" in refused.stderr
    tested = run("evaluate", tuned, "--cache", cache["path"], "--n-bootstrap", 0, "--json")
    assert any("cannot be compared" in text for text in tested.json["warnings"])


def test_errors_in_the_data_set_do_not_print_names(run, tiny_clip, named, tmp_path, monkeypatch):
    root = tmp_path / "broken"
    shutil.copytree(named, root)
    csv_file = root / "xrays.csv"
    csv_file.write_text(csv_file.read_text().replace("patient-0,train", "patient-0,test", 1))
    monkeypatch.setenv("FEATURECACHE_DEBUG", "1")  # tracebacks must not print them either
    refused = run("extract", "--model", tiny_clip, *dataset_options(root))
    assert refused.code == 2
    assert SECRET not in refused.stderr
    assert "run the same without" in refused.stderr
    assert (
        f"patient '{SECRET}-patient-0' is in two splits"
        in run("extract", "--model", tiny_clip, *dataset_options(root, None)).stderr
    )


def test_short_key_is_refused_before_any_image_is_read(run, tiny_clip, named, tmp_path):
    (tmp_path / "short").write_bytes(b"123")
    refused = run(
        "extract", "--model", tiny_clip, *dataset_options(named, None), "--pseudonymize", "short"
    )
    assert refused.code == 2
    assert "/dev/urandom" in refused.stderr
    assert not Path("cache").exists()
