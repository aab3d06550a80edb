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
from featurecache.datasets.release import CHEXPERT_LABELS
from featurecache.errors import DatasetError, UsageError
from tests.datasets.releases import (
    RELEASES,
    brax,
    chexpert,
    covidx,
    drawer,
    mimic_cxr_jpg,
    montgomery,
    padchest,
    shenzhen,
    vindr_kaggle,
    vindr_physionet,
)


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


@dataclass(frozen=True)
class Release:
    name: str
    root: Path
    expected: Expected


ALL = {"train", "val", "test"}

EXPECTED = {
    "chexpert": Expected(12, 6, 6, {"AP": 6, "LATERAL": 6}, ALL, "Atelectasis", (4, 0, 4, 4)),
    "padchest": Expected(12, 6, 6, {"PA": 6, "LATERAL": 6}, ALL, "pleural effusion", (4, 6, 0, 2)),
    "vindr-cxr/kaggle": Expected(6, None, None, {"unknown": 6}, ALL, "Cardiomegaly", (2, 4, 0, 0)),
    "vindr-cxr/physionet": Expected(
        6, None, None, {"unknown": 6}, ALL, "Cardiomegaly", (3, 3, 0, 0)
    ),
    "vindr-pcxr": Expected(6, None, None, {"unknown": 6}, ALL, "Brocho-pneumonia", (3, 3, 0, 0)),
    "rsna": Expected(6, 6, None, {"unknown": 6}, ALL, "Target", (3, 3, 0, 0)),
    "siim-acr": Expected(6, None, None, {"unknown": 6}, ALL, "Pneumothorax", (3, 3, 0, 0)),
    "openi/xml": Expected(12, 6, 6, {"unknown": 12}, ALL, "Cardiomegaly", (6, 6, 0, 0)),
    "openi/kaggle": Expected(
        12, 6, 6, {"unknown": 6, "LATERAL": 6}, ALL, "Cardiomegaly", (6, 6, 0, 0)
    ),
    "mimic-cxr-jpg": Expected(12, 6, 6, {"PA": 6, "LATERAL": 6}, ALL, "Atelectasis", (4, 4, 2, 2)),
    "brax": Expected(12, 6, 6, {"PA": 6, "LATERAL": 6}, ALL, "Atelectasis", (4, 0, 4, 4)),
    "montgomery": Expected(6, 6, None, {"unknown": 6}, ALL, "Tuberculosis", (3, 3, 0, 0)),
    "shenzhen": Expected(6, 6, None, {"unknown": 6}, ALL, "Tuberculosis", (3, 3, 0, 0)),
    "covidx": Expected(6, 6, None, {"unknown": 6}, ALL, "positive", (3, 3, 0, 0)),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    folder = tmp_path_factory.mktemp("pictures") / "phantom"
    generate_phantom(folder, n_images=20, seed=1, size=64)
    return [np.asarray(Image.open(file)) for file in sorted((folder / "images").iterdir())]


@pytest.fixture(scope="module", params=RELEASES)
def release(
    request: Any, pictures: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Release:
    root = tmp_path_factory.mktemp("release")
    RELEASES[request.param](root, drawer(root, cycle(pictures)))
    name = request.param.partition("/")[0]
    return Release(name, root, EXPECTED[request.param])


def test_release_is_described_without_images(release, tmp_path):
    name, root, expected = release.name, release.root, release.expected
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
    name, root = release.name, release.root
    monkeypatch.chdir(tmp_path)
    assert recognize_dataset(root) == name
    data = fc.load_dataset(root)
    cache = fc.extract(data, "tiny", backend="torch", precision="fp32")
    assert len(cache) == release.expected.images
    run = fc.train_head(cache, "prototype", controls=False, n_bootstrap=0)
    assert np.isfinite(run.scored.probability).any()


def test_empty_folder_names_the_missing_file(tmp_path):
    for name in {key.partition("/")[0] for key in RELEASES}:
        with pytest.raises(DatasetError, match=r"no .*(csv|xml|txt)"):
            fc.load_dataset(name, tmp_path)


def test_missing_images_are_counted(release, tmp_path):
    shutil.copytree(release.root, tmp_path / "half")
    image = fc.load_dataset(tmp_path / "half").files().popitem()[1]
    image.unlink()
    data = fc.load_dataset(tmp_path / "half")
    assert data.excluded["listed, but not on disk"] == 1
    assert len(data) == release.expected.images - 1


def test_compressed_table_and_folder_of_an_archive(pictures, tmp_path):
    inner = tmp_path / "CheXpert-v1.0-small"
    chexpert(inner, drawer(inner, cycle(pictures)))
    table = inner / "train.csv"
    with gzip.open(f"{table}.gz", "wb") as file:
        file.write(table.read_bytes())
    table.unlink()
    assert len(fc.load_dataset("chexpert", tmp_path)) == 12


def test_votes_of_readers(pictures, tmp_path):
    # Images 0 to 5 have 0, 1, 2, 3, 0 and 1 readers of three who state it.
    vindr_kaggle(tmp_path, drawer(tmp_path, cycle(pictures)))
    expected = {"any": [0, 1, 1, 1, 0, 1], "majority": [0, 0, 1, 1, 0, 0], 3: [0, 0, 0, 1, 0, 0]}
    for readers, positive in expected.items():
        data = fc.load_dataset("vindr-cxr", tmp_path, readers=readers)
        assert data.labels["Cardiomegaly"].tolist() == positive
    assert fc.load_dataset(tmp_path, readers="3").labels["Cardiomegaly"].sum() == 1
    with pytest.raises(UsageError, match="`readers` is 'most': give 'any', 'majority'"):
        fc.load_dataset(tmp_path, readers="most")


def test_tables_of_vindr_with_other_labels(pictures, tmp_path):
    vindr_physionet(tmp_path, drawer(tmp_path, cycle(pictures)))
    (tmp_path / "annotations" / "image_labels_test.csv").write_text("image_id,Cyst\nx,1\n")
    with pytest.raises(DatasetError, match=r"labels of .*test\.csv are not those of .*train\.csv"):
        fc.load_dataset(tmp_path)


def test_chexpert_with_labels_of_test_images(pictures, tmp_path):
    draw = drawer(tmp_path, cycle(pictures))
    chexpert(tmp_path, draw)
    notes = fc.load_dataset(tmp_path).notes
    assert any("The 4 images of valid.csv are test" in note for note in notes)
    path = "test/patient64741/study1/view1_frontal.jpg"
    draw(path)
    lines = [",".join(["Path", *sorted(CHEXPERT_LABELS)]), f"{path},1{13 * ',0'}"]
    (tmp_path / "test_labels.csv").write_text("\n".join(lines))
    data = fc.load_dataset(tmp_path)
    assert data.images["split"].value_counts().to_dict() == {"train": 8, "val": 4, "test": 1}
    assert data.labels.loc[path, "Atelectasis"] == 1
    by_patient = fc.load_dataset(tmp_path, split="patient")
    assert any("not the official one" in note for note in by_patient.notes)
    (tmp_path / "valid.csv").write_text(lines[0] + "\nscan.jpg,1" + 13 * ",0")
    with pytest.raises(DatasetError, match=r"valid\.csv, line 2: 'scan\.jpg' is not the path"):
        fc.load_dataset("chexpert", tmp_path)


def test_physicians_of_padchest(pictures, tmp_path):
    padchest(tmp_path, drawer(tmp_path, cycle(pictures)))
    data = fc.load_dataset("padchest", tmp_path, labels_from="physician")
    assert (len(data), data.excluded) == (6, {"not labeled by a physician": 6})
    assert set(data.images["age"]) == {"86"}
    assert "pseudonodule" in data.label_names


def test_mimic_study_without_labels_and_other_labeler(pictures, tmp_path):
    mimic_cxr_jpg(tmp_path, drawer(tmp_path, cycle(pictures)))
    data = fc.load_dataset("mimic-cxr-jpg", tmp_path)
    assert data.images["split"].value_counts().to_dict() == {"train": 6, "val": 2, "test": 4}
    assert any("2 images are of studies without labels" in note for note in data.notes)
    with pytest.raises(DatasetError, match=r"no mimic-cxr-2\.0\.0-negbio\.csv in"):
        fc.load_dataset("mimic-cxr-jpg", tmp_path, labeler="negbio")
    (tmp_path / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    with pytest.raises(DatasetError, match=r"official split needs .*split\.csv\.gz"):
        fc.load_dataset("mimic-cxr-jpg", tmp_path, split="official")


def test_studies_of_brax_are_unique_within_a_patient(pictures, tmp_path):
    brax(tmp_path, drawer(tmp_path, cycle(pictures)))
    images = fc.load_dataset("brax", tmp_path).images
    assert images["study"].nunique() == 6
    assert set(images["age"]) == {"40", "45", "50", "55", "60", "85"}


def test_texts_of_tuberculosis_sets(pictures, tmp_path):
    for name, write, sex, ages in (
        ("montgomery", montgomery, "F", ["20", "21", "22"]),
        ("shenzhen", shenzhen, "M", ["40", "41", "42"]),
    ):
        root = tmp_path / name
        write(root, drawer(root, cycle(pictures)))
        (root / "ClinicalReadings").joinpath(
            f"{fc.load_dataset(root).images['id'][5]}.txt"
        ).unlink()
        images = fc.load_dataset(root).images
        assert images["sex"].tolist() == [sex] * 5 + [""]
        assert images["age"].tolist()[:3] == ages


def test_line_of_covidx_without_all_words(pictures, tmp_path):
    covidx(tmp_path, drawer(tmp_path, cycle(pictures)))
    with (tmp_path / "train_COVIDx9B.txt").open("a") as file:
        file.write("\n12 x.png positive\n")
    with pytest.raises(DatasetError, match=r"9B\.txt, line 6: '12 x\.png positive' is not 'pat"):
        fc.load_dataset(tmp_path)
