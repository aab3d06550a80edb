"""Runs of every kind, made once: by the commands on few films, and from arrays at any size."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from featurecache.cli import main
from featurecache.runs import new_run, write_config, write_history, write_json, write_predictions
from featurecache.scoring.evaluation import evaluate
from featurecache.scoring.rows import ScoredRows

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "$\\frac{1}{",
    "{{ 7 * 7 }} & _Öl/../x",
)


@dataclass
class Page(HTMLParser):
    """What a page holds, as a browser without scripts would find it."""

    html: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._hidden: list[str] = []
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("style", "script"):
            self._hidden.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._hidden and self._hidden[-1] == tag:
            self._hidden.pop()

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def write_run(
    target: Path,
    *,
    labels: Sequence[str] = ("Mass", "Edema"),
    n: int = 120,
    per_patient: int = 2,
    seed: int = 0,
    draws: int = 20,
    kind: str = "head",
    warnings: Sequence[str] = (),
    unlearned: Sequence[int] = (),
    spoil: Callable[[np.ndarray], None] = lambda truth: None,
    **settings: Any,
) -> Path:
    """A run of random figures: n test images, and half as many for validation."""
    rng = np.random.default_rng(11)
    total = n + n // 2
    truth = (rng.random((total, len(labels))) < 0.3).astype(np.int8)
    spoil(truth)
    noise = np.random.default_rng(seed).normal(size=truth.shape)
    probability = 1 / (1 + np.exp(1.5 - 2 * truth - noise))
    learned = np.ones(len(labels), dtype=bool)
    learned[list(unlearned)] = False
    patients = np.array([f"p{row // per_patient}" for row in range(total)])
    test, val = np.arange(n), np.arange(n, total)
    rows = ScoredRows(
        truth=truth,
        label_names=tuple(labels),
        patient=patients,
        view=np.full(total, ""),
        train=np.empty(0, dtype=np.intp),
        val=val,
        test=test,
        learned=learned,
    )
    metrics = evaluate(rows, probability, draws=draws)
    metrics["warnings"] = list(warnings)
    with new_run(target) as folder:
        write_config(folder, kind, {"labels": list(labels), **settings})
        write_json(folder / "metrics.json", metrics)
        write_predictions(
            folder,
            ids=np.array([f"{row:06d}.png" for row in range(total)]),
            patients=patients,
            splits=np.where(np.arange(total) < n, "test", "val"),
            label_names=labels,
            truth=truth,
            probability=probability,
        )
        write_history(
            folder,
            [
                {"epoch": e, "learning_rate": 1e-3, "train_loss": 1 / e, "val_loss": 1.1 / e}
                for e in range(1, 6)
            ],
        )
    return target


@dataclass(frozen=True)
class Made:
    """What the commands made of few synthetic films."""

    work: Path
    films: Path
    run: Callable[..., Any]

    def __getattr__(self, name: str) -> Path:
        return self.work / name


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

    few = ("--dataset", "phantom", "--data-root", films, "--images", 90)
    cache = work / "cache" / "phantom" / "tiny.h5"
    for command in (
        ("extract", *few, "--cache", work / "cache"),
        ("train-head", "--head", "weighted_sum", "--cache", cache, "--out", "head", "--epochs", 5),
        ("train-head", "--head", "linear", "--cache", cache, "--out", "linear", "--no-controls"),
        ("zero-shot", "--cache", cache, "--out", "zero"),
        ("evaluate", "head", "--cache", cache, "--rows", "test", "--out", "transfer"),
        ("finetune", "--model", "tiny", *few, "--objective", "bce", "--train", "head")
        + ("--epochs", 1, "--out", "tuned"),
        ("curve", "--head", "baseline", "--head", "concat", "--cache", cache)
        + ("--sizes", "16,32", "--seeds", 1, "--out", "curve"),
    ):
        draws = () if command[0] == "extract" else ("--draws", 20)
        outcome = run(*command, *draws)
        assert outcome.exit_code == 0, outcome.output
    return Made(work, films, run)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100,000 test images of 14 labels."""
    names = [f"Finding {number}" for number in range(1, 15)]
    return write_run(tmp_path_factory.mktemp("large") / "run", labels=names, n=100_000, draws=0)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose folder, labels and warnings are markup."""
    folder = tmp_path_factory.mktemp("hostile") / "<b onclick=alert(3)>&amp; run"
    return write_run(folder, labels=HOSTILE, warnings=["<script>alert(4)</script>"], n=40)


@pytest.fixture(scope="session")
def chromium():
    """A browser; without one, what needs it is skipped."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium: install it, or set CHROMIUM to a browser of its kind")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install .[dev]")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


def metrics_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())
