"""A small data set of films on disk, and a way to run commands in this process."""

import json
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
    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a folder of its own, without hub, models or data from the machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-hub"))
    for name in ("MODELS", "DATA", "CACHE", "DEBUG", "LOG_FILE"):
        # Set first, so that what a command sets, as --debug does, is undone too.
        monkeypatch.setenv(f"FEATURECACHE_{name}", "")
        monkeypatch.delenv(f"FEATURECACHE_{name}")

    def invoke(*arguments: object) -> Outcome:
        result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 60 films of 30 patients, in which "Opacity" is a bright patch."""
    root = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    lines = ["path,patient,split,view,Opacity,Rare"]
    for number in range(60):
        patient = number // 2
        split = "train" if patient < 18 else "val" if patient < 23 else "test"
        opacity = int(rng.random() < 0.5)
        pixels = rng.integers(20, 120, (48, 40)).astype(np.uint8)
        if opacity:
            pixels[10:30, 10:30] += 120
        name = f"film-{number:03d}.png"
        Image.fromarray(pixels).save(root / name)
        rare = "" if number % 7 else 0
        view = "AP" if number % 3 else "PA"
        lines.append(f"{name},p{patient},{split},{view},{opacity},{rare}")
    (root / "films.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def extract_options(films: Path) -> list[object]:
    """The options of ``extract`` that name the films."""
    return [
        *("--dataset", "csv", "--data-root", films / "films.csv"),
        *("--label-column", "Opacity", "--label-column", "Rare", "--patient-column", "patient"),
        *("--split-column", "split", "--view-column", "view"),
    ]
