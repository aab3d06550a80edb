"""Fixtures for commands: a small data set on disk, and a function that runs commands."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from featurecache.cli import main


@dataclass(frozen=True)
class Outcome:
    """The exit code and the output of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.stdout)


Run = Callable[..., Outcome]


def _isolate_commands(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Run:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "no-hub"))
    for name in ("MODELS", "DATA", "CACHE", "DEBUG", "LOG_FILE", "PLUGINS"):
        # Set first, so that monkeypatch also undoes what commands set, such as --debug.
        monkeypatch.setenv(f"FEATURECACHE_{name}", "")
        monkeypatch.delenv(f"FEATURECACHE_{name}")

    def invoke(*arguments: object) -> Outcome:
        result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture(scope="session")
def isolate_commands() -> Callable[[pytest.MonkeyPatch, Path], Run]:
    """Change to a folder, without network or this machine's models and data; return ``run``."""
    return _isolate_commands


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands in an empty folder, without network or this machine's models and data."""
    return _isolate_commands(monkeypatch, tmp_path)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create 60 images of 30 patients, with a bright patch as "Opacity", and their CSV file."""
    root = tmp_path_factory.mktemp("xrays")
    rng = np.random.default_rng(0)
    lines = ["path,patient,split,view,Opacity,Rare"]
    for number in range(60):
        patient = number // 2
        split = "train" if patient < 18 else "val" if patient < 23 else "test"
        opacity = int(rng.random() < 0.5)
        pixels = rng.integers(20, 120, (48, 40)).astype(np.uint8)
        if opacity:
            pixels[10:30, 10:30] += 120
        name = f"image-{number:03d}.png"
        Image.fromarray(pixels).save(root / name)
        rare = "" if number % 7 else 0
        view = "AP" if number % 3 else "PA"
        lines.append(f"{name},p{patient},{split},{view},{opacity},{rare}")
    (root / "xrays.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def extract_options(image_folder: Path) -> list[object]:
    """Return the options of ``extract`` that select the data set of ``image_folder``."""
    return [
        *("--dataset", "csv", "--data-root", image_folder / "xrays.csv"),
        *("--label-column", "Opacity", "--label-column", "Rare", "--patient-column", "patient"),
        *("--split-column", "split", "--view-column", "view"),
    ]


@pytest.fixture(scope="session")
def first_extraction(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path, extract_options: list[object]
) -> tuple[Path, dict[str, Any]]:
    """A folder in which ``extract`` has run once, and what it printed."""
    folder = tmp_path_factory.mktemp("extraction")
    with pytest.MonkeyPatch.context() as patch:
        run = _isolate_commands(patch, folder)
        outcome = run("extract", "--model", tiny_clip, *extract_options, "--json")
    assert outcome.code == 0, outcome.stderr
    return folder, outcome.json[0]


@pytest.fixture
def extracted(
    run: Run, first_extraction: tuple[Path, dict[str, Any]], tmp_path: Path
) -> dict[str, Any]:
    """Copy the cache of ``image_folder`` here; return what ``extract`` printed."""
    folder, summary = first_extraction
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return summary
