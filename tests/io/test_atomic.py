"""Atomic files and folders: complete or absent, whatever interrupts the writer."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurecache.errors import UsageError
from featurecache.io.atomic import longest_name, new_file, new_folder, require_absent, sync


class CrashError(Exception):
    """Raised by the body in these tests."""


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=["022", "077", "002"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_file_leaves_no_temporary_file(tmp_path: Path) -> None:
    with new_file(tmp_path / "cache.h5") as path:
        assert path.parent == tmp_path  # on the same disk, so that the last step is a rename
        path.write_bytes(b"new")
        assert not (tmp_path / "cache.h5").exists()
    assert (tmp_path / "cache.h5").read_bytes() == b"new"
    assert names(tmp_path) == ["cache.h5"]


def test_old_file_remains_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "cache.h5"
    target.write_bytes(b"old")
    with new_file(target) as path:
        path.write_bytes(b"new, half written")
        assert target.read_bytes() == b"old"
        path.write_bytes(b"new")
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("crash", [CrashError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, b"old"])
def test_crash_leaves_the_old_file_and_no_temporary_file(
    tmp_path: Path, crash: type[BaseException], old: bytes | None
) -> None:
    target = tmp_path / "cache.h5"
    if old is not None:
        target.write_bytes(old)

    def write_half() -> None:
        with new_file(target) as path:
            path.write_bytes(b"half")
            raise crash

    with pytest.raises(crash):
        write_half()
    assert names(tmp_path) == ([] if old is None else ["cache.h5"])
    assert old is None or target.read_bytes() == old


@pytest.mark.parametrize("letter", ["x", "é", "胸"])
def test_names_are_checked_with_their_temporary_suffix(tmp_path: Path, letter: str) -> None:
    """The file system takes 255 bytes, of which the temporary name needs some."""
    size = len(letter.encode())
    most = longest_name(tmp_path / "not" / "there") // size * size
    name = letter * (most // size)
    require_absent(tmp_path / name)
    with new_file(tmp_path / name):
        pass
    with new_folder(tmp_path / "folder" / name):
        pass
    longer = name + letter
    limit = longest_name(tmp_path)
    with pytest.raises(UsageError, match=f"{most + size} bytes, and at most {limit} can"):
        require_absent(tmp_path / longer)
    with pytest.raises(UsageError, match="give a shorter `path`"):
        require_absent(tmp_path / ("x" * 256) / "run", argument="path")
    with pytest.raises(OSError, match="File name too long"), new_file(tmp_path / (letter * 255)):
        pass


@pytest.mark.parametrize("maker", ["new_file", "new_folder"])
def test_killed_process_leaves_the_old_content(tmp_path: Path, maker: str) -> None:
    target = tmp_path / "run"
    if maker == "new_file":
        target.write_bytes(b"old")
    script = (
        "import os, pathlib, sys\n"
        f"from featurecache.io.atomic import {maker} as make\n"
        "with make(pathlib.Path(sys.argv[1])) as path:\n"
        "    (path / 'a' if path.is_dir() else path).write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    assert result.returncode == -9
    if maker == "new_file":
        assert target.read_bytes() == b"old"
    else:
        assert not target.exists()
    # What is left has a hidden name of its own, and stands in nobody's way.
    assert [name for name in names(tmp_path) if not name.startswith(".")] in (["run"], [])


def test_target_that_is_a_folder_is_unchanged(tmp_path: Path) -> None:
    target = tmp_path / "cache.h5"
    target.mkdir()
    with pytest.raises(IsADirectoryError), new_file(target) as path:
        path.write_bytes(b"new")
    assert names(tmp_path) == ["cache.h5"]
    assert names(target) == []


def test_last_of_two_writers_wins(tmp_path: Path) -> None:
    target = tmp_path / "cache.h5"
    with new_file(target) as first:
        first.write_bytes(b"first")
        with new_file(target) as second:
            assert second != first
            second.write_bytes(b"second")
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"
    assert names(tmp_path) == ["cache.h5"]


def test_file_removed_by_the_body_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "cache.h5") as path:
        path.unlink()
    assert names(tmp_path) == []


def test_missing_parents_are_created(tmp_path: Path) -> None:
    with new_file(tmp_path / "cache" / "nih" / "clip.h5") as path:
        path.write_bytes(b"x")
    with new_folder(tmp_path / "runs" / "a" / "b"):
        pass
    assert (tmp_path / "cache" / "nih" / "clip.h5").is_file()
    assert (tmp_path / "runs" / "a" / "b").is_dir()


def test_new_file_respects_the_umask(tmp_path: Path, umask: int) -> None:
    with new_file(tmp_path / "cache.h5") as path:
        path.write_bytes(b"x")
    assert mode(tmp_path / "cache.h5") == 0o666 & ~umask


def test_new_folder_respects_the_umask(tmp_path: Path, umask: int) -> None:
    with new_folder(tmp_path / "run") as folder:
        (folder / "config.json").write_text("{}")
    assert mode(tmp_path / "run") == 0o777 & ~umask
    assert mode(tmp_path / "run" / "config.json") == 0o666 & ~umask


def test_private_files_of_libraries_get_the_mode_of_a_new_file(tmp_path: Path, umask: int) -> None:
    """safetensors writes a private file and moves it into place."""
    from safetensors.numpy import save_file

    with new_folder(tmp_path / "run") as folder:
        (folder / "encoder").mkdir()
        save_file({}, folder / "encoder" / "model.safetensors")
    with new_file(tmp_path / "alignment.safetensors") as path:
        save_file({}, path)
    for path in (
        tmp_path / "run" / "encoder" / "model.safetensors",
        tmp_path / "alignment.safetensors",
    ):
        assert mode(path) == 0o666 & ~umask


def test_umask_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_mask: int) -> int:
        raise AssertionError("for an instant, another thread's files would be open to everyone")

    monkeypatch.setattr(os, "umask", refuse)
    with new_file(tmp_path / "cache.h5"), new_folder(tmp_path / "run"):
        pass


def test_new_folder_appears_complete(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with new_folder(target) as folder:
        assert folder.parent == tmp_path
        (folder / "plots").mkdir()
        (folder / "plots" / "roc.png").write_bytes(b"roc")
        (folder / "config.json").write_text("{}")
        assert not target.exists()
    assert names(tmp_path) == ["run"]
    assert names(target) == ["config.json", "plots"]
    assert (target / "plots" / "roc.png").read_bytes() == b"roc"


@pytest.mark.parametrize("crash", [CrashError, KeyboardInterrupt])
def test_crash_leaves_no_folder_and_no_temporary_folder(
    tmp_path: Path, crash: type[BaseException]
) -> None:
    def fill_half() -> None:
        with new_folder(tmp_path / "run") as folder:
            (folder / "config.json").write_text("{}")
            raise crash

    with pytest.raises(crash):
        fill_half()
    assert names(tmp_path) == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("content", [[], ["head.safetensors"]])
def test_existing_folder_is_refused_and_unchanged(
    tmp_path: Path, when: str, content: list[str]
) -> None:
    def make_the_other() -> None:
        (tmp_path / "run").mkdir()
        for name in content:
            (tmp_path / "run" / name).write_text("the other's")

    def make_ours() -> None:
        with new_folder(tmp_path / "run") as folder:
            (folder / "config.json").write_text("{}")
            if when == "meanwhile":
                make_the_other()

    if when == "before":
        make_the_other()
    with pytest.raises(FileExistsError):
        make_ours()
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == content


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(FileExistsError), new_folder(tmp_path / "run"):
        pass
    assert (tmp_path / "run").read_text() == "a file"


def test_content_is_synced_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, int | str]] = []
    real_sync = os.fsync

    def fsync(descriptor: int) -> None:
        events.append(("sync", os.fstat(descriptor).st_ino))
        real_sync(descriptor)

    def logged(name: str) -> None:
        real = getattr(Path, name)

        def rename(self: Path, target: Path) -> Path:
            events.append(("rename", target.name))
            result: Path = real(self, target)
            return result

        monkeypatch.setattr(Path, name, rename)

    monkeypatch.setattr(os, "fsync", fsync)
    logged("replace")
    logged("rename")

    with new_file(tmp_path / "cache.h5") as path:
        path.write_bytes(b"x")
        file = path.stat().st_ino
    parent = tmp_path.stat().st_ino
    assert events == [("sync", file), ("rename", "cache.h5"), ("sync", parent)]

    events.clear()
    with new_folder(tmp_path / "run") as folder:
        (folder / "config.json").write_text("{}")
        inside, itself = (folder / "config.json").stat().st_ino, folder.stat().st_ino
    assert events == [("sync", inside), ("sync", itself), ("rename", "run"), ("sync", parent)]


def test_syncing_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "gone")


@pytest.mark.parametrize(
    "raised",
    [
        OSError("100000 requested and 25584 written"),
        OSError(28, "Can't write data"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["numpy", "h5py", "safetensors"],
)
def test_full_disk_errors_of_libraries_name_the_file(tmp_path, monkeypatch, raised):
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    for new in (new_file, new_folder):
        with pytest.raises(OSError, match="target") as caught, new(tmp_path / "target"):
            raise raised
        assert (caught.value.errno, caught.value.filename) == (28, str(tmp_path / "target"))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_unchanged(tmp_path):
    with pytest.raises(RuntimeError, match="no such layer"), new_file(tmp_path / "target"):
        raise RuntimeError("no such layer")


def test_temporary_files_of_dead_processes_are_removed(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from featurecache.io.atomic import *\n"
        "open_ones = [new(Path(sys.argv[1]) / 'target') for new in (new_file, new_folder)]\n"
        "for one in open_ones: one.__enter__()\n"
        "print(flush=True); os.kill(os.getpid(), 9) if len(sys.argv) > 2 else sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
        living.stdout.readline()
        of_the_living = set(tmp_path.iterdir())
        assert len(of_the_living) == 2
        assert subprocess.run([*command, "die"], check=False).returncode == -9
        assert len(list(tmp_path.iterdir())) == 4
        with new_file(tmp_path / "target") as temporary:
            temporary.write_text("whole")
        assert set(tmp_path.iterdir()) == of_the_living | {tmp_path / "target"}
        living.kill()
    (tmp_path / "target").unlink()
    with new_folder(tmp_path / "target"):
        pass
    assert set(tmp_path.iterdir()) == {tmp_path / "target"}
