"""The README is short, its code runs, and its diagram shows the layers that are enforced."""

import re
import tomllib
from pathlib import Path

from typer.testing import CliRunner

from featurecache.cli import main
from tests.docs.pages import blocks, command_lines

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


def test_readme_is_short():
    assert len(README.read_text().splitlines()) < 120


def test_the_two_commands_run(in_workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = command_lines(blocks(README, "sh")[0])
    assert [words[0] for words in commands] == ["extract", "train-head"]
    for words, quicker in zip(
        commands, (["--n-images", "200"], ["--n-bootstrap", "20", "--no-controls"]), strict=True
    ):
        result = CliRunner().invoke(main, words + quicker, catch_exceptions=False)
        assert result.exit_code == 0, result.output


def test_python_runs(in_workspace, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(README, "python")
    assert len(code.strip().splitlines()) <= 8
    quicker = code.replace('"phantom"', 'fc.load_dataset("phantom", n_images=200)')
    exec(compile(quicker.replace("seeds=5", "seeds=2"), "README.md", "exec"), {})
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
