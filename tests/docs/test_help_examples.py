"""The example in each command's --help is a command line that works.

Films and weights that are not at hand are stood for by others: the data sets by phantom, XraySigLIP
by tiny, DINOv2 and MiniLM by networks of their shape with random weights.
"""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from featurecache.cli import main
from featurecache.cli.app import app

STAND_INS = {
    "--dataset nih --data-root ~/data/nih": "--dataset phantom --n-images 200",
    "--dataset kermany --data-root ~/data/kermany": "--dataset phantom --n-images 200",
    "--dataset nih": "--dataset phantom --n-images 200",
    "--dataset kermany": "--dataset phantom --n-images 200",
    "xraysiglip": "tiny",
    "kermany": "phantom",
    "nih": "phantom",
}
QUICKER = {
    "finetune": ["--epochs", "1", "--train-size", "40", "--n-bootstrap", "0"],
    "train-head": ["--epochs", "2", "--n-bootstrap", "0", "--no-controls"],
    "learning-curve": ["--sizes", "16,32", "--seeds", "1", "--n-bootstrap", "0"],
    "audit": ["--cache", "cache/phantom/tiny.h5"],
    "retrieve": ["--cache", "cache/phantom/tiny.h5", "--n-images", "200"],
    "zero-shot": ["--cache", "cache/phantom/tiny.h5"],
    "evaluate": ["--n-bootstrap", "0"],
    "report": ["--n-bootstrap", "0"],
}
"""Fewer epochs and draws, and the cache where the newest would be another test's."""

ELSEWHERE = {"demo": "tests/cli/test_demo.py runs it"}


def examples() -> dict[str, str]:
    found = {}

    def walk(command: typer.core.TyperGroup, path: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*path, name))
        if path and not hasattr(command, "commands"):
            text = re.search(r"Example: (featurecache .*)", command.help or "", re.DOTALL)
            found[" ".join(path)] = " ".join(text[1].split()) if text else ""

    walk(get_command(app), ())
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def prepared(workplace: Path, tiny_pair: Path) -> Path:
    """Caches, shards and runs of the names that examples give."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.setenv("XDG_CACHE_HOME", str(workplace / "user-cache"))
        patch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
        cache = ["--cache", "cache/phantom/dinov2-minilm.h5"]
        head = ["--epochs", "1", "--n-bootstrap", "0", "--no-controls", *cache]
        for command in (
            ["extract", "--model", "dinov2-minilm", "--n-images", "200"],
            ["train-head", "--head", "baseline", *head],
            ["train-head", "--head", "concat", *head],
            ["extract", "--n-images", "200", "--shard", "1/2"],
            ["extract", "--n-images", "200", "--shard", "2/2"],
        ):
            done = CliRunner().invoke(main, command, catch_exceptions=False)
            assert done.exit_code == 0, (command, done.output)
        Path("cache/phantom/tiny.h5").rename("kept.h5")  # merge makes it
    return workplace


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_command_runs(name, prepared, at_work, tiny_pair, monkeypatch):
    assert EXAMPLES[name].startswith(f"featurecache {name}")
    if name in ELSEWHERE:
        return
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    whole = Path("cache/phantom/tiny.h5")
    if name == "cache merge":
        whole.unlink(missing_ok=True)
    elif not whole.exists():
        whole.write_bytes(Path("kept.h5").read_bytes())
    line = EXAMPLES[name]
    for word, stand_in in STAND_INS.items():
        line = line.replace(word, stand_in)
    film = next(Path("user-cache").rglob("*.png"))
    words = [str(film) if word == "film.png" else word for word in shlex.split(line)[1:]]
    # As a shell does.
    words = [one for word in words for one in (sorted(map(str, Path().glob(word))) or [word])]
    done = CliRunner().invoke(main, words + QUICKER.get(name, []), catch_exceptions=False)
    assert done.exit_code == 0, (words, done.output)
