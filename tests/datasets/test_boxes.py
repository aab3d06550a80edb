from pathlib import Path

import pytest

from featurecache.datasets.boxes import BOX_COLUMNS, read_box_file
from featurecache.errors import DatasetError

OWN = "label,id,x,y,width,height,image_width,image_height\nMass,a.png,1,2,30,40,200,100\n"
NIH = "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Infiltrate,5,6.5,7,8,,,\n"


@pytest.mark.parametrize(
    ("text", "row"),
    [
        (OWN, ["a.png", "Mass", 1, 2, 30, 40, 200, 100]),
        (NIH, ["a.png", "Infiltration", 5, 6.5, 7, 8, 1024, 1024]),
    ],
)
def test_box_files_have_the_size_of_the_image(tmp_path: Path, text: str, row: list) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text(text)
    boxes = read_box_file(file)
    assert boxes.columns.tolist() == list(BOX_COLUMNS)
    assert boxes.to_numpy().tolist() == [row]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OWN.replace("image_width", "w"), "has no column image_width: a table of boxes has"),
        (OWN.replace(",200,", ",0,"), "line 2: .* are not a box"),
    ],
)
def test_boxes_that_cannot_be_placed_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_box_file(tmp_path / "boxes.csv")
