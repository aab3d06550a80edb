"""What outlives a process."""

import os
from contextlib import closing

from featurecache.extraction.crash_journal import CrashJournal

A, B, C = "a", "b", "c"


def test_what_is_being_decoded_is_known_to_the_next_process_and_to_the_one_after(tmp_path):
    files = [tmp_path / "one" / "journal", tmp_path / "two" / "journal"]
    dead = CrashJournal(files)
    assert not dead.is_suspect(A)
    with dead.entry(C):
        pass
    kept = dead.entry(A), dead.entry(B)  # or they would end when they are collected
    for place in kept:
        place.__enter__()
    for found in (files, files[:1], files[1:]):
        again = CrashJournal(found)
        assert [again.is_suspect(image) for image in (A, B, C)] == [True, True, False]
    with CrashJournal(files[:1]).entry(C):
        assert [CrashJournal(files[:1]).is_suspect(image) for image in (A, B, C)] == [
            True,
            True,
            True,
        ]


def test_the_file_grows_with_threads_and_not_with_images(tmp_path):
    file = tmp_path / "parts" / "journal"
    with closing(CrashJournal([file])) as journal:
        for _ in range(100):
            with journal.entry(A), journal.entry(B):
                pass
        assert file.stat().st_size == 2 * 32
    assert not file.parent.exists()


def test_a_thread_that_comes_back_after_the_end_writes_into_no_other_file(tmp_path):
    file = tmp_path / "parts" / "journal"
    journal = CrashJournal([file])
    stuck = journal.entry(A)
    stuck.__enter__()
    journal.close()
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)  # by the number that is free now
    stuck.__exit__(None, None, None)
    assert os.fstat(other).st_size == 0
    os.close(other)
    assert CrashJournal([file]).is_suspect(A)
