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
from featurecache.errors import DatasetError, UnknownNameError, UsageError
from featurecache.extraction.provenance import is_exposed
from featurecache.provenance.leaks import require_unseen
from featurecache.provenance.provenance import Provenance
from featurecache.provenance.records import ImageRecords
from tests.datasets.releases import (
    RELEASES,
    brax,
    chestx_det,
    chexpert,
    chexpert_plus,
    covid_radiography,
    covidx,
    drawer,
    mimic_cxr_jpg,
    montgomery,
    padchest,
    padchest_gr,
    rsna,
    shenzhen,
    siim_acr,
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
    cells: tuple[int, ...]
    """Positive, negative, uncertain, blank and perhaps disputed cells of the label."""


@dataclass(frozen=True)
class Release:
    name: str
    root: Path
    expected: Expected


ALL = {"train", "val", "test"}

EXPECTED = {
    "chexpert": Expected(12, 6, 6, {"AP": 6, "LATERAL": 6}, ALL, "Atelectasis", (4, 0, 4, 4)),
    "chexpert-plus": Expected(12, 6, 6, {"AP": 6, "LATERAL": 6}, ALL, "Atelectasis", (4, 0, 4, 4)),
    "padchest-gr": Expected(6, 6, 6, {"unknown": 6}, ALL, "pleural effusion", (3, 3, 0, 0)),
    "nih-google": Expected(6, 6, None, {"AP": 6}, {"val", "test"}, "Pneumothorax", (3, 3, 0, 0)),
    "chestx-det": Expected(6, None, None, {"unknown": 6}, ALL, "Diffuse Nodule", (3, 3, 0, 0)),
    "covid-radiography": Expected(6, None, None, {"unknown": 6}, ALL, "Normal", (2, 4, 0, 0)),
    "padchest": Expected(12, 6, 6, {"PA": 6, "LATERAL": 6}, ALL, "pleural effusion", (4, 6, 0, 2)),
    "vindr-cxr/kaggle": Expected(
        6, None, None, {"unknown": 6}, ALL, "Cardiomegaly", (1, 2, 0, 0, 3)
    ),
    "vindr-cxr/physionet": Expected(
        6, None, None, {"unknown": 6}, ALL, "Cardiomegaly", (2, 2, 0, 0, 2)
    ),
    "vindr-pcxr": Expected(6, None, None, {"unknown": 6}, ALL, "Brocho-pneumonia", (3, 3, 0, 0)),
    "rsna": Expected(6, 6, None, {"unknown": 6}, ALL, "Target", (3, 3, 0, 0)),
    "siim-acr": Expected(6, None, None, {"unknown": 6}, ALL, "Pneumothorax", (3, 3, 0, 0)),
    "openi/xml": Expected(12, 6, 6, {"unknown": 12}, ALL, "Cardiomegaly", (6, 6, 0, 0)),
    "openi/kaggle": Expected(
        12, 6, 6, {"FRONTAL": 6, "LATERAL": 6}, ALL, "Cardiomegaly", (6, 6, 0, 0)
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


@pytest.fixture(scope="module")
def encoder() -> fc.Encoder:
    """Return an encoder that was trained on nothing; tiny has seen images of nih and kermany."""
    encoder = fc.load_encoder("tiny", backend="torch", precision="fp32")
    encoder.provenance = Provenance()
    return encoder


def test_release_is_recognized_and_trained_on(release, encoder, tmp_path, monkeypatch):
    name, root = release.name, release.root
    monkeypatch.chdir(tmp_path)
    assert recognize_dataset(root) == name
    options = {} if "train" in release.expected.splits else {"split": "patient"}
    data = fc.load_dataset(root, **options)
    cache = fc.extract(data, encoder)
    assert len(cache) == release.expected.images
    run = fc.train_head(cache, "prototype", controls=False, n_bootstrap=0)
    assert np.isfinite(run.scored.probability).any()


def test_empty_folder_names_the_missing_file(tmp_path):
    for name in {key.partition("/")[0] for key in RELEASES}:
        with pytest.raises(DatasetError, match=r"no .*(csv|xml|txt|json|xlsx)"):
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
    data = fc.load_dataset("vindr-cxr", tmp_path)
    column = data.label_names.index("Cardiomegaly")
    assert data.cells[:, column].tolist() == [0, 31, 32, 1, 0, 31]
    assert data.describe()["labels"]["Cardiomegaly"] == {
        **{"positive": 1, "negative": 2, "uncertain": 0, "blank": 0},
        "disputed": 3,
    }
    cache = fc.extract(data, "tiny", backend="torch", precision="fp32", cache_dir=tmp_path / "c")
    for readers, positive in expected.items():
        opened = fc.open_cache(cache.path, readers=readers)
        assert opened.labels.values[:, column].tolist() == positive
    with pytest.raises(UnknownNameError, match="policy `readers` 'most'"):
        fc.open_cache(cache.path, readers="most")


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
    assert data.images.set_index("id")["view"][path] == "FRONTAL"  # of its name
    assert data.notes[0] == "The labels are those of train.csv, valid.csv, test_labels.csv."
    by_patient = fc.load_dataset(tmp_path, split="patient")
    assert any("not the official one" in note for note in by_patient.notes)
    (tmp_path / "valid.csv").write_text(lines[0] + "\nscan.jpg,1" + 13 * ",0")
    with pytest.raises(DatasetError, match=r"valid\.csv, line 2: 'scan\.jpg' is not the path"):
        fc.load_dataset("chexpert", tmp_path)
    (tmp_path / "valid.csv").write_text(f"{lines[0]}\n{path},maybe{13 * ',0'}")
    with pytest.raises(DatasetError, match=r"valid\.csv, line 2: 'maybe'"):
        fc.load_dataset("chexpert", tmp_path)
    (tmp_path / "train.csv").write_text("Path,Lung Opacity\na,1")
    lacks = r"it has no column 'No Finding', .* and 10 more, but Path, Lung Opacity"
    with pytest.raises(DatasetError, match=rf"train\.csv is not the table .*: {lacks}"):
        fc.load_dataset("chexpert", tmp_path)


def test_physicians_of_padchest(pictures, tmp_path):
    padchest(tmp_path, drawer(tmp_path, cycle(pictures)))
    data = fc.load_dataset("padchest", tmp_path)
    by_physician = data.with_policy(fc.LabelPolicy(labels_from="physician"))
    known = (by_physician.label_values != -1).any(axis=1)
    assert set(data.images["age"][known]) == {"86"}
    assert known.sum() == 6
    np.testing.assert_array_equal(by_physician.label_values[known], data.label_values[known])
    assert (data.label_values[~known] != -1).any()
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


def test_mimic_studies_that_a_radiologist_read(pictures, tmp_path):
    mimic_cxr_jpg(tmp_path, drawer(tmp_path, cycle(pictures)))
    names = [name.replace("Lung Opacity", "Airspace Opacity") for name in sorted(CHEXPERT_LABELS)]
    rows = [f"{study},1.0,-1.0{12 * ','}" for study in (50414262, 50414264)]
    table = tmp_path / "mimic-cxr-2.1.0-test-set-labeled.csv"
    table.write_text("\n".join([",".join(["study_id", *names]), *rows]))
    data = fc.load_dataset("mimic-cxr-jpg", tmp_path, labeler="radiologist")
    assert (len(data), data.excluded) == (4, {"not labeled by the radiologist": 8})
    assert data.describe()["labels"]["Cardiomegaly"]["uncertain"] == 4
    assert "Airspace Opacity" in data.label_names
    assert data.images["split"].value_counts().to_dict() == {"train": 2, "test": 2}


def test_images_of_other_releases_have_their_ids(pictures, tmp_path):
    roots = [tmp_path / name for name in ("plus", "chexpert", "gr", "padchest")]
    writers = (chexpert_plus, chexpert, padchest_gr, padchest)
    for root, write in zip(roots, writers, strict=True):
        write(root, drawer(root, cycle(pictures)))
    plus, first, grounded, second = map(fc.load_dataset, roots)
    assert (plus.collection, grounded.collection) == ("chexpert", "padchest")
    for column in ("id", "patient", "study"):
        assert plus.images[column].tolist() == first.images[column].tolist()
        assert set(grounded.images["study"]) == set(second.images["study"])
    assert set(grounded.images["patient"]) == set(second.images["patient"])


def test_labels_of_chexpert_plus(pictures, tmp_path):
    chexpert_plus(tmp_path, drawer(tmp_path, cycle(pictures)))
    labels = tmp_path / "chexbert_labels" / "impression_fixed.json"
    lines = labels.read_text().splitlines()
    labels.rename(tmp_path / "report_fixed.json").write_text("\n".join(lines[1:]))
    data = fc.load_dataset(tmp_path, section="report")
    assert any("1 image has no labels in report_fixed.json" in note for note in data.notes)
    assert any("The 4 images of valid are test" in note for note in data.notes)
    with pytest.raises(DatasetError, match=r"no chexbert_labels/impression_fixed\.json or impr"):
        fc.load_dataset(tmp_path)
    (tmp_path / "report_fixed.json").write_text('{"path_to_image": "a.jpg"}')
    with pytest.raises(DatasetError, match=r"report_fixed\.json cannot be read as JSON.*KeyError"):
        fc.load_dataset(tmp_path, section="report")


def test_damaged_annotations_are_refused(pictures, tmp_path):
    chestx_det(tmp_path / "det", drawer(tmp_path / "det", cycle(pictures)))
    (tmp_path / "det" / "ChestX_Det_test.json").write_text('[{"file_name": "1", "syms": ["Mas"]}]')
    with pytest.raises(DatasetError, match=r"test\.json, image 1: .*'Mas'.*did you mean Mass"):
        fc.load_dataset(tmp_path / "det")
    (tmp_path / "det" / "ChestX_Det_test.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"test\.json lists nothing"):
        fc.load_dataset(tmp_path / "det")
    padchest_gr(tmp_path / "gr", drawer(tmp_path / "gr", cycle(pictures)))
    (tmp_path / "gr" / "master_table.csv").write_text("StudyID,PatientID,split\n1,2,train")
    with pytest.raises(DatasetError, match=r"master_table\.csv has no study 13537580341550490"):
        fc.load_dataset(tmp_path / "gr")


def test_classes_of_covid_radiography_need_no_files_of_metadata(pictures, tmp_path):
    covid_radiography(tmp_path, drawer(tmp_path, cycle(pictures)))
    listed = fc.load_dataset(tmp_path)
    for file in tmp_path.glob("*.xlsx"):
        file.unlink()
    assert fc.load_dataset(tmp_path).images["id"].tolist() == listed.images["id"].tolist()


def test_training_images_under_other_ids_are_found_by_a_mapping_or_refused(pictures, tmp_path):
    rsna(tmp_path, drawer(tmp_path, cycle(pictures)))
    tests = "00000001_000.png", "00000004_000.png"
    (tmp_path / "test_list.txt").write_text("\n".join(tests))
    nih = ["00000001_000.png", "00000002_000.png", "00000003_001.png"]

    def check(trained: list[str]) -> list[str]:
        data = fc.load_dataset(tmp_path)
        trained_on = {"nih": ImageRecords.of("nih", trained, patients=[i[:8] for i in trained])}
        return require_unseen(data.records(data.rows("test")), trained_on, by="the head")

    assert fc.load_dataset(tmp_path).split("test").images["id"].tolist() == [*tests]
    with pytest.raises(UsageError, match=r"trained on 1 of the 2 .* same id\).*'00000001_000.png'"):
        check(nih)
    with pytest.raises(UsageError, match="trained on other images of 1 patient"):
        check(["00000004_007.png"])
    assert check(nih[1:]) == []
    (tmp_path / "pneumonia-challenge-dataset-mappings_2018.json").unlink()
    assert "It holds images of nih, under other ids." in fc.load_dataset(tmp_path).notes
    with pytest.raises(UsageError, match=r"put pneumonia-.*\.json into the folder of rsna"):
        check(nih[1:])


def test_encoder_of_images_under_other_ids_is_refused(pictures, tmp_path):
    siim_acr(tmp_path, drawer(tmp_path, cycle(pictures)))
    data = fc.load_dataset(tmp_path)
    with pytest.raises(UsageError, match="tiny was trained on images of nih, which shares images"):
        fc.extract(data, "tiny", cache_dir=tmp_path)
    exposed = [is_exposed(data, Provenance((name,))) for name in ("siim-acr", "rsna", "kermany")]
    assert exposed == [True, True, False]


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
    for file in tmp_path.glob("*.txt"):
        file.write_text("")
    with pytest.raises(DatasetError, match=r"9B\.txt in .* list no image"):
        fc.load_dataset(tmp_path)
