"""Shared parts of the three studies: options, caches, run folders and result pages.

Caches and runs are kept in a folder per study and model. An interrupted study continues from there;
a run that is deleted is made again, with the same numbers.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from page import replace_section

import featurecache as fc
from featurecache.encoders.registry import ENCODERS
from featurecache.errors import FeaturecacheError
from featurecache.evaluation.comparison import RunComparison
from featurecache.finetune.config import RECIPES
from featurecache.heads.registry import head_spec
from featurecache.io.atomic import new_file
from featurecache.metrics.bootstrap import resample_patients
from featurecache.metrics.metrics import Metrics
from featurecache.metrics.sampled_metrics import MeanMetrics, sample_metrics
from featurecache.report.table import format_interval
from featurecache.wording import UNDEFINED

FINETUNE_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {
        "prompts": "signs",
        "learning_rate": 3e-4,
        "head_learning_rate": 1e-2,
        "optimizer": "adamw",
        "epochs": 8,
        "batch_size": 32,
        "precision": "bf16",
    },
    "dinov2-minilm": {
        "trainable": "last-2",
        "learning_rate": 1e-4,
        "optimizer": "adamw",
        "epochs": 3,
        "batch_size": 32,
        "precision": "bf16",
    },
}
"""Fine-tuning settings for a model on two CPU cores, which override the recipe. Those of tiny had
the lowest validation loss of six candidates on Kermany; those of dinov2-minilm were not tuned."""

CONTROLS = {
    "any_finding": "any finding",
    "view_only": "view position alone",
    "shuffled_labels": "shuffled labels",
    "random_features": "random features",
}

QUICK_SIZES = {"train": 96, "val": 40, "test": 60}


@dataclass(frozen=True)
class Study:
    """One study of one model.

    Attributes:
        model: name of a registered model, or a folder.
        data: folder that holds the data sets; None for the default locations.
        work: folder of the study's caches and runs.
        train_size: number of training images of each data set, sampled by a seed; None for all.
        quick: check that the study runs, with few images, epochs, seeds and bootstrap samples. The
            numbers are meaningless.
        page: page that the results are written to; None for none.
        command: command that repeats the study.
        started: start time, from ``time.perf_counter``.
    """

    model: str
    data: Path | None
    work: Path
    train_size: int | None
    quick: bool
    page: Path | None
    command: str
    started: float

    @property
    def n_bootstrap(self) -> int:
        """Number of bootstrap samples."""
        return 20 if self.quick else 1000

    @property
    def seeds(self) -> int:
        """Number of seeds per head."""
        return 2 if self.quick else 5

    @cached_property
    def encoder(self) -> fc.Encoder:
        """The frozen encoder, executed alike on every machine."""
        return fc.load_encoder(self.model, precision="exact")

    @cached_property
    def trainable(self) -> fc.Encoder:
        """The encoder to fine-tune: for a pair without a joint space, its image encoder."""
        spec = ENCODERS.get(self.model)
        if spec is None or not spec.members:
            return self.encoder
        return fc.load_encoder(spec.members[0], precision="exact")

    @property
    def alignment_notes(self) -> list[str]:
        """What an encoder without a joint space cannot do; empty for an aligned encoder."""
        if self.encoder.aligned:
            return []
        return [f"`{self.model}` has no joint space: no zero-shot scores, no retrieval by text."]

    def load(self, dataset: str, **options: Any) -> fc.Dataset:
        """Load a data set, or a sample of it."""
        root = None if self.data is None else self.data / dataset
        sizes = {} if self.train_size is None else {"train": self.train_size}
        return sample_images(
            fc.load_dataset(dataset, root, **options), QUICK_SIZES if self.quick else sizes
        )

    def extract(
        self, dataset: fc.Dataset, *, prompts: Sequence[str], encoder: fc.Encoder | None = None
    ) -> fc.Cache:
        """Extract a data set with several prompt sets into one cache."""
        for name in prompts:
            cache = fc.extract(
                dataset, encoder or self.encoder, prompts=name, cache_dir=self.work / "cache"
            )
        return cache

    def run(self, name: str, make: Callable[[], fc.Run]) -> fc.Run:
        """Load the run of this name, or make and save it."""
        folder = self.work / "runs" / name
        if not folder.exists():
            make().save(folder)
        return fc.load_run(folder)

    def zero_shot(self, name: str, cache: fc.Cache, **options: Any) -> fc.Run:
        """Score zero-shot."""
        return self.run(name, lambda: fc.zero_shot(cache, n_bootstrap=self.n_bootstrap, **options))

    def train_head(
        self,
        name: str,
        cache: fc.Cache,
        head: str,
        *,
        seeds: int = 1,
        controls: bool = False,
        **settings: Any,
    ) -> fc.Run:
        """Train a head."""
        if self.quick and head_spec(head).has_epochs:
            settings["epochs"] = 3
        return self.run(
            name,
            lambda: fc.train_head(
                cache,
                head,
                seeds=seeds,
                controls=controls,
                n_bootstrap=self.n_bootstrap,
                **settings,
            ),
        )

    def finetune(self, name: str, dataset: fc.Dataset, recipe: str, **settings: Any) -> fc.Run:
        """Fine-tune by a recipe and ``FINETUNE_SETTINGS``.

        A batch is at most half of the training images, because those that are copies of validation
        or test images are left out; an explicit ``train_size`` is taken from the others.
        """
        folder = self.work / "runs" / name
        if folder.exists():
            return fc.load_run(folder)
        settings = {**RECIPES[recipe], **FINETUNE_SETTINGS.get(self.model, {}), **settings}
        if self.quick:
            settings["epochs"] = 1
        largest = settings.get("train_size") or len(dataset.rows("train")) // 2
        settings["batch_size"] = min(settings.get("batch_size", 32), largest)
        return fc.finetune(
            dataset,
            self.trainable,
            out=folder,
            n_bootstrap=self.n_bootstrap,
            **settings,
        )

    def compare(self, first: fc.Run, other: fc.Run) -> RunComparison:
        """Compare a run with the first one, on the same images."""
        return fc.compare([first, other]).comparisons[0]

    def macro_cells(
        self,
        truth: NDArray[np.int8],
        predicted: NDArray[np.bool_],
        score: NDArray[np.float64],
        patients: NDArray[np.str_],
        names: Sequence[str],
    ) -> list[str]:
        """Format macro metrics, with intervals, of (N, C) predictions and scores."""
        resamples = resample_patients(patients, n_bootstrap=self.n_bootstrap, seed=0)
        learned = np.ones(truth.shape[1], dtype=np.bool_)
        metrics = MeanMetrics([sample_metrics(truth, predicted, score, resamples, learned)])
        estimates = map(metrics.macro, names)
        return [format_interval(estimate.value, estimate.ci95) for estimate in estimates]


def macro_cells(metrics: Metrics, names: Sequence[str]) -> list[str]:
    """Format macro metrics of a run, with their intervals."""
    macro = metrics.macro
    return [format_interval(getattr(macro, name), macro.interval(name)) for name in names]


def control_cells(metrics: Metrics) -> list[str]:
    """Format the macro AUROC of a run's controls, in the order of ``CONTROLS``."""
    controls = [metrics.controls[name] for name in CONTROLS]
    return [
        UNDEFINED if c is None else format_interval(c.macro.auroc, c.macro.auroc_ci)
        for c in controls
    ]


def sample_images(dataset: fc.Dataset, sizes: Mapping[str, int]) -> fc.Dataset:
    """Sample at most so many images of each split; all images of a split without a size."""
    samples = []
    for number, split in enumerate(("train", "val", "test")):
        rows = dataset.rows(split)
        size = min(sizes.get(split, len(rows)), len(rows))
        samples.append(np.random.default_rng([0, number]).choice(rows, size, replace=False))
    return dataset.take(np.concatenate(samples))


def open_study(script: str, description: str | None, arguments: Sequence[str] | None) -> Study:
    """Parse the options of a study."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--model", default="tiny", help="registered model, or a folder")
    parser.add_argument(
        "--data", type=Path, help="folder that holds nih and kermany; default as for extract"
    )
    parser.add_argument("--work", type=Path, default=Path("studies"), help="for caches and runs")
    parser.add_argument("--train-size", type=int, help="training images of each data set")
    parser.add_argument("--quick", action="store_true", help="check that it runs, on few images")
    parser.add_argument("--page", type=Path, help="page to write the results to")
    options = parser.parse_args(arguments)
    if options.page and options.quick:
        parser.error("the numbers of --quick are meaningless: omit --page")
    name = Path(options.model).name
    work = options.work / f"{script}-{name}{'-quick' if options.quick else ''}"
    work.mkdir(parents=True, exist_ok=True)
    if options.page and any(work.iterdir()):
        parser.error(f"{work} is not empty: remove it, so that the page shows the full duration")
    size = "" if options.train_size is None else f" --train-size {options.train_size}"
    return Study(
        model=options.model,
        data=options.data,
        work=work,
        train_size=options.train_size,
        quick=options.quick,
        page=options.page,
        command=f"python pipelines/{script}.py --model {options.model} --data DATA{size}",
        started=time.perf_counter(),
    )


def run_script(main: Callable[[], None]) -> None:
    """Run a study as a command, with one-line error messages."""
    try:
        main()
    except FeaturecacheError as error:
        raise SystemExit(f"error: {error}") from error


def publish(study: Study, results: Sequence[str]) -> None:
    """Print the results, save them in the work folder, and write them to the study's page."""
    text = "\n\n".join(results)
    print(text)
    with new_file(study.work / "results.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    minutes, seconds = divmod(round(time.perf_counter() - study.started), 60)
    duration = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    print(f"\n{study.work / 'results.md'}, {duration}")
    if study.page is not None:
        made_by = f"`{study.command}` on {date.today()}: {duration}"
        cores = f"on {len(os.sched_getaffinity(0))} CPU cores"
        replace_section(study.page, Path(study.model).name, f"{made_by} {cores}.\n\n{text}")
