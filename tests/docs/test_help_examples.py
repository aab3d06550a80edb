"""The example in each command's --help works.

Images and weights that are not available are replaced: the data sets by phantom, XraySigLIP by
tiny, DINOv2 and MiniLM by networks of their architecture with random weights.
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

REPLACEMENTS = {
    "--dataset nih --data-root ~/data/nih": "--dataset phantom --n-images 200",
    "--dataset kermany --data-root ~/data/kermany": "--dataset phantom --n-images 200",
    "describe nih --data-root DIR": "describe phantom --n-images 200",
    "--dataset nih": "--dataset phantom --n-images 200",
    "--dataset kermany": "--dataset phantom --n-images 200",
    "xraysiglip": "tiny",
    "16,128,1024": "16,32",
    "kermany": "phantom",
    "nih": "phantom",
}
EXTRA_OPTIONS = {
    "finetune": ["--epochs", "1", "--train-size", "40", "--n-bootstrap", "0"],
    "train-head": ["--epochs", "2", "--n-bootstrap", "0", "--no-controls"],
    "learning-curve": ["--seeds", "1"],
    "audit": ["--cache", "cache/phantom/tiny.h5", "--n-bootstrap", "0"],
    "retrieve": ["--cache", "cache/phantom/tiny.h5", "--n-images", "200"],
    "zero-shot": ["--cache", "cache/phantom/tiny.h5", "--n-bootstrap", "0"],
    "evaluate": ["--n-bootstrap", "0"],
}
"""Fewer epochs and bootstrap samples, and the cache where the newest would be another test's."""

TESTED_ELSEWHERE = {
    "demo": "tests/cli/test_demo.py",
    "cache import": "tests/importing/test_import.py",  # needs embeddings from elsewhere
    "cache push": "tests/sharing/test_sharing.py",  # with a stand-in of the hub
    "cache pull": "tests/sharing/test_sharing.py",
    "runs push": "tests/sharing/test_sharing.py",
    "runs pull": "tests/sharing/test_sharing.py",
    "explore": "tests/explore/test_explore.py",  # without the extra that the command needs
    "serve": "tests/serve/test_serve.py",  # does not end
    "study": "tests/study/test_study.py",  # needs a study file
    "suggest": "tests/cli/test_suggest_command.py",  # needs images without labels
    "models convert": "tests/encoders/test_convert.py",  # needs a file and the extra timm
}


def examples() -> dict[str, str]:
    """Return the example of every command, "" where there is none."""
    found = {}

    def walk(command: typer.core.TyperGroup, path: tuple[str, ...]) -> None:
        for name, child in getattr(command, "commands", {}).items():
            walk(child, (*path, name))
        if path and not hasattr(command, "commands"):
            text = re.search(r"Example: (featurecache .*)", command.help or "", re.DOTALL)
            found[" ".join(path)] = " ".join(text[1].split()) if text else ""

    walk(get_command(app), ())
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def prepared(workspace: Path, tiny_pair: Path) -> Path:
    """The workspace with the caches, shards and runs that the examples name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        patch.setenv("XDG_CACHE_HOME", str(workspace / "user-cache"))
        patch.setenv("XDG_DATA_HOME", str(workspace / "user-data"))
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
            result = CliRunner().invoke(main, command, catch_exceptions=False)
            assert result.exit_code == 0, (command, result.output)
        Path("kept.h5").write_bytes(Path("cache/phantom/tiny.h5").read_bytes())
    return workspace


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_in_the_help_of_a_command_runs(
    name, prepared, in_workspace, tiny_pair, monkeypatch
):
    assert EXAMPLES[name].startswith("featurecache")
    assert f" {name}" in EXAMPLES[name]
    if name in TESTED_ELSEWHERE:
        return
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    cache = Path("cache/phantom/tiny.h5")
    if name == "cache merge":  # it makes this file
        cache.unlink(missing_ok=True)
    elif not cache.exists():
        cache.write_bytes(Path("kept.h5").read_bytes())
    line = EXAMPLES[name]
    for text, replacement in REPLACEMENTS.items():
        line = line.replace(text, replacement)
    image = str(next(Path("user-cache").rglob("*.png")))
    words = [image if word in ("image.png",) else word for word in shlex.split(line)[1:]]
    # Expand wildcards as a shell does.
    words = [match for word in words for match in (sorted(map(str, Path().glob(word))) or [word])]
    arguments = words + EXTRA_OPTIONS.get(name, [])
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, (arguments, result.output)
