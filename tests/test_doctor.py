"""What doctor says of a machine that is ready, and of one that is not."""

import http.server
import threading
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import filelock
import pytest

from featurecache import doctor
from featurecache.doctor import BYTES_AN_IMAGE, Finding, examine


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without settings, models or hub."""
    for name in ("FEATURECACHE_MODELS", "FEATURECACHE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-hub"))


def found(cache: Path, **options: int) -> dict[str, Finding]:
    return {one.subject: one for one in examine(cache, **options)}


def test_a_machine_that_is_ready_has_no_problem(tmp_path):
    findings = found(tmp_path / "cache" / "to" / "be")
    assert {one.state for one in findings.values()} == {"fine", "note"}
    assert all(one.advice for one in findings.values() if one.state != "fine")
    assert not (tmp_path / "cache").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_a_problem_and_a_missing_extra_is_not(tmp_path, monkeypatch):
    def version(name):
        if name in ("h5py", "peft"):
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", version)
    findings = found(tmp_path)
    assert findings["h5py"] == Finding("h5py", "problem", "not installed", "pip install h5py")
    assert findings["extra lora"].state == "note"
    assert "featurecache[lora]" in findings["extra lora"].advice


def test_the_disk_is_held_against_the_cache_that_is_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(
        doctor.shutil, "disk_usage", lambda _: doctor.shutil._ntuple_diskusage(0, 0, 10**9)
    )
    fits = 10**9 // (2 * BYTES_AN_IMAGE)
    assert f"for {fits:,} images" in found(tmp_path)["disk"].found
    assert found(tmp_path, images=fits)["disk"].state == "fine"
    assert found(tmp_path, images=fits + 1)["disk"].state == "problem"


def test_locks_that_hold_nothing_are_a_problem(tmp_path, monkeypatch):
    assert found(tmp_path)["file locks"].state == "fine"
    monkeypatch.setattr(filelock.FileLock, "acquire", lambda self, **_: None)
    monkeypatch.setattr(filelock.FileLock, "release", lambda self, **_: None)
    assert "never run two extractions" in found(tmp_path)["file locks"].advice


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor, "TemporaryDirectory", refuse)
    assert found(tmp_path)["file locks"].found.endswith("Permission denied")


def test_models_are_found_where_extract_finds_them(tmp_path, monkeypatch, tiny_pair):
    assert found(tmp_path)["models at hand"].found == "tiny"
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    findings = found(tmp_path)
    ready = findings["models at hand"].found.split(", ")
    assert set(ready) == {"tiny", "dinov2-small", "minilm", "dinov2-minilm"}
    assert not set(ready) & set(findings["models to download"].found.split(", "))
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tmp_path / "nowhere"))
    assert found(tmp_path)["models"].state == "problem"


def test_data_sets_are_found_where_the_commands_find_them(tmp_path, monkeypatch):
    (tmp_path / "data" / "nih").mkdir(parents=True)
    monkeypatch.setenv("FEATURECACHE_DATA", str(tmp_path / "data"))
    findings = found(tmp_path)
    assert findings["data set nih"].found == str(tmp_path / "data" / "nih")
    assert findings["data set kermany"].state == "note"
    assert "--data-root" in findings["data set kermany"].advice


def test_the_hub_is_asked_unless_it_must_not_be(tmp_path, monkeypatch):
    assert found(tmp_path)["model hub"].found == "HF_HUB_OFFLINE is set"
    monkeypatch.delenv("HF_HUB_OFFLINE")

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(doctor, "HUB", f"http://127.0.0.1:{server.server_port}")
        assert found(tmp_path)["model hub"].state == "fine"
        server.shutdown()
    unreached = found(tmp_path)["model hub"]
    assert "cannot be reached" in unreached.found
    assert "--weights" in unreached.advice
