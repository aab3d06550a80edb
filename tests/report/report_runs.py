"""Run folders with random predictions, and checks of HTML pages."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from featurecache.evaluation.evaluate import evaluate
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.cohort import Ages, Cohort, SplitCohort
from featurecache.runs.predictions import Predictions
from featurecache.runs.run import Run

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "$\\frac{1}{",
    "{{ 7 * 7 }} & _Öl/../x",
    "_bell \x07 and\nline",
)


def split_cohort(n: int, n_patients: int | None) -> SplitCohort:
    """Return n images of two labels, one of which is unknown."""
    return SplitCohort(
        n=n,
        n_patients=n_patients,
        n_labeled=n - 1,
        sexes={"": 1, "F": 4},
        ages=Ages(n=4, median=52.25, quartiles=(40.0, 63.0)),
        views={"PA": n},
        positive={"Mass": 3, "Edema": 0},
        known={"Mass": 12, "Edema": 0},
    )


COHORT = Cohort(
    left_out={"listed, but not on disk": 12},
    n_loaded=188,
    n_patients_loaded=75,
    failed={"damaged": 3},
    n_images=175,
    n_patients=70,
    unused={"copied in a later split": 5},
    splits={
        "train": split_cohort(50, 5),
        "test": split_cohort(120, 60),
        "all": split_cohort(170, 65),
    },
)

FETCHING = ("src", "srcset", "poster", "data", "action", "formaction", "background", "ping")


@dataclass
class Page(HTMLParser):
    """A parsed page: its tags, and its visible text."""

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
    n_val: int = 60,
    per_patient: int = 2,
    seed: int = 0,
    n_bootstrap: int = 20,
    kind: str = "head",
    warnings: Sequence[str] = (),
    unlearned: Sequence[int] = (),
    edit_truth: Callable[[np.ndarray], None] = lambda truth: None,
    **settings: Any,
) -> Path:
    """Write a run folder with random predictions of n test and n_val validation images."""
    rng = np.random.default_rng(11)
    total = n + n_val
    truth = (rng.random((total, len(labels))) < 0.3).astype(np.int8)
    edit_truth(truth)
    noise = np.random.default_rng(seed).normal(size=truth.shape)
    probability = 1 / (1 + np.exp(1.5 - 2 * truth - noise))
    learned = np.ones(len(labels), dtype=bool)
    learned[list(unlearned)] = False
    patients = np.array([f"p{row // per_patient}" for row in range(total)])
    test, val = np.arange(n), np.arange(n, total)
    data = SplitData(
        truth=truth,
        label_names=tuple(labels),
        patient=patients,
        view=np.full(total, ""),
        train=np.empty(0, dtype=np.intp),
        val=val,
        test=test,
        learned=learned,
    )
    metrics = evaluate(data, probability, warnings=warnings, n_bootstrap=n_bootstrap)
    run = Run(
        kind=kind,
        config={"labels": list(labels), **settings},
        metrics=metrics,
        scored=Predictions(
            ids=np.array([f"{row:06d}.png" for row in range(total)]),
            patients=patients,
            studies=np.full(total, ""),
            splits=np.where(np.arange(total) < n, "test", "val"),
            sha256=np.full(total, ""),
            label_names=tuple(labels),
            truth=truth,
            probability=np.where(learned, probability, np.nan),
        ),
        default_name=target.name,
        history=[
            {"epoch": e, "learning_rate": 1e-3, "train_loss": 1 / e, "val_loss": 1.1 / e}
            for e in range(1, 6)
        ],
    )
    return run.save(target)


def metrics_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


@contextmanager
def opened(browser, path, **settings):
    """Open a page in a tab; yields the tab, its console messages and its requests."""
    context = browser.new_context(**settings)
    tab = context.new_page()
    messages, requests = [], []
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("dialog", lambda dialog: (messages.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(path.resolve().as_uri())
    yield tab, messages, requests
    context.close()


def assert_valid(page: Page) -> None:
    """Check title, heading levels, unique ids, and names of tables and images."""
    assert len(page.all("h1")) == len(page.all("title")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link["href"].removeprefix("#") in ids
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    assert all(plot["aria-label"] for plot in page.all("svg"))
    assert all(image["alt"] for image in page.all("img"))
    assert_offline(page)


def assert_offline(page: Page) -> None:
    assert not page.all("script")
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in FETCHING:
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        if tag != "a":
            for name in ("href", "xlink:href"):
                assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    for url in re.findall(r"url\(([^)]*)\)", page.html):
        assert url.startswith("#")
    assert "@import" not in page.html
