"""``datasets``: the list, and the description of a data set without reading its images."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

import featurecache as fc

NIH = """\
Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,Original\
Image[Width,Height],OriginalImagePixelSpacing[x,y]
1_0.png,Mass|Edema,0,1,58,M,PA,2,2,0.1,0.1
1_1.png,No Finding,1,1,58,M,AP,2,2,0.1,0.1
2_0.png,Mass,0,2,60,F,PA,2,2,0.1,0.1
"""
TABLE = """\
path,who,exam,part,pose,Edema,Mass
1.png,ann,a1,train,PA,1,
2.png,ann,a1,train,L,-1,0
3.png,bob,b1,val,,uncertain,0
4.png,cid,,test,PA,,1
"""
OPTIONS = (
    *("--patient-column", "who", "--study-column", "exam", "--split-column", "part"),
    *("--view-column", "pose", "--label-column", "Edema", "--label-column", "Mass"),
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nih").mkdir()
    (tmp_path / "nih" / "Data_Entry_2017_v2020.csv").write_text(NIH)
    (tmp_path / "clinic.csv").write_text(TABLE)
    return tmp_path


@pytest.mark.parametrize("n_images", [0, 1])
def test_tables_are_described_without_images(run, folder, n_images):
    for number in range(n_images):
        Image.new("L", (4, 4)).save(folder / f"{number + 1}.png")
    outcome = run("datasets", "describe", "--data-root", "clinic.csv", *OPTIONS, "--json")
    assert outcome.code == 0, outcome.stderr
    document = outcome.json
    notes = document.pop("notes")
    assert any(note.startswith("Label cells: ") for note in notes)
    assert document == {
        "dataset": "clinic",
        "root": str(folder),
        "images": 4,
        "on_disk": n_images,
        "patients": 3,
        "studies": 2,
        "views": {"PA": 2, "LATERAL": 1, "unknown": 1},
        "splits": {"train": 2, "val": 1, "test": 1},
        "excluded": {},
        "label_policy": asdict(fc.LabelPolicy()),
        "labels": {
            "Edema": {"positive": 1, "negative": 0, "uncertain": 2, "blank": 1},
            "Mass": {"positive": 1, "negative": 2, "uncertain": 0, "blank": 1},
        },
        "boxes": None,
    }
    table = run("datasets", "describe", "--data-root", "clinic.csv", *OPTIONS)
    assert f"images\t{n_images} of 4 on disk\n" in table.stdout
    assert "Edema\t1\t0\t2\t1\n" in table.stdout
    assert "2 uncertain cells count as unknown (--uncertain ignore)" in table.stderr


def test_nih_is_described_without_images(run, folder):
    document = run("datasets", "describe", "nih", "--data-root", "nih", "--json").json
    assert (document["images"], document["on_disk"], document["patients"]) == (3, 0, 2)
    assert (document["views"], document["studies"]) == ({"PA": 2, "AP": 1}, None)
    counts = {"positive": 2, "negative": 1, "uncertain": 0, "blank": 0}
    assert document["labels"]["Mass"] == counts
    image, _ = NIH.splitlines()[1].split(",", 1)
    header = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    boxes = [header, *[f"{image},Mass,1,2,3,4"] * 2]
    (folder / "nih" / "BBox_List_2017.csv").write_text("\n".join(boxes))
    table = run("datasets", "describe", "nih", "--data-root", "nih").stdout
    assert "boxes\t2 on 1 image: Mass 2\n" in table
    assert run("extract", "--dataset", "nih", "--data-root", "nih").code == 2


def test_folders_and_phantoms_are_described(run, folder):
    for name in ("sick/1", "sick/2", "well/3"):
        (folder / "classes" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), int(name[-1])).save(folder / "classes" / f"{name}.png")
    by_class = run("datasets", "describe", "folder", "--data-root", "classes", "--json").json
    assert (by_class["images"], by_class["on_disk"], by_class["patients"]) == (3, 3, None)
    assert by_class["labels"]["sick"] == {
        "positive": 2,
        "negative": 1,
        "uncertain": 0,
        "blank": 0,
    }
    plain = run("datasets", "describe", "images", "--data-root", "classes")
    assert "no labels\n" in plain.stdout
    phantom = ("phantom", "--data-root", "phantom", "--n-images", 20, "--json")
    document = run("datasets", "describe", *phantom).json
    assert (document["dataset"], document["on_disk"]) == ("phantom", 20)
    assert len(list(Path(document["root"]).glob("images/*.png"))) == 20


@pytest.mark.parametrize(
    ("group", "name", "describing"),
    [("datasets", "phantom", "describe"), ("models", "tiny", "show")],
)
def test_a_name_in_place_of_a_command_is_answered_with_the_command(run, group, name, describing):
    outcome = run(group, name)
    assert outcome.code == 2
    printed = " ".join(re.findall(r"[\w'.]+", outcome.stderr))
    assert f"'{name}' is not a command to describe it run '" in printed
    assert f"{group} {describing} {name}'" in printed
    assert run(group, describing, name).code == 0
    assert "Did you mean" in run(group, describing[:-1]).stderr


def test_json_before_the_command_is_refused(run, folder):
    outcome = run("datasets", "--json", "describe", "nih")
    assert outcome.code == 2
    assert "give it after describe" in outcome.stderr


def test_vocabulary_is_printed(run):
    document = run("vocabulary", "--json").json
    assert document["effusion"]["nih"] == {"same": ["Effusion"], "union": [], "near": []}
    assert document["effusion"]["chexpert"]["same"] == ["Pleural Effusion"]
    lines = run("vocabulary", "--dataset", "padchest").stdout.splitlines()
    assert "edema\tpadchest\tpulmonary edema\t–\tkerley lines" in lines
