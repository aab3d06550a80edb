import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featurecache.datasets.boxes import BOX_COLUMNS, read_box_file, with_image_sizes
from featurecache.errors import DatasetError, UsageError
from featurecache.evaluation.localization import _with_image_sizes
from tests.evaluation.toy_caches import write_toy_cache
from tests.images.test_dicom import dicom_file

NAN = float("nan")
OWN = "label,id,x,y,width,height,image_width,image_height\nMass,a.png,1,2,30,40,200,100\n"
NIH = "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Infiltrate,5,6.5,7,8,,,\n"
RSNA = "patientId,x,y,width,height,Target\nb,,,,,0\na,264.0,152.0,213.0,379.0,1\n"
VINDR = (
    "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
    "b,R1,No finding,,,,\na,R2,Other diseases,10,20,110.5,220\n"
)
CHESTX_DET = [
    {"file_name": "b.png", "syms": [], "boxes": [], "polygons": []},
    {"file_name": "a.png", "syms": ["Mass"], "boxes": [[10, 20, 30, 60]], "polygons": [[]]},
]
FINDING = {"labels": ["nodule "], "boxes": [[0.25, 0.5, 0.5, 0.75]], "extra_boxes": [[0, 0, 1, 1]]}
PADCHEST_GR = [
    {"StudyID": "1", "ImageID": "b.png", "findings": [{"abnormal": False, "labels": []}]},
    {"StudyID": "2", "ImageID": "a.png", "findings": [{"abnormal": True, **FINDING}]},
]


def read(tmp_path: Path, content: object) -> tuple[pd.DataFrame, list[str]]:
    is_table = isinstance(content, str)
    file = tmp_path / ("boxes.csv" if is_table else "boxes.json")
    file.write_text(content if is_table else json.dumps(content))
    notes: list[str] = []
    return read_box_file(file, notes), notes


@pytest.mark.parametrize(
    ("content", "row"),
    [
        (OWN, ["a.png", "Mass", 1, 2, 30, 40, 200, 100]),
        (OWN.replace(",image_height", ",other"), ["a.png", "Mass", 1, 2, 30, 40, NAN, NAN]),
        (NIH, ["a.png", "Infiltration", 5, 6.5, 7, 8, 1024, 1024]),
        (RSNA, ["a", "Target", 264, 152, 213, 379, 1024, 1024]),
        (VINDR, ["a", "Other disease", 10, 20, 100.5, 200, NAN, NAN]),
        (CHESTX_DET, ["a.png", "Mass", 10, 20, 20, 40, 1024, 1024]),
        (PADCHEST_GR, ["a.png", "nodule", 0.25, 0.5, 0.25, 0.25, 1, 1]),
    ],
    ids=["own", "own without sizes", "nih", "rsna", "vindr", "chestx-det", "padchest-gr"],
)
def test_files_of_boxes(tmp_path: Path, content: object, row: list) -> None:
    boxes, notes = read(tmp_path, content)
    assert boxes.columns.tolist() == list(BOX_COLUMNS)
    assert boxes[["id", "label"]].to_numpy().tolist() == [row[:2]]
    np.testing.assert_array_equal(boxes.to_numpy()[0, 2:].astype(float), row[2:])
    assert notes == []


def test_ids_of_rsna_are_those_of_nih_by_its_mapping(tmp_path: Path) -> None:
    mapping = [{"subset_img_id": name, "img_id": f"0000000{name}_000.png"} for name in "ab"]
    file = tmp_path / "pneumonia-challenge-dataset-mappings_2018.json"
    file.write_text(json.dumps(mapping))
    assert read(tmp_path, RSNA)[0]["id"].tolist() == ["0000000a_000.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label,x\na,1\n", "has no column id, y, width, height: a table of boxes has"),
        (OWN.replace(",200,", ",0,"), r"line 2: the box of 'Mass' in 'a.png' .* cannot have this"),
        (OWN.replace(",200,", ",99999,"), "line 2: .* cannot have this size"),
        (OWN.replace(",30,", ",-30,"), "line 2: .* is no box"),
        (OWN.replace(",1,2,", ",,2,"), "line 2: .* is no box"),
        (OWN.replace(",1,2,30,40,", ",0.1,0.2,0.3,0.4,"), "line 2: .* is smaller than a pixel"),
        (OWN.replace(",1,2,", ",200,2,"), "line 2: .*x 200, .*image_width 200.* lies outside"),
        (OWN.replace(",1,2,", ",-30,2,"), "line 2: .* lies outside of the image"),
        (VINDR.replace(",110.5,", ",9,"), "line 3: .* is no box"),
        ([{**CHESTX_DET[1], "boxes": [[1100, 20, 1200, 60]]}], "image 1: .* lies outside"),
        ([{**CHESTX_DET[1], "boxes": []}], "image 1: its boxes cannot be read"),
        ([{"a": 1}], "give a file of ChestX-Det or PadChest-GR"),
    ],
)
def test_boxes_that_cannot_be_placed_are_refused(
    tmp_path: Path, content: object, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, content)


def test_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("nofile.csv", "nofile.json"):
        with pytest.raises(DatasetError, match=f"{name} does not exist"):
            read_box_file(tmp_path / name, [])


def test_boxes_are_cut_at_the_edge_of_the_image(tmp_path: Path) -> None:
    boxes, notes = read(tmp_path, OWN.replace(",1,2,30,40,", ",-10,70,30,40,"))
    assert boxes.loc[2, ["x", "y", "width", "height"]].tolist() == [0, 70, 20, 30]
    assert notes == ["1 box reaches beyond the image, and is cut at its edge."]


def test_boxes_get_the_sizes_of_their_images(tmp_path: Path) -> None:
    notes: list[str] = []
    pixels, _ = read(tmp_path, VINDR)
    boxes = with_image_sizes(pixels, {"a": (100, 200)}, notes)
    assert boxes.to_numpy().tolist() == [["a", "Other disease", 10, 20, 90, 180, 100, 200]]
    assert notes == ["1 box reaches beyond the image, and is cut at its edge."]
    shares, _ = read(tmp_path, PADCHEST_GR)
    boxes = with_image_sizes(shares, {"a.png": (400, 200)}, notes)
    assert boxes.to_numpy().tolist() == [["a.png", "nodule", 100, 100, 100, 50, 400, 200]]
    with pytest.raises(DatasetError, match=r"`boxes`, line 3: .* in 'a' .* lies outside"):
        with_image_sizes(pixels, {"a": (100, 20)}, notes)


def test_sizes_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = write_toy_cache(tmp_path / "c.h5", np.ones((4, 2)), np.ones((4, 1)), names=("Mass",))
    boxes = pd.DataFrame(
        [[name, "Mass", 1, 2, 3, 4, NAN, NAN] for name in [*cache.ids[:2], "other.png"]],
        pd.RangeIndex(3, name="row"),
        columns=[*BOX_COLUMNS],
    )
    with pytest.raises(UsageError, match=r"add the columns image_width and image_height: .*made"):
        _with_image_sizes(cache, boxes, cache.ids, [])
    files = {cache.ids[0]: tmp_path / "x.png", cache.ids[1]: tmp_path / "x.dcm"}
    Image.new("L", (60, 30)).save(tmp_path / "x.png")
    (tmp_path / "x.dcm").write_bytes(dicom_file(np.zeros((40, 20), np.uint16)))
    module = "featurecache.evaluation.localization"
    monkeypatch.setattr(f"{module}.as_dataset", lambda cache: cache)
    monkeypatch.setattr(f"{module}.cached_files", lambda *_: files)
    sized = _with_image_sizes(cache, boxes, cache.ids, [])
    assert sized["image_width"].tolist()[:2] == [60, 20]
    assert sized["image_height"].tolist()[:2] == [30, 40]
    assert sized["image_width"].isna().tolist() == [False, False, True]
