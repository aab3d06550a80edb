"""Fixtures for inputs: the runner of commands, and a loader of tables."""

from pathlib import Path

import pytest

from tests.cli.conftest import Run, isolate_commands, run
from tests.inputs.tables import Load, make_loader

__all__ = ["isolate_commands", "load", "run"]


@pytest.fixture
def load(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Write a table beside four images, and load it by the options of a command."""
    return make_loader(run, tmp_path, monkeypatch)
