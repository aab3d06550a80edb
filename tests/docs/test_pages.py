"""The commands and the Python code of the pages work as written."""

import re
import sys
from pathlib import Path

import h5py
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from featurecache.cli import main
from featurecache.cli.app import app
from tests.docs.pages import blocks, command_lines, runnable

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]

COMMANDS_RUN = [
    "tutorials/command_line",
    "how-to/zero_shot",
    "how-to/retrieve",
    "how-to/export",
    "how-to/import",
    "how-to/share",
    "how-to/report",
]
"""Pages whose commands need nothing but the workspace."""

PYTHON_PAGES = [
    page.relative_to(DOCS).with_suffix("").as_posix()
    for page in PAGES
    if page.is_relative_to(DOCS) and runnable(page, "python")
]


@pytest.mark.parametrize("name", COMMANDS_RUN)
def test_commands_of_a_page_run_in_order(name, docs, in_workspace, tmp_path, monkeypatch):
    if name.startswith("tutorials"):
        monkeypatch.chdir(tmp_path)
    lines = [line for block in runnable(docs / f"{name}.md", "sh") for line in command_lines(block)]
    assert lines
    for words in lines:
        result = CliRunner().invoke(main, words, catch_exceptions=False)
        assert result.exit_code == 0, (words, result.output)


@pytest.mark.parametrize("name", PYTHON_PAGES)
def test_python_of_a_page_runs(name, docs, in_workspace, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(docs / "examples"))
    namespace: dict[str, object] = {}
    for block in runnable(docs / f"{name}.md", "python"):
        exec(compile(block, f"{name}.md", "exec"), namespace)
    for module in ("own_encoder", "own_dataset", "own_head"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_has_valid_options(page):
    for block in blocks(page, "sh"):
        for words in command_lines(block):
            parse(words)


def test_images_of_phantom_lie_where_pages_say(in_workspace):
    """In the workspace are 200 images; those of 600 lie in a folder of that number."""
    path = re.compile(r"~/\.cache/(featurecache/phantom-\S+/images/\S+\.png)")
    named = {found for page in PAGES for found in path.findall(page.read_text())}
    assert len(named) == 2
    for file in named:
        assert (in_workspace / "user-cache" / file.replace("-600-", "-200-")).is_file()


def options_by_command() -> dict[str, set[str]]:
    """Return the options of every command, and under "" those of all together."""
    found: dict[str, set[str]] = {"": set()}
    groups = [("", get_command(app))]
    while groups:
        name, command = groups.pop()
        groups += getattr(command, "commands", {}).items()
        found[name] = {option for p in command.params for option in p.opts + p.secondary_opts}
    found[""] = set().union({"--help"}, *found.values())
    return found


def test_text_of_pages_names_existing_options():
    options = options_by_command()
    commands = "|".join(name for name in options if name)
    span = re.compile(rf"`(?:featurecache )?(?:({commands}) )?(--[a-z-]+)[^`]*`")
    pages = [page for page in PAGES if page.parent.name != "engineering"]
    named = [(page.name, *found) for page in pages for found in span.findall(page.read_text())]
    assert len(named) > 50
    assert [words for words in named if words[2] not in options[words[1]]] == []


def parse(arguments: list[str]) -> None:
    """Check the names and values of a command's options without running it."""
    command = get_command(app)
    while hasattr(command, "commands"):
        context = command.make_context(command.name, arguments)  # consumes the group's options
        name, *arguments = [*context._protected_args, *context.args]
        command = command.commands[name]
    command.make_context(command.name, arguments)


@pytest.mark.parametrize(
    "arguments",
    [["train-head", "--hed", "x"], ["cache", "lss"], ["extract", "--shard"], ["predict"]],
)
def test_invalid_command_line_is_detected(arguments):
    with pytest.raises(Exception, match=r"No such option|lss|requires an argument|Missing"):
        parse(arguments)


def test_format_page_names_every_attribute_and_dataset_of_a_cache(docs, in_workspace):
    page = (docs / "reference" / "format.md").read_text()
    with h5py.File("cache/phantom/tiny.h5") as file:
        names = [f"`{name}`" for name in file.attrs]

        def collect(path: str, item: h5py.Group | h5py.Dataset) -> None:
            names.extend(f"`{name}`" for name in item.attrs)
            if isinstance(item, h5py.Dataset):
                names.append(f"`{path.rpartition('/')[2]}`")

        file.visititems(collect)
    assert len(names) > 30
    assert sorted({name for name in names if name not in page}) == []


def test_environment_page_names_every_variable(docs):
    sources = (ROOT / "featurecache").rglob("*.py")
    used = {
        name for file in sources for name in re.findall(r"FEATURECACHE_[A-Z_]+", file.read_text())
    }
    page = (docs / "reference" / "environment.md").read_text()
    assert used
    assert sorted(name for name in used if f"`{name}`" not in page) == []
