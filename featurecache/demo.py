"""The whole workflow once, on synthetic images and with the packaged encoder.

FOLDER/cache/phantom/tiny.h5   embeddings of the synthetic images
FOLDER/runs/<method>/          a run folder for each head, and for zero-shot
FOLDER/results.csv             their metrics side by side; without rows until all are there
"""

import csv
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain, count
from pathlib import Path

from featurecache.datasets.load import load_dataset
from featurecache.evaluation.zero_shot import zero_shot
from featurecache.extraction.extract import extract
from featurecache.heads.train import train_head
from featurecache.io.atomic import new_file, require_absent, require_short_name
from featurecache.io.lock import exclusive_lock
from featurecache.runs.run import Run
from featurecache.wording import count_noun

HEADS = ("baseline", "concat", "weighted_sum")
RESULTS = "results.csv"


@dataclass(frozen=True)
class DemoResult:
    """Macro metrics of one method on the test images.

    Attributes:
        method: name of the head, or "zero-shot".
        auroc: AUROC.
        low: lower end of its 95 % interval over patients; None without bootstrap samples.
        high: upper end of the interval.
        auprc: average precision.
        f1: F1 score.
        seconds: duration of training and evaluation.
    """

    method: str
    auroc: float | None
    low: float | None
    high: float | None
    auprc: float | None
    f1: float | None
    seconds: float

    @property
    def auroc_ci(self) -> tuple[float, float] | None:
        """The 95 % interval of the AUROC."""
        return None if self.low is None or self.high is None else (self.low, self.high)


_COLUMNS = [field.name for field in fields(DemoResult)]
_HEADER = ",".join(_COLUMNS) + "\n"


def demo_folder(parent: Path) -> Path:
    """Return ``featurecache-demo``, or with -2, -3, ...: the first that is free or unfinished."""
    name = "featurecache-demo"
    folders = chain([parent / name], (parent / f"{name}-{number}" for number in count(2)))
    return next(folder for folder in folders if not folder.exists() or _is_unfinished(folder))


def run_demo(
    folder: str | os.PathLike[str],
    *,
    n_bootstrap: int = 1000,
    on_step: Callable[[str], None] = lambda step: None,
) -> list[DemoResult]:
    """Generate images, extract embeddings, train three heads, and score zero-shot.

    Args:
        folder: folder to create, or that of a demo that was interrupted, which is completed.
        n_bootstrap: number of bootstrap samples over patients.
        on_step: called with a description of each step before it starts.

    Returns:
        The results, one per method.

    Raises:
        UsageError: ``folder`` exists already, or another process is writing it.
        OSError: the disk is full or not writable.
    """
    folder = Path(folder)
    _require_free(folder)
    with exclusive_lock(folder, folder / ".lock"):
        _require_free(folder)  # another process may have finished it
        _write_results(folder, [])
        on_step("generating synthetic images, once for all demos")
        dataset = load_dataset("phantom")
        on_step(f"extracting embeddings of {count_noun(len(dataset), 'image')} with tiny")
        cache = extract(
            dataset, "tiny", prompts="signs", cache_dir=folder / "cache", precision="exact"
        )
        results = []
        for method in (*HEADS, "zero-shot"):
            start = time.perf_counter()
            if method == "zero-shot":
                on_step("scoring zero-shot, by the prompts alone")
                run = zero_shot(cache, n_bootstrap=n_bootstrap)
            else:
                on_step(f"training the head {method}")
                run = train_head(cache, method, n_bootstrap=n_bootstrap, controls=False)
            # It takes seconds, and one of an interrupted demo may have other bootstrap samples.
            shutil.rmtree(folder / "runs" / method, ignore_errors=True)
            run.save(folder / "runs" / method)
            results.append(_result(method, run, time.perf_counter() - start))
        _write_results(folder, results)
    return results


def _require_free(folder: Path) -> None:
    require_short_name(folder)
    if not _is_unfinished(folder):
        require_absent(folder)


def _is_unfinished(folder: Path) -> bool:
    """Return whether this is an empty folder, or that of a demo that was interrupted."""
    results = folder / RESULTS
    if results.is_file():
        return results.read_text(encoding="utf-8", errors="replace") == _HEADER
    return folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())


def _write_results(folder: Path, results: Sequence[DemoResult]) -> None:
    with (
        new_file(folder / RESULTS) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        file.write(_HEADER)
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writerows(asdict(result) for result in results)


def _result(method: str, run: Run, seconds: float) -> DemoResult:
    macro = run.metrics.macro
    low, high = macro.auroc_ci or (None, None)
    return DemoResult(method, macro.auroc, low, high, macro.auprc, macro.f1, seconds)
