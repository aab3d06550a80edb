"""The site's sources, and a folder in which its commands have been run."""

from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="session")
def docs() -> Path:
    return DOCS


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``extract --n-images 200`` and a head have run: what most pages begin with."""
    from typer.testing import CliRunner

    from featurecache.cli import main

    place = tmp_path_factory.mktemp("workplace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("XDG_CACHE_HOME", str(place / "user-cache"))
        for command in (
            ["extract", "--n-images", "200"],
            ["train-head", "--head", "prototype", "--n-bootstrap", "20"],
            ["zero-shot", "--n-bootstrap", "20", "--out", "runs/scored"],
        ):
            done = CliRunner().invoke(main, command, catch_exceptions=False)
            assert done.exit_code == 0, done.output
    return place


@pytest.fixture
def at_work(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the current folder."""
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "user-cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("MODELS", "DATA", "CACHE", "DEBUG"):
        monkeypatch.delenv(f"FEATURECACHE_{name}", raising=False)
    return workplace
