"""The sources of the documentation, and a folder in which its first commands have run."""

from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="session")
def docs() -> Path:
    return DOCS


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cache and the two runs that most pages start from."""
    from typer.testing import CliRunner

    from featurecache.cli import main

    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "user-cache"))
        patch.setenv("XDG_DATA_HOME", str(folder / "user-data"))
        for command in (
            ["extract", "--n-images", "200"],
            ["train-head", "--head", "prototype", "--n-bootstrap", "20"],
            ["zero-shot", "--n-bootstrap", "20", "--out", "runs/scored"],
        ):
            result = CliRunner().invoke(main, command, catch_exceptions=False)
            assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def in_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace as the current folder, offline and without settings from the environment."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace / "user-cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(workspace / "user-data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("MODELS", "DATA", "CACHE", "DEBUG"):
        monkeypatch.delenv(f"FEATURECACHE_{name}", raising=False)
    return workspace
