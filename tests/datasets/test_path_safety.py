from pathlib import Path

import pytest

from featurecache.datasets.path_safety import links_leaving_root
from featurecache.errors import DatasetError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """inside/real.png, with links to a file and a folder inside and outside of the root."""
    (tmp_path / "outside" / "deep").mkdir(parents=True)
    (tmp_path / "outside" / "x.png").touch()
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (root / "inside" / "real.png").touch()
    (root / "inside" / "near.png").symlink_to(root / "inside" / "real.png")
    (root / "inside" / "far.png").symlink_to(tmp_path / "outside" / "x.png")
    (root / "near").symlink_to("inside")
    (root / "far").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to("loop")
    return root


@pytest.mark.parametrize(
    ("path", "leaves"),
    [
        ("inside/real.png", False),
        ("inside/near.png", False),
        ("inside/far.png", True),
        ("near/real.png", False),
        ("near/far.png", True),
        ("far/x.png", True),
        ("far/deep/none.png", True),
        ("far/none/none.png", True),
        ("missing/x.png", False),
        ("inside/real.png/x.png", False),
        ("loop", False),
    ],
)
def test_only_links_to_the_outside_leave_the_root(root: Path, path: str, leaves: bool) -> None:
    assert links_leaving_root(root, ["inside/real.png", path]).tolist() == [False, leaves]


def test_root_may_be_a_link(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert links_leaving_root(link, ["inside/real.png", "near/real.png"]).tolist() == [False, False]


def test_sibling_with_the_same_prefix_is_outside(tmp_path: Path) -> None:
    (tmp_path / "root2").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "root2")
    assert links_leaving_root(tmp_path / "root", ["link/x.png"]).tolist() == [True]


def test_unreadable_folder_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DatasetError, match="cannot be listed"):
        links_leaving_root(root, ["inside/real.png"])
