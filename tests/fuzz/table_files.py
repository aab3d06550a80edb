"""Tables of images: any CSV file, and the two of ChestX-ray14."""

import gzip
from pathlib import Path

from hypothesis import strategies as st

from featurecache.datasets.csv import load_csv
from featurecache.datasets.load import load_dataset
from featurecache.errors import DatasetError
from tests.fuzz.changes import Changed, changed_bytes, changed_csv
from tests.fuzz.readers import Reader

_COLUMNS = {
    "id": "name",
    "patient": "patient",
    "view": "view",
    "sex": "sex",
    "age": "age",
}
_ROWS = """name,path,patient,split,view,sex,age,Mass,Edema,findings
a,a.png,1,train,PA,F,50,1,0,Mass
b,b/b.png,1,train,AP,F,51,0,-1,No Finding
c,"c,c.png",2,val,,M,,1.0,,Mass|Edema
d,d.png,3,test,PA,,0,0.0,1,
"""


def _images(folder: Path) -> None:
    (folder / "b").mkdir()
    for name in ("a.png", "b/b.png", "c,c.png", "d.png"):
        (folder / name).touch()


def _table(folder: Path) -> Path:
    _images(folder)
    (folder / "table.csv").write_text(_ROWS)
    return folder / "table.csv"


def _zipped(folder: Path) -> Path:
    _images(folder)
    (folder / "table.csv.gz").write_bytes(gzip.compress(_ROWS.encode(), mtime=0))
    return folder / "table.csv.gz"


def _read_labels(file: Path) -> object:
    return load_csv(file, labels=["Mass", "Edema"], split="split", **_COLUMNS)


def _read_findings(file: Path) -> object:
    return load_csv(file, multilabel="findings", **_COLUMNS)


def _nih(folder: Path) -> Path:
    (folder / "images").mkdir()
    names = [f"{patient:08d}_{image:03d}.png" for patient in (1, 2, 3) for image in (0, 1)]
    for name in names:
        (folder / "images" / name).touch()
    rows = [
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    ]
    for name in names:
        rows.append(f"{name},Mass|Hernia,0,{int(name[:8])},058Y,F,PA,3056,2544,0.1,0.1")
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(rows) + "\n")
    (folder / "train_val_list.txt").write_text("\n".join(names[:4]) + "\n")
    (folder / "test_list.txt").write_text("\n".join(names[4:]) + "\n")
    return folder / "Data_Entry_2017_v2020.csv"


def _nih_list(folder: Path) -> Path:
    return _nih(folder).with_name("test_list.txt")


def _read_nih(file: Path) -> object:
    return load_dataset("nih", file.parent)


def _changed_zip(intact: bytes) -> Changed:
    inside = changed_csv(gzip.decompress(intact)).map(lambda text: gzip.compress(text, mtime=0))
    return st.one_of(inside, changed_bytes(intact))


_REFUSALS = (DatasetError,)

READERS = {
    "table": Reader(_table, _read_labels, _REFUSALS, changed_csv),
    "table-findings": Reader(_table, _read_findings, _REFUSALS, changed_csv),
    "table-gz": Reader(_zipped, _read_labels, _REFUSALS, _changed_zip),
    "nih-table": Reader(_nih, _read_nih, _REFUSALS, changed_csv),
    "nih-list": Reader(_nih_list, _read_nih, _REFUSALS, changed_csv),
}
