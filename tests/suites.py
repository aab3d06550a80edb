"""Run test suites that are commands, such as ``tests.fuzz``."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_suite(name: str, *options: object, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run ``python -m tests.NAME`` of the tests below a folder."""
    return subprocess.run(
        [sys.executable, "-m", f"tests.{name}", *map(str, options)],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{ROOT}"},
        timeout=240,
        check=False,
    )
