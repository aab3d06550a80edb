"""Runs of every kind, made once, and a browser to look at them with."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from featurecache.cli import main
from tests.report.report_runs import HOSTILE, write_run


@dataclass(frozen=True)
class Made:
    """What the commands made of few synthetic films."""

    work: Path
    films: Path
    run: Callable[..., Any]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Runs of all kinds, by the commands themselves."""
    work = tmp_path_factory.mktemp("made")
    films = work / "films"

    def run(*arguments: object) -> Any:
        before = Path.cwd()
        os.chdir(work)
        try:
            return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
        finally:
            os.chdir(before)

    few = ("--dataset", "phantom", "--data-root", films, "--n-images", 90)
    cache = work / "cache" / "phantom" / "tiny.h5"
    once = ("--model", "tiny", "--epochs", 1)
    small = ("--cache", cache, "--sizes", "16,32", "--seeds", 1)
    for command in (
        ("extract", *few, "--cache", work / "cache"),
        ("train-head", "--head", "weighted_sum", "--cache", cache, "--out", "head", "--epochs", 5),
        ("train-head", "--head", "linear", "--cache", cache, "--out", "linear", "--no-controls"),
        ("zero-shot", "--cache", cache, "--out", "zero"),
        ("evaluate", "head", "--cache", cache, "--split", "test", "--out", "transfer"),
        ("finetune", *few, "--objective", "bce", "--trainable", "head", *once, "--out", "tuned"),
        ("learning-curve", "--head", "baseline", "--head", "concat", *small, "--out", "curve"),
    ):
        n_bootstrap = () if command[0] == "extract" else ("--n-bootstrap", 20)
        outcome = run(*command, *n_bootstrap)
        assert outcome.exit_code == 0, outcome.output
    return Made(work, films, run)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose folder, labels and warnings are markup."""
    folder = tmp_path_factory.mktemp("hostile") / "<b onclick=alert(3)>&amp; run"
    return write_run(folder, labels=HOSTILE, warnings=["<script>alert(4)</script>"], n=40)


@pytest.fixture(scope="module")
def chromium():
    """A browser; without one, what needs it is skipped.

    Of one module: while it is open its event loop runs, and another could not be started.
    """
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium: install it, or set CHROMIUM to a browser of its kind")
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: pip install .[dev]"
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()
