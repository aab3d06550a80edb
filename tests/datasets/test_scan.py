import os
from pathlib import Path

import pytest

from featurecache.datasets.scan import only_folders, scan_folder, scan_tree
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


PNG = b"\x89PNG\r\n\x1a\n"


def test_files_without_the_suffix_of_an_image_are_recognized_by_content(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "1.2.840.10008").write_bytes(PNG)
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    scan = scan_folder(tmp_path)
    assert scan.images == ("1.2.840.10008", "IM0001")
    assert scan.others == ("empty", "pipe", "report.pdf")


def add(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_tree_lists_all_images_below(tmp_path: Path) -> None:
    add(tmp_path, "b/c/2.png", "b/1.jpg", "a.png", "b/n.txt", "b/c/n.TXT", "x", ".hid/3.png")
    tree = scan_tree(tmp_path)
    assert tree.images == ("a.png", "b/1.jpg", "b/c/2.png")
    assert tree.others == {".txt": 2, "": 1}
    assert tree.notes() == ["Files that are not images were skipped: 2 .txt, 1 without suffix."]


@pytest.mark.parametrize(
    "masks", ["masks", "Mask", "leftMask", "lung masks", "infection_masks", "segmentations"]
)
def test_masks_beside_images_are_left_out(tmp_path: Path, masks: str) -> None:
    add(tmp_path, "images/1.png", "images/with_mask/2.png", f"{masks}/1.png", f"{masks}/2.png")
    tree = scan_tree(tmp_path)
    assert tree.images == ("images/1.png", "images/with_mask/2.png")
    assert tree.masks == 2
    # The folder of masks itself holds nothing else, and neither does one that contains only it.
    assert len(scan_tree(tmp_path / masks).images) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / masks).rename(tmp_path / "other" / masks)
    assert len(scan_tree(tmp_path / "other").images) == 2


def test_links_are_followed_but_nothing_is_listed_twice(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    add(root, "real/1.png")
    add(disk, "2.png", "deep/3.png")
    add(tmp_path / "single", "4.png")
    (root / "a-disk").symlink_to(disk)
    (root / "b-disk").symlink_to(disk)
    (root / "a-real").symlink_to("real")
    (root / "loop").symlink_to("..")
    (root / "a4.png").symlink_to(tmp_path / "single" / "4.png")
    (root / "b1.png").symlink_to("real/1.png")
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "self.png").symlink_to("self.png")
    tree = scan_tree(root)
    reached = {os.path.realpath(root / path) for path in tree.images}
    assert "real/1.png" in tree.images
    assert len(reached) == len(tree.images)
    assert {Path(path).name for path in reached} == {
        *("1.png", "2.png", "3.png", "4.png", "nowhere.png", "self.png")
    }
    assert not any(path.startswith("loop/") for path in tree.images)
    assert tree.copies >= 4
    assert "Symbolic links were left out" in tree.notes()[0]


def test_folders_with_nothing_but_a_folder_are_descended(tmp_path: Path) -> None:
    add(tmp_path, "archive/readme.txt", "archive/xrays/a/1.png", "archive/xrays/b/2.png")
    assert only_folders(tmp_path) == [tmp_path, tmp_path / "archive", tmp_path / "archive/xrays"]
    add(tmp_path, "1.png")
    assert only_folders(tmp_path) == [tmp_path]
