"""The README is short, its code runs, and its diagram shows the layers that are enforced."""

import re
import tomllib
from pathlib import Path

from tests.docs.pages import blocks

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


def test_readme_is_short():
    assert len(README.read_text().splitlines()) < 120


def test_python_runs(in_workspace, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(README, "python")
    exec(compile(code, "README.md", "exec"), {})
    assert Path("report.html").is_file()


def test_diagram_shows_the_layers_of_import_linter():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (layers,) = (
        contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    diagram = README.read_text().partition("## Architecture")[2].partition("```text\n")[2]
    lines = diagram.partition("```")[0].splitlines()
    shown = [re.split(r" {2,}", line)[0].split(", ") for line in lines]
    assert shown == [layer.split(" | ") for layer in layers]
