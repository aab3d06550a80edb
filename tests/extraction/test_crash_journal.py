"""The crash journal outlives its process."""

import os
from contextlib import closing

from featurecache.extraction.crash_journal import CrashJournal

A, B, C = "a", "b", "c"


def test_open_entries_are_suspects_in_later_processes(tmp_path):
    files = [tmp_path / "one" / "journal", tmp_path / "two" / "journal"]
    dead = CrashJournal(files)
    assert not dead.is_suspect(A)
    with dead.entry(C):
        pass
    entries = dead.entry(A), dead.entry(B)  # kept alive, or they would end when collected
    for entry in entries:
        entry.__enter__()
    for found in (files, files[:1], files[1:]):
        again = CrashJournal(found)
        assert [again.is_suspect(image) for image in (A, B, C)] == [True, True, False]
    with CrashJournal(files[:1]).entry(C):
        assert [CrashJournal(files[:1]).is_suspect(image) for image in (A, B, C)] == [
            True,
            True,
            True,
        ]


def test_file_grows_with_threads_not_with_images(tmp_path):
    file = tmp_path / "parts" / "journal"
    with closing(CrashJournal([file])) as journal:
        for _ in range(100):
            with journal.entry(A), journal.entry(B):
                pass
        assert file.stat().st_size == 2 * 32
    assert not file.parent.exists()


def test_stuck_thread_does_not_write_into_reused_descriptor(tmp_path):
    file = tmp_path / "parts" / "journal"
    journal = CrashJournal([file])
    stuck = journal.entry(A)
    stuck.__enter__()
    journal.close()
    other = os.open(
        tmp_path / "other", os.O_RDWR | os.O_CREAT
    )  # gets the descriptor that is free now
    stuck.__exit__(None, None, None)
    assert os.fstat(other).st_size == 0
    os.close(other)
    assert CrashJournal([file]).is_suspect(A)
