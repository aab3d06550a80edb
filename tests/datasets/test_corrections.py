from pathlib import Path

import pytest

import featurecache as fc
from featurecache.datasets.pseudonymize import read_key

HEADER = "id,label,corrected\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a table of three images, one of whose ids looks like a formula."""
    table = "path,name,Mass,Edema\na.png,=a,1,0\nb.png,b,0,\nc.png,c,-1,1\n"
    (tmp_path / "xrays.csv").write_text(table)
    return tmp_path


def load(folder: Path, corrections: str, **options: object) -> fc.Dataset:
    file = folder / "corrections.csv"
    file.write_text(corrections)
    return fc.load_dataset(
        folder / "xrays.csv",
        labels=["Mass", "Edema"],
        id="name",
        require_images=False,
        corrections=file,
        **options,
    )


@pytest.mark.parametrize(
    "corrections",
    [
        f"{HEADER}'=a,Mass,0\nb,Edema,yes\nc,Mass,\nc,Edema,1\nb,Edema,1\n",
        "rank,id,Mass,Edema\n1,'=a,0,\n2,b,,positive\n3,c,,1\n",
    ],
    ids=["a row per label", "a row per image"],
)
def test_cells_are_replaced_and_empty_ones_change_nothing(folder: Path, corrections: str) -> None:
    data = load(folder, corrections)
    assert data.images["id"].tolist() == ["=a", "b", "c"]
    assert data.cells.tolist() == [[0, 0], [0, 1], [-1, 1]]
    assert "corrections.csv corrects 2 labels of 2 images." in data.notes
    assert data.source is not None
    assert data.source["options"]["corrections"] == str(folder / "corrections.csv")


@pytest.mark.parametrize(
    ("corrections", "message"),
    [
        (f"{HEADER}d,Mass,1\n", "line 2: the data set xrays has no id 'd'"),
        (f"{HEADER}b,mass,1\n", "line 2: the data set xrays has no label 'mass'"),
        (f"{HEADER}b,Mass,maybe\n", "line 2: 'maybe' in the column 'corrected'"),
        (f"{HEADER}b,Mass,7\n", "Use 1, 0, -1 or empty; an empty cell leaves the label as it is"),
        (f"{HEADER}b,Mass,1\nb,Mass,0\n", "line 3: the label 'Mass' of this image is corrected"),
        ("id,Nodule\nb,1\n", "neither a column 'corrected' nor one of the labels Mass, Edema"),
    ],
)
def test_wrong_corrections_are_refused(folder: Path, corrections: str, message: str) -> None:
    with pytest.raises(fc.FeaturecacheError, match=message):
        load(folder, corrections)


@pytest.mark.parametrize(
    ("corrections", "reason"),
    [
        (HEADER, "no cell of its labels is filled in"),
        (f"{HEADER}b,Mass,\n", "no cell of its labels is filled in"),
        ("id,Mass\nb,\n", "no cell of its labels is filled in"),
        (f"{HEADER}b,Mass,0\n", "it gives labels as they are"),
    ],
)
def test_tables_that_correct_nothing_are_named(folder: Path, corrections: str, reason: str) -> None:
    data = load(folder, corrections)
    assert f"corrections.csv corrects nothing: {reason}." in data.notes
    assert data.cells.tolist() == [[1, 0], [0, -2], [-1, 1]]


def test_missing_table_is_named(folder: Path) -> None:
    with pytest.raises(fc.FeaturecacheError, match=r"nofile\.csv does not exist"):
        fc.load_dataset(folder / "xrays.csv", require_images=False, corrections="nofile.csv")


def test_corrections_are_by_the_ids_that_a_cache_has(folder: Path) -> None:
    key = folder / "key"
    key.write_bytes(b"0123456789abcdef")
    hashed = read_key(key).hash("b")
    data = load(folder, f"{HEADER}{hashed},Mass,1\n", pseudonymize=key)
    assert data.cells[data.images["id"] == hashed, 0].tolist() == [1]
    assert data.source is not None
    assert "corrections" not in data.source["options"]
    with pytest.raises(fc.FeaturecacheError, match="The reason is not reported"):
        load(folder, f"{HEADER}b,Mass,1\n", pseudonymize=key)
