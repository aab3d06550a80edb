"""Checks of a machine that is ready, and of one that is not."""

import http.server
import threading
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import filelock
import pytest

from featurecache import doctor
from featurecache.doctor import BYTES_PER_IMAGE, Check, check_machine


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run without settings, local models or hub."""
    for name in ("FEATURECACHE_MODELS", "FEATURECACHE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-hub"))


def checks_of(cache_dir: Path, **options: int) -> dict[str, Check]:
    return {check.subject: check for check in check_machine(cache_dir, **options)}


def test_ready_machine_has_no_problem(tmp_path):
    checks = checks_of(tmp_path / "cache" / "to" / "be")
    assert {check.state for check in checks.values()} == {"ok", "note"}
    assert all(check.advice for check in checks.values() if check.state != "ok")
    assert not (tmp_path / "cache").exists()
    assert list(tmp_path.iterdir()) == []


def test_missing_library_is_a_problem_and_missing_extra_is_not(tmp_path, monkeypatch):
    def version(name):
        if name in ("h5py", "peft"):
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", version)
    checks = checks_of(tmp_path)
    assert checks["h5py"] == Check("h5py", "problem", "not installed", "pip install h5py")
    assert checks["extra lora"].state == "note"
    assert "featurecache[lora]" in checks["extra lora"].advice


def test_disk_space_is_compared_with_the_planned_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(
        doctor.shutil, "disk_usage", lambda _: doctor.shutil._ntuple_diskusage(0, 0, 10**9)
    )
    fits = 10**9 // (2 * BYTES_PER_IMAGE)
    assert f"enough for {fits:,} images" in checks_of(tmp_path)["disk"].result
    assert checks_of(tmp_path, n_images=fits)["disk"].state == "ok"
    assert checks_of(tmp_path, n_images=fits + 1)["disk"].state == "problem"


def test_file_locks_without_effect_are_a_problem(tmp_path, monkeypatch):
    assert checks_of(tmp_path)["file locks"].state == "ok"
    monkeypatch.setattr(filelock.FileLock, "acquire", lambda self, **_: None)
    monkeypatch.setattr(filelock.FileLock, "release", lambda self, **_: None)
    assert "never run two extractions" in checks_of(tmp_path)["file locks"].advice


def test_read_only_folder_is_reported(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor, "TemporaryDirectory", refuse)
    assert checks_of(tmp_path)["file locks"].result.endswith("Permission denied")


def test_models_are_found_where_extract_finds_them(tmp_path, monkeypatch, tiny_pair):
    assert checks_of(tmp_path)["local models"].result == "tiny"
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    checks = checks_of(tmp_path)
    ready = checks["local models"].result.split(", ")
    assert set(ready) == {"tiny", "dinov2-small", "minilm", "dinov2-minilm"}
    assert not set(ready) & set(checks["models to download"].result.split(", "))
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tmp_path / "nowhere"))
    assert checks_of(tmp_path)["models"].state == "problem"


def test_data_sets_are_found_where_commands_find_them(tmp_path, monkeypatch):
    (tmp_path / "data" / "nih").mkdir(parents=True)
    monkeypatch.setenv("FEATURECACHE_DATA", str(tmp_path / "data"))
    checks = checks_of(tmp_path)
    assert checks["data set nih"].result == str(tmp_path / "data" / "nih")
    assert checks["data set kermany"].state == "note"
    assert "give the folder" in checks["data set kermany"].advice


def test_hub_is_contacted_unless_offline(tmp_path, monkeypatch):
    assert checks_of(tmp_path)["model hub"].result == "HF_HUB_OFFLINE is set"
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
        assert checks_of(tmp_path)["model hub"].state == "ok"
        server.shutdown()
    unreachable = checks_of(tmp_path)["model hub"]
    assert "cannot be reached" in unreachable.result
    assert "FEATURECACHE_MODELS" in unreachable.advice
