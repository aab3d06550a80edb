"""What the pages say can be typed is typed: shell blocks, Python blocks, whole examples."""

import re
import shlex
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from featurecache.cli import main
from featurecache.cli.app import app
from featurecache.store.reader import read_cache

NOT_RUN = "# not run:"
"""How a block begins that needs films or weights that are not at hand; it says which."""


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if not block.startswith(NOT_RUN)]


def commands(page: Path) -> list[list[str]]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    typed = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in typed if words and words[0] == "featurecache"]


@pytest.mark.parametrize("name", ["start", "zero-shot", "retrieve"])
def test_the_commands_of_a_page_run_in_its_order(name, docs, at_work, tmp_path, monkeypatch):
    if name == "start":
        monkeypatch.chdir(tmp_path)
    typed = commands(docs / f"{name}.md")
    assert len(typed) >= 2
    for words in typed:
        done = CliRunner().invoke(main, words, catch_exceptions=False)
        assert done.exit_code == 0, (words, done.output)


@pytest.mark.parametrize("name", ["extract", "zero-shot", "format", "extending"])
def test_the_python_of_a_page_runs(name, docs, at_work, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(docs / "examples"))
    found = blocks(docs / f"{name}.md", "python")
    assert found
    for block in found:
        exec(compile(block, f"{name}.md", "exec"), {})


def test_the_examples_are_short_and_the_data_set_is_read(docs, tmp_path, monkeypatch):
    for file in (docs / "examples").glob("*.py"):
        assert len(file.read_text().splitlines()) < 40, file.name
    monkeypatch.syspath_prepend(str(docs / "examples"))
    from a_dataset import load_ward

    for patient in range(20):
        for number in range(2):
            state = "ill" if (patient + number) % 3 == 0 else "well"
            Image.new("L", (20, 20)).save(tmp_path / f"p{patient:02d}_{number}_{state}.png")
    manifest = load_ward(tmp_path)
    assert len(manifest) == 40
    assert set(manifest.images["patient"]) == {f"p{patient:02d}" for patient in range(20)}
    truth = [name.endswith("_ill.png") for name in manifest.images["id"]]
    np.testing.assert_array_equal(manifest.label_values[:, 0], truth)
    del sys.modules["a_dataset"]


def test_the_page_of_the_format_names_all_that_a_cache_holds(docs, at_work):
    page = (docs / "format.md").read_text()
    with h5py.File("cache/phantom/tiny.h5") as file:
        names = [f"`{name}`" for name in file.attrs]

        def see(path: str, found: h5py.Group | h5py.Dataset) -> None:
            names.extend(f"`{name}`" for name in found.attrs)
            # Under trained_on a collection's name is the dataset's.
            if isinstance(found, h5py.Dataset) and not path.startswith("trained_on/"):
                names.append(f"`{path.rpartition('/')[2]}`")

        file.visititems(see)
    assert len(names) > 30
    missing = sorted({name for name in names if name not in page})
    assert missing == []


def test_the_environment_page_names_every_variable(docs):
    code = (docs.parent / "featurecache").rglob("*.py")
    used = {name for file in code for name in re.findall(r"FEATURECACHE_[A-Z_]+", file.read_text())}
    page = (docs / "environment.md").read_text()
    assert used
    assert sorted(name for name in used if f"`{name}`" not in page) == []


def test_the_cache_of_a_page_is_a_real_one(at_work):
    assert len(read_cache(Path("cache/phantom/tiny.h5")).images) == 200


ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_line_of_a_page_names_commands_and_options_that_there_are(page):
    shell = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = "\n".join(shell).replace("\\\n", " ").splitlines()
    for line in lines:
        words = shlex.split(line, comments=True)
        while words and "=" in words[0]:  # a variable of the environment
            words = words[1:]
        if not words or words[0] != "featurecache" or "..." in words:
            continue
        parse(words[1:])


def parse(arguments: list[str]) -> None:
    """With all checks of names and values, and not run."""
    command = get_command(app)
    while hasattr(command, "commands"):
        context = command.make_context(command.name, arguments)  # takes the group's own options
        name, *arguments = [*context._protected_args, *context.args]
        command = command.commands[name]
    command.make_context(command.name, arguments)


@pytest.mark.parametrize(
    "wrong", [["train-head", "--hed", "x"], ["cache", "lss"], ["extract", "--shard"], ["predict"]]
)
def test_a_line_that_could_not_be_typed_is_found(wrong):
    with pytest.raises(Exception, match=r"No such option|lss|requires an argument|Missing"):
        parse(wrong)
