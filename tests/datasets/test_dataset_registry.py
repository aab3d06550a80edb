import os
import subprocess
import sys
from pathlib import Path

import pytest

from featurecache.datasets.load import find_root, load_dataset
from featurecache.datasets.registry import DATASETS
from featurecache.errors import DatasetError, UnknownNameError, UsageError
from featurecache.provenance.names import is_published


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "images.csv"
    path.write_text("file,Mass\na.png,1\nb.png,0\n")
    (tmp_path / "a.png").touch()
    return path


def test_names_are_the_keys() -> None:
    assert {name: spec.name for name, spec in DATASETS.items()} == {n: n for n in DATASETS}
    assert set(DATASETS) >= {"nih", "kermany", "csv", "folder", "images", "phantom"}


def test_ids_of_releases_belong_to_published_collections() -> None:
    assert [name for name, spec in DATASETS.items() if spec.lister and not is_published(name)] == []


def test_listing_data_sets_imports_nothing_heavy() -> None:
    heavy = "{'pandas', 'numpy', 'torch', 'sklearn', 'h5py', 'transformers'}"
    code = f"import sys, featurecache.datasets.registry; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_options_reach_the_loader(table: Path) -> None:
    dataset = load_dataset("csv", table, images_root=table.parent, path="file", labels=["Mass"])
    assert dataset.images["path"].tolist() == ["a.png", "b.png"]
    assert dataset.label_values.tolist() == [[1], [0]]


def test_unknown_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown data set 'kermani': did you mean kermany"):
        load_dataset("kermani", tmp_path)
    with pytest.raises(UnknownNameError, match="unknown data set"):
        find_root("kermani", tmp_path)


def test_unknown_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nih takes no option `splits`: did you mean `split`"):
        load_dataset("nih", tmp_path, splits="patient")
    with pytest.raises(
        UsageError, match="folder takes no option `subset`: it takes patient_level, "
    ):
        load_dataset("folder", tmp_path, subset="viral")


def test_root_is_the_data_set_or_contains_it(tmp_path: Path) -> None:
    assert find_root("nih", tmp_path) == tmp_path
    (tmp_path / "nih").mkdir()
    assert find_root("nih", tmp_path) == tmp_path / "nih"
    assert find_root("kermany", tmp_path) == tmp_path


def test_only_csv_accepts_a_file(table: Path) -> None:
    assert find_root("csv", table) == table
    with pytest.raises(DatasetError, match=r"images\.csv is a file, not a folder"):
        find_root("nih", table)


def test_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "images.csv")
    with pytest.raises(DatasetError, match=r"images\.csv is a pipe or a device"):
        find_root("csv", tmp_path / "images.csv")


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none does not exist"):
        find_root("nih", tmp_path / "none")


def test_default_root_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEATURECACHE_DATA", raising=False)
    with pytest.raises(DatasetError, match=r"give the folder .* or set FEATURECACHE_DATA"):
        find_root("nih", None)
    monkeypatch.setenv("FEATURECACHE_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match=r"there is no folder .*nih: give the folder"):
        find_root("nih", None)
    (tmp_path / "nih").mkdir()
    assert find_root("nih", None) == tmp_path / "nih"
