"""Start-up is light, and help is there for everything."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "h5py", "sklearn", "scipy", "pandas", "numpy", "PIL", "ray")
COMMANDS = (
    [],
    ["extract"],
    ["train-head"],
    ["finetune"],
    ["align"],
    ["zero-shot"],
    ["predict"],
    ["evaluate"],
    ["compare"],
    ["report"],
    ["demo"],
    ["models"],
    ["datasets"],
    ["heads"],
    ["cache"],
    ["cache", "ls"],
    ["cache", "info"],
    ["cache", "verify"],
)


@pytest.mark.parametrize(
    "code",
    [
        "import featurecache",
        "from featurecache.cli import main; main(['--help'], standalone_mode=False)",
        "from featurecache.cli import main; main(['extract', '--help'], standalone_mode=False)",
        "from featurecache.cli import main; main(['models'], standalone_mode=False)",
        "import featurecache.encoders.loading, featurecache.datasets.registry",
    ],
)
def test_heavy_libraries_are_not_imported(code):
    report = f"import sys; {code}; print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = done.stderr.strip().splitlines()[-1]
    assert "torch" not in loaded
    assert "transformers" not in loaded
    assert loaded == "[]" or "loading" in code, loaded


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "app")
def test_every_command_has_help_with_an_example(run, command):
    outcome = run(*command, "--help")
    assert outcome.code == 0
    assert command == ["cache"] or "Example: featurecache" in outcome.stdout


def test_version(run):
    from importlib.metadata import version

    assert run("--version").stdout.strip() == f"featurecache {version('featurecache')}"
