"""What the three studies share: their options, their caches and runs, their pages.

A study keeps its caches and runs in a folder of its own in WORK. Killed, it goes on with what is
there; a folder that is removed is made anew, with the same figures.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from page import cell, replace_part

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.load import load_dataset
from featurecache.encoders.encoder import Encoder
from featurecache.encoders.loading import load_encoder
from featurecache.encoders.registry import ENCODERS
from featurecache.errors import FeaturecacheError
from featurecache.evaluation.comparison import compare
from featurecache.evaluation.from_cache import save_zero_shot, zero_shot
from featurecache.extraction.update import update_caches
from featurecache.finetune.config import make_config
from featurecache.finetune.run import train_encoder
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import run_experiment
from featurecache.heads.io import save_head
from featurecache.heads.registry import head_spec
from featurecache.io.atomic import new_file
from featurecache.metrics.bootstrap import (
    bootstrap_metrics,
    ci_or_none,
    none_if_nan,
    resample_patients,
)
from featurecache.metrics.multilabel import compute_metrics
from featurecache.prompts import PromptSet, load_prompts
from featurecache.store.cache import Cache
from featurecache.store.reader import read_cache

TUNING: Mapping[str, Mapping[str, Any]] = {
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
"""Settings of fine-tuning that fit a model and two CPU cores: those of tiny had the lowest
validation loss of six on Kermany, those of the other were the first tried. Any other model is
trained with the published settings, by its recipe."""

CONTROLS = ("view position alone", "labels shuffled", "random features")
"""What ``control_cells`` shows."""

QUICK = {"train": 96, "val": 40, "test": 60}


@dataclass(frozen=True)
class Study:
    """One study of one model.

    Attributes:
        model: a registered model, or a folder.
        data: folder of the data sets' folders; None for the usual places.
        work: folder of this study's caches and runs.
        train_size: training images of each data set, drawn by a seed; None for all.
        quick: whether to take few images, epochs, seeds and draws, to see that everything runs;
            the figures mean nothing.
        page: on which the results are put; None for none.
        command: what repeats it.
        started: by ``time.perf_counter``.
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
        """Bootstrap draws over patients."""
        return 20 if self.quick else 1000

    @property
    def seeds(self) -> int:
        """Trainings of a head."""
        return 2 if self.quick else 5

    @cached_property
    def encoder(self) -> Encoder:
        """The frozen encoder, in fp32."""
        return load_encoder(self.model)

    @cached_property
    def trainable(self) -> Encoder:
        """The encoder that can be fine-tuned: of a pair without a joint space, that of images."""
        spec = ENCODERS.get(self.model)
        return load_encoder(spec.members[0]) if spec and spec.members else self.encoder

    @property
    def without_joint_space(self) -> list[str]:
        """A word on what an encoder cannot do whose texts and images share no space."""
        if self.encoder.aligned:
            return []
        return [f"`{self.model}` has no joint space: no zero-shot scores, no retrieval by text."]

    def load(self, dataset: str, **options: Any) -> Dataset:
        """The films of a data set."""
        root = None if self.data is None else self.data / dataset
        manifest = load_dataset(dataset, root, **options)
        sizes = {} if self.train_size is None else {"train": self.train_size}
        return draw_images(manifest, QUICK if self.quick else sizes)

    def embed(
        self, manifest: Dataset, *, prompts: Sequence[str] = (), encoder: Encoder | None = None
    ) -> Cache:
        """The cache of a data set, with these prompt sets."""
        sets: list[PromptSet | None] = [load_prompts(name) for name in prompts]
        for texts in sets or [None]:
            (summary,) = update_caches(
                manifest, [encoder or self.encoder], cache_dir=self.work / "cache", prompts=texts
            )
        return read_cache(summary.path)

    def zero_shot(
        self, name: str, cache: Cache, *, prompts: str | None = None, scoring: str = "auto"
    ) -> Path:
        """The run folder of zero-shot scores."""
        target = self.run(name)
        if not target.exists():
            found = zero_shot(cache, prompts=prompts, scoring=scoring, n_bootstrap=self.n_bootstrap)
            save_zero_shot(target, cache, found)
        return target

    def head(
        self,
        name: str,
        cache: Cache,
        config: HeadConfig,
        *,
        seeds: int = 1,
        controls: bool = False,
    ) -> Path:
        """The run folder of a head."""
        target = self.run(name)
        if not target.exists():
            if self.quick and head_spec(config.head).has_epochs:
                config = replace(config, epochs=3)
            experiment = run_experiment(
                cache, config, seeds=seeds, n_bootstrap=self.n_bootstrap, controls=controls
            )
            save_head(target, cache, experiment, seeds=seeds)
        return target

    def finetune(self, name: str, manifest: Dataset, recipe: str, **settings: Any) -> Path:
        """The run folder of a fine-tuning by a recipe, with what ``TUNING`` says of the model.

        A batch is never larger than the training images.
        """
        target = self.run(name)
        if not target.exists():
            given = {**TUNING.get(self.model, {}), **settings}
            if self.quick:
                given = {**given, "epochs": 1}
            config = make_config(recipe, given)
            most = config.train_size or len(manifest.rows("train"))
            config = replace(config, batch_size=min(config.batch_size, most))
            train_encoder(
                manifest, self.trainable, config, target=target, n_bootstrap=self.n_bootstrap
            )
        return target

    def differences(self, first: Path, other: Path) -> dict[str, Any]:
        """One run against another, on the same draws: the figures of ``compare``."""
        (comparison,) = compare([first, other], n_bootstrap=self.n_bootstrap)["comparisons"]
        result: dict[str, Any] = comparison
        return result

    def macro_cells(
        self,
        truth: NDArray[np.int8],
        decided: NDArray[np.bool_],
        score: NDArray[np.float64],
        patients: NDArray[np.str_],
        names: Sequence[str],
    ) -> list[str]:
        """Figures of (N, C) decisions and scores, averaged over labels, with their intervals."""
        figure = compute_metrics(truth, decided, score).macro
        samples = resample_patients(patients, n_bootstrap=self.n_bootstrap, seed=0)
        drawn = bootstrap_metrics(truth, decided, score, samples).macro
        return [cell(none_if_nan(figure[name]), ci_or_none(drawn[name])) for name in names]

    def run(self, name: str) -> Path:
        """The run folder of this name, there or not."""
        return self.work / "runs" / name


def control_cells(metrics: Mapping[str, Any]) -> list[str]:
    """The macro AUROC of a run's controls."""
    cells = []
    for name in ("view_only", "shuffled_labels", "random_features"):
        found = metrics["controls"][name]
        macro = found and cell(found["macro"]["auroc"], found["ci95"]["macro"]["auroc"])
        cells.append(macro or "–")
    return cells


def draw_images(manifest: Dataset, sizes: Mapping[str, int], *, seed: int = 0) -> Dataset:
    """At most so many images of each split, drawn by a seed; all of a split that is not named."""
    rows = []
    for number, split in enumerate(("train", "val", "test")):
        there = manifest.rows(split)
        size = min(sizes.get(split, len(there)), len(there))
        rows.append(np.random.default_rng([seed, number]).choice(there, size, replace=False))
    return manifest.take(np.concatenate(rows))


def open_study(script: str, description: str | None, arguments: Sequence[str] | None) -> Study:
    """Read the options of a study."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--model", default="tiny", help="a registered model, or a folder")
    parser.add_argument(
        "--data", type=Path, help="folder of the folders nih and kermany; else as for extract"
    )
    parser.add_argument("--work", type=Path, default=Path("studies"), help="for caches and runs")
    parser.add_argument("--train-size", type=int, help="training images of each data set")
    parser.add_argument("--quick", action="store_true", help="few images: does it all run?")
    parser.add_argument("--page", type=Path, help="page on which to put the results")
    given = parser.parse_args(arguments)
    if given.page and given.quick:
        parser.error("the figures of --quick mean nothing: leave out --page")
    name = Path(given.model).name
    work = given.work / f"{script}-{name}{'-quick' if given.quick else ''}"
    work.mkdir(parents=True, exist_ok=True)
    if given.page and any(work.iterdir()):
        parser.error(f"{work} holds work of before: remove it, so that the page tells the time")
    size = "" if given.train_size is None else f" --train-size {given.train_size}"
    return Study(
        model=given.model,
        data=given.data,
        work=work,
        train_size=given.train_size,
        quick=given.quick,
        page=given.page,
        command=f"python pipelines/{script}.py --model {given.model} --data DATA{size}",
        started=time.perf_counter(),
    )


def run_script(main: Callable[[], None]) -> None:
    """Run a study as a command: mistakes and failures are told in a sentence."""
    try:
        main()
    except FeaturecacheError as error:
        raise SystemExit(f"error: {error}") from error


def publish(study: Study, results: Sequence[str]) -> None:
    """Print the results, keep them in the work folder, and put them on the study's page."""
    text = "\n\n".join(results)
    print(text)
    with new_file(study.work / "results.md") as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")
    minutes, seconds = divmod(round(time.perf_counter() - study.started), 60)
    took = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    print(f"\n{study.work / 'results.md'}, {took}")
    if study.page is not None:
        made = f"`{study.command}` on {date.today()}: {took}"
        cores = f"on {len(os.sched_getaffinity(0))} CPU cores"
        replace_part(study.page, Path(study.model).name, f"{made} {cores}.\n\n{text}")
