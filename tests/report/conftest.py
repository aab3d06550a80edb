"""Run folders of every kind, made once, and a browser."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from featurecache.cli import main
from tests.report.report_runs import COHORT, HOSTILE, write_run


@dataclass(frozen=True)
class Workspace:
    """A folder with the results of several commands, and a function that runs another one."""

    folder: Path
    images: Path
    run: Callable[..., Any]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Run folders of every kind, on a few synthetic images."""
    folder = tmp_path_factory.mktemp("workspace")
    images = folder / "images"

    def run(*arguments: object) -> Any:
        before = Path.cwd()
        os.chdir(folder)
        try:
            return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
        finally:
            os.chdir(before)

    dataset = ("--dataset", "phantom", "--data-root", images, "--n-images", 90)
    cache = folder / "cache" / "phantom" / "tiny.h5"
    model = ("--model", "tiny", "--epochs", 1)
    sizes = ("--cache", cache, "--sizes", "16,32", "--seeds", 1)
    for command in (
        ("extract", *dataset, "--cache", folder / "cache"),
        ("train-head", "--head", "weighted_sum", "--cache", cache, "--out", "head", "--epochs", 5),
        ("train-head", "--head", "linear", "--cache", cache, "--out", "linear", "--no-controls"),
        ("zero-shot", "--cache", cache, "--out", "zero"),
        (
            *("evaluate", "head", "--cache", cache, "--split", "test", "--by", "sex"),
            *("--out", "transfer"),
        ),
        (
            "finetune",
            *dataset,
            "--objective",
            "bce",
            "--trainable",
            "head",
            *model,
            "--out",
            "tuned",
        ),
        ("learning-curve", "--head", "baseline", "--head", "concat", *sizes, "--out", "curve"),
    ):
        n_bootstrap = () if command[0] in ("extract", "learning-curve") else ("--n-bootstrap", 20)
        outcome = run(*command, *n_bootstrap)
        assert outcome.exit_code == 0, outcome.output
    return Workspace(folder, images, run)


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose folder, labels, warnings and reasons for exclusions hold markup."""
    folder = tmp_path_factory.mktemp("hostile") / "<b onclick=alert(3)>&amp; run"
    cohort = COHORT.model_copy(update={"failed": dict.fromkeys(HOSTILE, 3)}).to_json()
    warnings = ["<script>alert(4)</script>"]
    return write_run(folder, labels=HOSTILE, warnings=warnings, n=40, cohort=cohort)


@pytest.fixture(scope="module")
def chromium():
    """A headless browser; tests that need one are skipped where there is none.

    Module scope: while it is open its event loop runs, and no other can be started.
    """
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium: install it, or set CHROMIUM to a compatible browser")
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
