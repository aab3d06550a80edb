"""Start-up imports little; every command has help; completion and ``python -m`` work."""

import os
import subprocess
import sys

import pytest

from featurecache.cli import app

HEAVY = ("torch", "transformers", "h5py", "sklearn", "scipy", "pandas", "numpy", "PIL", "ray")
COMMANDS = (
    [],
    ["cache"],
    *([name] for commands in app.COMMANDS.values() for name in commands),
    *(["cache", name] for name in ("ls", "info", "verify", "merge")),
    ["models"],
    ["models", "convert"],
    ["datasets"],
    ["datasets", "describe"],
    ["runs"],
    ["runs", "ls"],
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
    assert command in (["cache"], ["runs"]) or "Example: featurecache" in outcome.stdout


def test_version(run):
    from importlib.metadata import version

    assert run("--version").stdout.strip() == f"featurecache {version('featurecache')}"


def test_module_runs_the_command_line():
    from importlib.metadata import version

    done = subprocess.run(
        [sys.executable, "-m", "featurecache", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"featurecache {version('featurecache')}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_printed(run, monkeypatch, shell):
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    outcome = run("--show-completion")
    assert outcome.code == 0
    assert f"COMPLETE=complete_{shell}" in outcome.stdout


def test_shell_completes_commands_and_options():
    code = "import sys; sys.argv = ['featurecache']; from featurecache.cli import main; main()"

    def complete(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        environment = os.environ | words | {"_FEATURECACHE_COMPLETE": "complete_bash"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        return done.stdout.split()

    assert complete("featurecache train-h") == ["train-head"]
    assert complete("featurecache train-head --text-a") == ["--text-ablation"]
