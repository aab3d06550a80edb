from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featurecache.datasets.label_strings import label_matrix
from featurecache.datasets.load import load_dataset, recognize_dataset
from featurecache.datasets.nih import LABELS
from featurecache.datasets.table_reader import open_table
from featurecache.errors import DatasetError, UnknownNameError

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
CSV = "Data_Entry_2017_v2020.csv"


def row(image: str, findings: str = "No Finding", view: str = "PA", age: str = "50") -> str:
    patient = int(image.split("_")[0])
    return f"{image},{findings},0,{patient},{age},F,{view},3056,2544,0.139,0.139"


def write_csv(root: Path, *rows: str, name: str = CSV, header: str = HEADER) -> None:
    (root / name).write_text("\n".join([header, *rows]) + "\n")


def touch_images(root: Path, *names: str, folder: str = "images") -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / folder / name).touch()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of two patients, without lists."""
    write_csv(
        tmp_path,
        row("00000002_000.png", "Pleural_Thickening|Mass", "AP"),
        row("00000001_000.png"),
        row("00000002_001.png", "Hernia"),
    )
    touch_images(tmp_path, "00000001_000.png", "00000002_000.png", "00000002_001.png")
    return tmp_path


def split_of(root: Path, **options) -> dict[str, str]:
    images = load_dataset("nih", root, **options).images
    return dict(zip(images["id"], images["split"], strict=True))


def test_rows_become_images_with_labels_patients_and_views(root: Path) -> None:
    dataset = load_dataset("nih", root)
    assert dataset.name == "nih"
    assert dataset.images.drop(columns=["study", "split"]).to_numpy().tolist() == [
        ["00000001_000.png", "images/00000001_000.png", "1", "PA", "F", "50"],
        ["00000002_000.png", "images/00000002_000.png", "2", "AP", "F", "50"],
        ["00000002_001.png", "images/00000002_001.png", "2", "PA", "F", "50"],
    ]
    label_sets = [{LABELS[c] for c in np.flatnonzero(values)} for values in dataset.label_values]
    assert label_sets == [set(), {"Pleural_Thickening", "Mass"}, {"Hernia"}]


def test_impossible_ages_are_unknown(tmp_path: Path) -> None:
    ages = {"060Y": "60", "7": "7", "000": "0", "414": "", "": ""}
    names = [f"{number:08d}_000.png" for number in range(len(ages))]
    write_csv(tmp_path, *(row(name, age=age) for name, age in zip(names, ages, strict=True)))
    touch_images(tmp_path, *names)
    dataset = load_dataset("nih", tmp_path)
    assert dataset.images["age"].tolist() == list(ages.values())
    note = "The age in the column 'age': '414' (1) read as unknown."
    assert note in dataset.notes


def test_older_release_with_trailing_comma_is_read(root: Path) -> None:
    lines = (root / CSV).read_text().splitlines()
    new = load_dataset("nih", root)
    (root / CSV).unlink()
    (root / "Data_Entry_2017.csv").write_text("".join(f"{line},\n" for line in lines))
    old = load_dataset("nih", root)
    pd.testing.assert_frame_equal(old.images, new.images)
    assert old.label_values.tolist() == new.label_values.tolist()


def test_images_in_archive_folders_are_found(root: Path) -> None:
    (root / "images").rename(root / "images_012")
    touch_images(root, folder="images_012/images")
    for image in (root / "images_012").glob("*.png"):
        image.rename(root / "images_012" / "images" / image.name)
    (root / "images_012/images/00000001_000.png").unlink()
    touch_images(root, "00000001_000.png", folder="images_001/images")
    assert load_dataset("nih", root).images["path"].tolist() == [
        "images_001/images/00000001_000.png",
        "images_012/images/00000002_000.png",
        "images_012/images/00000002_001.png",
    ]


def test_unmatched_rows_and_images_are_dropped_and_noted(root: Path) -> None:
    (root / "images/00000001_000.png").unlink()
    touch_images(root, "00000009_000.png", "00000009_001.png")
    dataset = load_dataset("nih", root)
    assert dataset.images["id"].tolist() == ["00000002_000.png", "00000002_001.png"]
    assert f"Left out: 1 of 3 images of {CSV}, not on disk." in dataset.notes
    assert f"Left out: 2 of 4 images on disk, without a row in {CSV}." in dataset.notes
    assert dataset.excluded == {"listed, but not on disk": 1, "on disk, but not listed": 2}


def test_auto_split_is_official_if_the_test_list_exists(root: Path) -> None:
    assert any("not the official one" in note for note in load_dataset("nih", root).notes)
    (root / "test_list.txt").write_text("00000001_000.png\r\n\r\n")
    assert any("is the official one" in note for note in load_dataset("nih", root).notes)
    patient = load_dataset("nih", root, split="patient")
    assert any("not the official one" in note for note in patient.notes)


def test_official_split_carves_validation_from_the_rest(root: Path) -> None:
    names = [f"{patient:08d}_{i:03d}.png" for patient in range(10, 50) for i in range(2)]
    write_csv(root, *[row(name) for name in names])
    touch_images(root, *names)
    (root / "test_list.txt").write_text("\n".join(names[:20]))
    split = split_of(root, split="official")
    assert {name for name, part in split.items() if part == "test"} == set(names[:20])
    assert list(split.values()).count("val") == 6
    assert split_of(root, seed=0) == split
    assert split_of(root, seed=1) != split


def test_lists_must_contain_each_image_once(root: Path) -> None:
    (root / "test_list.txt").write_text("00000001_000.png\n")
    (root / "train_val_list.txt").write_text("00000002_000.png\n")
    with pytest.raises(DatasetError, match=r"00000002_001.png is in neither of train_val_list"):
        load_dataset("nih", root)
    (root / "train_val_list.txt").write_text(
        "00000001_000.png\n00000002_000.png\n00000002_001.png\n"
    )
    with pytest.raises(DatasetError, match=r"00000001_000.png is in both of train_val_list"):
        load_dataset("nih", root)


def test_lists_that_separate_a_patient_are_refused(root: Path) -> None:
    (root / "test_list.txt").write_text("00000002_000.png\n")
    with pytest.raises(DatasetError, match=r"'2' is in two splits: .*\(line [24]\)"):
        load_dataset("nih", root)


def test_official_split_without_list_is_refused(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"needs .*test_list\.txt"):
        load_dataset("nih", root, split="official")


def test_unknown_split_is_refused(root: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean official"):
        load_dataset("nih", root, split="offical")


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ([CSV, "Data_Entry_2017.csv", f"{CSV}.gz"], CSV),
        (["Data_Entry_2017_v2020_full.csv.gz", "Data_Entry_2017.csv"], "Data_Entry_2017.csv"),
        (["Data_Entry_2017_full.csv", "Data_Entry_2017_mine.csv"], "Data_Entry_2017_mine.csv"),
        (["Data_Entry_2017_full.csv", "Data_Entry_2017_list.txt"], "Data_Entry_2017_full.csv"),
    ],
)
def test_preferred_metadata_file_is_read(root: Path, files: list[str], chosen: str) -> None:
    content = (root / CSV).read_text()
    (root / CSV).unlink()
    for file in files:
        (root / file).write_text(content if file == chosen else "not this one")
    assert load_dataset("nih", root).notes[0] == f"The labels are those of {chosen}."


def test_ambiguous_metadata_files_are_refused(root: Path) -> None:
    (root / CSV).unlink()
    write_csv(root, name="Data_Entry_2017_a.csv")
    write_csv(root, name="Data_Entry_2017_b.csv")
    with pytest.raises(
        DatasetError, match=r"contains Data_Entry_2017_a\.csv and Data_Entry_2017_b"
    ):
        load_dataset("nih", root)


def test_folder_without_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no Data_Entry_2017\*\.csv in"):
        load_dataset("nih", tmp_path)


def test_unknown_finding_is_refused_even_without_image(root: Path) -> None:
    write_csv(root, row("00000001_000.png"), row("00000077_000.png", "Pneumonya"))
    with pytest.raises(DatasetError, match=r"line 3: .*'Pneumonya': did you mean Pneumonia"):
        load_dataset("nih", root)


def test_no_finding_beside_a_finding_is_refused(root: Path) -> None:
    write_csv(root, row("00000001_000.png", "No Finding|Mass"))
    with pytest.raises(DatasetError, match=r"line 2: 'No Finding' together"):
        load_dataset("nih", root)


def test_missing_column_is_refused(root: Path) -> None:
    header = HEADER.replace("Patient ID", "PatientID")
    write_csv(root, row("00000001_000.png"), header=header)
    with pytest.raises(DatasetError, match="no column 'Patient ID', but Image Index"):
        load_dataset("nih", root)


def test_image_with_two_rows_is_refused(root: Path) -> None:
    write_csv(root, row("00000001_000.png"), row("00000001_000.png", "Mass"))
    with pytest.raises(DatasetError, match=r"'00000001_000.png' \(line 3\) occurs twice"):
        load_dataset("nih", root)


def test_two_images_of_one_name_are_refused(root: Path) -> None:
    touch_images(root, "00000001_000.png", folder="images_003/images")
    (root / "images_003/images/00000001_000.png").write_bytes(b"another size")
    with pytest.raises(DatasetError, match=r"images/00000001_000.png and images_003/images/0"):
        load_dataset("nih", root)


def test_root_without_images_is_refused(root: Path) -> None:
    for image in (root / "images").iterdir():
        image.unlink()
    with pytest.raises(DatasetError, match=r"none of the 3 images of .* is in .*: unpack"):
        load_dataset("nih", root)


@pytest.mark.parametrize(
    ("metadata", "folder", "test_list"),
    [
        ("sample_labels.csv", "sample/images", None),
        ("Data_Entry_2017.csv", "images-224/images-224", "test_list_NIH.txt"),
        ("Data_Entry_2017.csv", "images/images", "test_list.txt"),
    ],
)
def test_layouts_of_kaggle(
    tmp_path: Path, metadata: str, folder: str, test_list: str | None
) -> None:
    root = tmp_path / "archive" / "nih"
    names = [f"0000000{number}_000.png" for number in range(1, 6)]
    touch_images(root, *names, folder=folder)
    touch_images(root, *names, folder=f"{folder.split('/')[0]}/{folder}")  # a copy, deeper
    touch_images(root, names[0], folder="originals")
    write_csv(root, *map(row, names), name=metadata)
    if test_list:
        (root / test_list).write_text("\n".join(names[3:]))
    assert recognize_dataset(tmp_path / "archive") == "nih"
    dataset = load_dataset(tmp_path / "archive")
    assert dataset.images["path"].tolist() == [f"{folder}/{name}" for name in names]
    assert any("5 images are on disk twice" in note for note in dataset.notes)
    is_official = (dataset.images["split"] == "test").tolist() == [False] * 3 + [True] * 2
    assert is_official == (test_list is not None)


def test_folds_replace_the_official_split(root: Path) -> None:
    touch_images(root, "00000003_000.png")
    write_csv(root, *(row(f"0000000{number}_000.png") for number in (1, 2, 3)))
    (root / "test_list.txt").write_text("00000001_000.png")
    splits = [split_of(root, folds=3, fold=fold) for fold in (1, 2, 3)]
    assert [sorted(split.values()) for split in splits] == [["test", "train", "val"]] * 3
    assert len({next(iter(split.values())) for split in splits}) == 3


def test_images_without_any_row_are_refused(root: Path) -> None:
    write_csv(root, row("00000099_000.png"))
    with pytest.raises(DatasetError, match="none of 3 images"):
        load_dataset("nih", root)


def test_real_subset_has_the_documented_counts(shared_data: Path) -> None:
    dataset = load_dataset("nih", shared_data / "nih")
    assert len(dataset) == 712
    assert dataset.images["patient"].nunique() == 478
    assert dataset.images["view"].value_counts().to_dict() == {"AP": 421, "PA": 291}
    counts = dict(zip(LABELS, dataset.label_values.sum(axis=0).tolist(), strict=True))
    assert counts == {
        "Atelectasis": 76,
        "Cardiomegaly": 11,
        "Consolidation": 26,
        "Edema": 60,
        "Effusion": 52,
        "Emphysema": 6,
        "Fibrosis": 6,
        "Hernia": 0,
        "Infiltration": 120,
        "Mass": 11,
        "Nodule": 16,
        "Pleural_Thickening": 19,
        "Pneumonia": 339,
        "Pneumothorax": 9,
    }
    test = dataset.rows("test")
    assert len(test) == 87
    assert dataset.label_values[test, LABELS.index("Pneumonia")].all()
    (note,) = [note for note in dataset.notes if note.startswith("In test")]
    assert "Pneumonia" in note
    assert "Hernia" in note
    assert "Edema" not in note
    # 625 images are not test; whole patients of up to a dozen images make 10 % approximate.
    assert abs(len(dataset.rows("val")) - 62.5) < 6


def test_real_labels_agree_with_pandas(shared_data: Path) -> None:
    dataset = load_dataset("nih", shared_data / "nih", split="patient")
    table = pd.read_csv(shared_data / "nih" / CSV, index_col=False, usecols=range(7))
    table = table.sort_values("Image Index")
    assert dataset.images["id"].tolist() == table["Image Index"].tolist()
    expected = (
        table["Finding Labels"].str.get_dummies("|").reindex(columns=list(LABELS), fill_value=0)
    )
    assert dataset.label_values.tolist() == expected.to_numpy().tolist()
    assert dataset.images["sex"].tolist() == table["Patient Gender"].tolist()
    assert dataset.images["age"].tolist() == table["Patient Age"].astype(str).tolist()


def test_full_metadata_has_the_published_totals(shared_data: Path) -> None:
    csv = shared_data / "nih" / "Data_Entry_2017_v2020_full.csv.gz"
    table = open_table(csv).read(["Finding Labels", "Patient ID"])
    _, labels, _ = label_matrix(table["Finding Labels"], LABELS, file=csv, separator="|")
    assert len(table) == 112_120
    assert table["Patient ID"].nunique() == 30_805
    assert table.index[[0, -1]].tolist() == [2, 112_121]
    assert (labels.sum(axis=1) == 0).sum() == 60_361
    assert dict(zip(LABELS, labels.sum(axis=0).tolist(), strict=True)) == {
        "Atelectasis": 11559,
        "Cardiomegaly": 2776,
        "Consolidation": 4667,
        "Edema": 2303,
        "Effusion": 13317,
        "Emphysema": 2516,
        "Fibrosis": 1686,
        "Hernia": 227,
        "Infiltration": 19894,
        "Mass": 5782,
        "Nodule": 6331,
        "Pleural_Thickening": 3385,
        "Pneumonia": 1431,
        "Pneumothorax": 5302,
    }


def test_compressed_metadata_is_read(shared_data: Path, tmp_path: Path) -> None:
    name = "Data_Entry_2017_v2020_full.csv.gz"
    (tmp_path / name).symlink_to(shared_data / "nih" / name)
    touch_images(tmp_path, "00000001_001.png")
    dataset = load_dataset("nih", tmp_path)
    assert dataset.label_values.sum() == 2
    assert any(note.startswith("Left out: 112,119 of 112,120 images") for note in dataset.notes)


def test_boxes_have_labels_and_belong_to_images(root: Path) -> None:
    boxes = root / "BBox_List_2017.csv"
    header = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    rows = ["00000002_001.png,Infiltrate,225.0,547.5,86.5,79.0", "00000009_000.png,Mass,1,2,3,4"]
    boxes.write_text("\n".join([header, *rows]))
    dataset = load_dataset("nih", root)
    assert dataset.boxes.to_numpy().tolist() == [
        ["00000002_001.png", "Infiltration", 225.0, 547.5, 86.5, 79.0, 1024.0, 1024.0]
    ]
    described = {"boxes": 1, "images": 1, "labels": {"Infiltration": 1}}
    assert dataset.describe()["boxes"] == described
    assert dataset.take(np.array([0])).describe()["boxes"] is None
    boxes.write_text(f"{header}\n{rows[0].replace('86.5', '-1')}")
    with pytest.raises(DatasetError, match=r"BBox_List_2017\.csv, line 2: .* is no box"):
        load_dataset("nih", root)
