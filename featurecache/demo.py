"""The whole job once, with nothing but what ships with the package.

FOLDER/cache/phantom/tiny.h5   the embeddings of the synthetic films
FOLDER/runs/<method>/          a run folder for each head, and for zero-shot
FOLDER/results.csv             their figures side by side
"""

import csv
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from featurecache.io.atomic import new_file
from featurecache.metrics.metrics import Metrics

DATASET, MODEL = "phantom", "tiny"
HEADS = ("baseline", "concat", "weighted_sum")


@dataclass(frozen=True)
class DemoRow:
    """One method on the test films: macro figures, AUROC with its 95 % interval over patients."""

    method: str
    auroc: float | None
    low: float | None
    high: float | None
    auprc: float | None
    f1: float | None
    seconds: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the AUROC; None where it is undefined or was not drawn."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def run_demo(
    folder: Path, *, workers: int = 2, n_bootstrap: int = 1000, tell: Callable[[str], None]
) -> list[DemoRow]:
    """Draw films, embed them, train three heads and score zero-shot, into a folder.

    Args:
        folder: to make.
        workers: decoding threads.
        n_bootstrap: number of bootstrap samples over patients.
        tell: is told what is being done, a sentence at a time.

    Raises:
        UsageError: something is at ``folder`` already.
        OSError: the disk is full or not writable.
    """
    from featurecache.datasets.load import load_dataset
    from featurecache.encoders.loading import load_encoder
    from featurecache.evaluation.zero_shot import zero_shot
    from featurecache.extraction.update import update_caches
    from featurecache.heads.train import train_head
    from featurecache.io.atomic import require_absent
    from featurecache.prompts import load_prompts
    from featurecache.store.reader import read_cache

    require_absent(folder)
    tell("drawing synthetic films, once for all later demos")
    manifest = load_dataset(DATASET)
    tell(f"embedding {len(manifest)} films with {MODEL}")
    (summary,) = update_caches(
        manifest,
        [load_encoder(MODEL)],
        cache_dir=folder / "cache",
        prompts=load_prompts("signs"),
        workers=workers,
    )
    cache = read_cache(summary.path)
    rows: list[DemoRow] = []
    for head in HEADS:
        tell(f"training the head {head}")
        start = time.perf_counter()
        run = train_head(cache, head, n_bootstrap=n_bootstrap, controls=False)
        run.save(folder / "runs" / head)
        rows.append(_row(head, run.metrics, start))
    tell("scoring zero-shot, by the prompts alone")
    start = time.perf_counter()
    scored = zero_shot(cache, n_bootstrap=n_bootstrap)
    scored.save(folder / "runs" / "zero-shot")
    rows.append(_row("zero-shot", scored.metrics, start))
    with (
        new_file(folder / "results.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, [f.name for f in fields(DemoRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return rows


def _row(method: str, metrics: Metrics, start: float) -> DemoRow:
    macro = metrics.macro
    low, high = macro.auroc_ci or (None, None)
    seconds = time.perf_counter() - start
    return DemoRow(method, macro.auroc, low, high, macro.auprc, macro.f1, seconds)
