import os
from pathlib import Path

import pytest

from featurecache.datasets.scan import scan_folder
from featurecache.errors import DatasetError


def test_entries_are_classified_and_sorted(tmp_path: Path) -> None:
    for name in ["b.PNG", "a.jpeg", "c.tif", "notes.txt", ".DS_Store", "._a.jpeg"]:
        (tmp_path / name).touch()
    for name in ["z.png", "y", "__MACOSX", ".git"]:
        (tmp_path / name).mkdir()
    scan = scan_folder(tmp_path)
    assert scan.images == ("a.jpeg", "b.PNG", "c.tif")
    assert scan.others == ("notes.txt",)
    assert scan.folders == ("y", "z.png")


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none cannot be listed .*No such file"):
        scan_folder(tmp_path / "none")


def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    with pytest.raises(DatasetError, match=r"caf\\udce9\.png.* not UTF-8"):
        scan_folder(tmp_path)
