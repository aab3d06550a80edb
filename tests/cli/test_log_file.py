"""--log-file: a timestamped log with one entry per line."""

import logging
import os
import re
import shutil
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurecache.cli import log_file, output
from featurecache.cli.log_file import LogFile, logging_to

ENTRY = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \d+ (INFO|WARNING|ERROR) [^\x00-\x1f\x7f-\x9f]*"
)


def entries(path: Path) -> list[str]:
    """Return the level and text of each entry of a log, and check that every line is one."""
    data = path.read_bytes().decode()
    assert data.endswith("\n")
    lines = data[:-1].split("\n")
    for line in lines:
        assert ENTRY.fullmatch(line), line
    return [line.split(" ", 2)[2] for line in lines]


def test_a_log_records_a_command_from_versions_to_exit_code(
    run, tiny_clip, image_folder, extract_options, tmp_path
):
    broken = tmp_path / "xrays"
    shutil.copytree(image_folder, broken)
    (broken / "image-007.png").write_bytes(b"")
    options = [
        broken / "xrays.csv" if o == image_folder / "xrays.csv" else o for o in extract_options
    ]
    log = tmp_path / "run.log"
    outcome = run("--log-file", log, "extract", "--model", tiny_clip, *options)
    assert outcome.code == 0
    logged = entries(log)
    assert re.match(r"INFO start: featurecache \S+, torch \S+, .*Python 3", logged[0])
    assert logged[1].startswith("INFO command: extract model=[")
    assert "image_timeout=60.0" in logged[1]
    assert "label_column=['Opacity', 'Rare']" in logged[1]
    assert "WARNING failed: image-007.png: the file is empty" in logged
    assert [t for t in logged if t.startswith("INFO extract: 60 of 60")]
    assert re.fullmatch(r"INFO end: exit code 0 after \d+\.\d s", logged[-1])
    # The log contains what was printed on stderr.
    printed = [line for line in outcome.stderr.splitlines() if "prompts 'signs'" in line]
    assert f"INFO {printed[0]}" in logged

    train = ("train-head", "--head", "linear", "--seed", 0, "--n-bootstrap", 0, "--json")
    again = run("--log-file", log, *train)
    assert again.code == 0
    more = entries(log)
    assert more[: len(logged)] == logged
    assert "seed=0" in more[len(logged) + 1]
    assert any(t.startswith("WARNING warning: Rare has no positives in training") for t in more)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["cache", "info", "none.h5"], 2, "ERROR error: there is no cache at none.h5"),
        (["extract", "--batch-size", "none"], 2, "ERROR error: Invalid value"),
        (["models"], 0, "INFO command: models"),
    ],
)
def test_a_log_records_how_a_command_ended(run, tmp_path, arguments, code, words):
    log = tmp_path / "run.log"
    assert run("--log-file", log, *arguments).code == code
    logged = entries(log)
    assert any(t.startswith(words) for t in logged)
    assert logged[-1].startswith(f"INFO end: exit code {code} after ")


def test_an_unexpected_error_is_logged_by_its_place_only(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(KeyError), logging_to(log):
        raise KeyError("a patient's name")
    assert re.match(rf"ERROR error: KeyError in {re.escape(__file__)}:\d+$", entries(log)[-2])
    assert entries(log)[-1].startswith("INFO end: exit code 1")
    with pytest.raises(KeyboardInterrupt), logging_to(log):
        raise KeyboardInterrupt
    assert entries(log)[-1].startswith("INFO end: exit code 130")


def test_the_log_can_be_set_by_the_environment(run, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_LOG_FILE", str(tmp_path / "log"))
    assert run("models").code == 0
    logged = entries(tmp_path / "log")
    monkeypatch.delenv("FEATURECACHE_LOG_FILE")
    assert run("models").code == 0
    assert entries(tmp_path / "log") == logged
    logger = logging.getLogger("featurecache")
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
    assert logger.level == logging.NOTSET


@given(st.text())
def test_any_text_gives_one_entry_without_control_characters(tmp_path_factory, text: str) -> None:
    log = tmp_path_factory.mktemp("log") / "log"
    handler = LogFile(log)
    handler.emit(logging.makeLogRecord({"msg": text.replace("%", "%%"), "levelname": "INFO"}))
    handler.close()
    assert len(entries(log)) == 1


def test_processes_share_a_log_in_complete_lines(tmp_path):
    log = tmp_path / "log"
    children = []
    for number in range(3):
        if not (child := os.fork()):
            handler = LogFile(log)
            for entry in range(200):
                text = f"{number} {entry} " + "x" * (500 * number)
                handler.emit(logging.makeLogRecord({"msg": text, "levelname": "INFO"}))
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    logged = [(int(t.split()[1]), int(t.split()[2]), len(t.split()[-1])) for t in entries(log)]
    for number in range(3):
        own = [(entry, length) for owner, entry, length in logged if owner == number]
        assert [entry for entry, _ in own] == list(range(200))
        assert number == 0 or {length for _, length in own} == {500 * number}


def test_a_log_that_cannot_be_opened_is_reported_before_any_work(
    run, tiny_clip, extract_options, tmp_path
):
    os.mkfifo(tmp_path / "fifo")  # without a reader
    for log in (tmp_path / "none" / "log", tmp_path, tmp_path / "fifo"):
        outcome = run("--log-file", log, "extract", "--model", tiny_clip, *extract_options)
        assert outcome.code == 2
        assert f"error: --log-file {log} cannot be opened" in outcome.stderr
        assert not Path("cache").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_reported_once_and_the_command_continues(run):
    outcome = run("--log-file", "/dev/full", "models")
    assert outcome.code == 0
    assert outcome.stderr.count("the log /dev/full cannot be written") == 1
    assert "tiny" in outcome.stdout


def test_python_warnings_are_logged_and_printed(tmp_path, monkeypatch):
    printed: list[str] = []

    def show(message: Warning | str, *_args: object, **_kwargs: object) -> None:
        printed.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", show)
        with logging_to(tmp_path / "log"):
            warnings.warn("it is\nlate", UserWarning, stacklevel=1)
        assert warnings.showwarning is show
    assert r"WARNING warning: UserWarning: it is\nlate" in entries(tmp_path / "log")
    assert printed == ["it is\nlate"]


def test_progress_is_logged_at_tenths_and_after_a_long_time(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(output.time, "monotonic", lambda: now)
    log = tmp_path / "log"
    with logging_to(log), output.progress_bar(hidden=True) as bar:
        task = bar.add_task("encode", total=1000, detail="")
        for done in range(1001):
            bar.update(task, completed=done)
        slow = bar.add_task("slow", total=10**9, detail="")
        for done in range(3):
            now += output.QUIET_SECONDS + 1
            bar.update(slow, completed=done, detail="1 image/s")
    logged = [t for t in entries(log) if " of " in t]
    assert logged[:10] == [f"INFO encode: {tenth}00 of 1000" for tenth in range(1, 11)]
    ended = "INFO slow: 2 of 2, 1 image/s"  # a task that ends early is complete
    assert logged[10:] == [
        *(f"INFO slow: {done} of 1000000000, 1 image/s" for done in (1, 2)),
        ended,
    ]


def test_query_images_are_not_logged(tmp_path):
    with logging_to(tmp_path / "log"):
        log_file.log_command("retrieve", {"image": "smith.png", "top": 3})
    assert "command: retrieve image='a file or an id', top=3" in "".join(entries(tmp_path / "log"))
