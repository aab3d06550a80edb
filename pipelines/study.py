"""Shared parts of the three studies: a study file for any model, metrics as text, result pages.

Each study is the file beside its script, which ``featurecache study`` runs for ``tiny``. The script
runs it, too, adapted to its options, and adds what is particular to the study.
"""

import argparse
import os
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
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
from featurecache.study.run import StudyResult
from featurecache.wording import UNDEFINED

FINETUNE_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "dinov2-minilm": {
        "trainable": "last-2",
        "learning_rate": 1e-4,
        "optimizer": "adamw",
        "epochs": 3,
        "batch_size": 32,
        "precision": "bf16",
    },
}
"""Fine-tuning settings for another model than tiny on two CPU cores, which override the recipe.
They were not tuned."""
OF_EVERY_MODEL = ("dataset", "recipe", "train_size", "evaluate_on")
"""Arguments of fine-tuning that belong to the study. All others suit tiny."""

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
        encoder: the frozen encoder.
        content: what ``featurecache.run_study`` is called with.
        work: folder of the study's caches, runs and results.
        page: page that the results are written to; None for none.
        command: command that repeats the study.
        started: start time, from ``time.perf_counter``.
    """

    encoder: fc.Encoder
    content: Mapping[str, Any]
    work: Path
    page: Path | None
    command: str
    started: float

    @property
    def n_bootstrap(self) -> int:
        """Number of bootstrap samples."""
        return int(self.content["n_bootstrap"])

    @property
    def alignment_notes(self) -> list[str]:
        """What an encoder without a joint space cannot do; empty for an aligned encoder."""
        if self.encoder.aligned:
            return []
        return [
            f"`{self.encoder.name}` has no joint space: no zero-shot scores, no retrieval by text."
        ]

    def run(self) -> StudyResult:
        """Run what has no run yet.

        Raises:
            FeaturecacheError: an experiment failed; the message names all that did.
        """
        result = fc.run_study(
            self.content,
            progress=lambda done, total, title: print(
                f"{done + 1} of {total}: {title}", file=sys.stderr
            ),
        )
        if result.failures:
            raise FeaturecacheError(
                "; ".join(f"{one}: {why}" for one, why in result.failures.items())
            )
        return result

    def cache(self, dataset: fc.Dataset) -> fc.Cache:
        """Return the cache of a data set."""
        for prompts in listed(self.content["extract"]["prompts"]):
            cache = fc.extract(
                dataset, self.encoder, prompts=prompts, cache_dir=self.content["cache_dir"]
            )
        return cache

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


def compare(first: fc.Run, other: fc.Run) -> RunComparison:
    """Compare a run with the first one, on the same images."""
    return fc.compare([first, other]).comparisons[0]


def open_study(script: str, description: str | None, arguments: Sequence[str] | None) -> Study:
    """Parse the options of a study, and adapt its file to them."""
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
    if options.page and work.exists():
        parser.error(f"{work} exists: remove it, so that the page shows the full duration")
    started = time.perf_counter()
    encoder = fc.load_encoder(options.model, precision="exact")
    content = read_study(script)
    if options.model != "tiny":
        content = for_model(content, options.model, aligned=encoder.aligned)
    sizes = {} if options.train_size is None else {"train": options.train_size}
    if options.quick:
        content, sizes = with_few_steps(content), QUICK_SIZES
    datasets = {
        dataset: sample_images(
            fc.load_dataset(dataset, options.data and options.data / dataset, **arguments), sizes
        )
        for dataset, arguments in content["datasets"].items()
    }
    size = "" if options.train_size is None else f" --train-size {options.train_size}"
    return Study(
        encoder=encoder,
        content={
            **content,
            "out": str(work),
            "cache_dir": str(work / "cache"),
            "datasets": datasets,
            "finetune": [fit_batch(step, datasets) for step in content.get("finetune", [])],
        },
        work=work,
        page=options.page,
        command=f"python pipelines/{script}.py --model {options.model} --data DATA{size}",
        started=started,
    )


def read_study(script: str) -> dict[str, Any]:
    """Return the content of the study file of a script."""
    return tomllib.loads(Path(__file__).with_name(f"{script}.toml").read_text(encoding="utf-8"))


def for_model(content: Mapping[str, Any], model: str, *, aligned: bool) -> dict[str, Any]:
    """Return a study of tiny for another model.

    Of a pair without a joint space, the image encoder is fine-tuned, with BCE. A model without
    settings of its own is fine-tuned by the recipe alone.
    """
    members = ENCODERS[model].members if model in ENCODERS else ()
    chosen = {
        **FINETUNE_SETTINGS.get(model, {}),
        **({"model": members[0]} if members else {}),
        **({} if aligned else {"objective": "bce"}),
    }
    heads = [
        {**step, "head": head}
        for step in content.get("train_head", [])
        for head in listed(step["head"])
        if aligned or head_spec(head).text != "aligned"
    ]
    return {
        **content,
        "extract": {**content["extract"], "model": model},
        "zero_shot": content.get("zero_shot", []) if aligned else [],
        "train_head": heads,
        "finetune": [
            {**{name: step[name] for name in OF_EVERY_MODEL if name in step}, **chosen}
            for step in content.get("finetune", [])
        ],
    }


def with_few_steps(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study with few epochs, seeds and bootstrap samples. Its numbers are meaningless."""
    heads = []
    for step in content.get("train_head", []):
        few = {name: value for name, value in (("seeds", 2), ("train_size", 60)) if name in step}
        for head in listed(step["head"]):
            epochs = {"epochs": 3} if head_spec(head).has_epochs else {}
            heads.append({**step, **few, **epochs, "head": head})
    finetune = [{**step, "epochs": 1} for step in content.get("finetune", [])]
    return {**content, "n_bootstrap": 20, "train_head": heads, "finetune": finetune}


def fit_batch(step: Mapping[str, Any], datasets: Mapping[str, fc.Dataset]) -> dict[str, Any]:
    """Return a fine-tuning with a batch of at most half of the training images.

    Those that are copies of validation or test images are left out; an explicit ``train_size`` is
    taken from the others.
    """
    names = listed(step.get("dataset", list(datasets)))
    smallest = min(len(datasets[name].rows("train")) for name in names)
    batch_size = step.get("batch_size", RECIPES[step["recipe"]].get("batch_size", 32))
    return {**step, "batch_size": min(batch_size, step.get("train_size", smallest // 2))}


def listed(values: Any) -> list[Any]:
    """Return the values to try of an argument."""
    return values if isinstance(values, list) else [values]


def sample_images(dataset: fc.Dataset, sizes: Mapping[str, int]) -> fc.Dataset:
    """Sample at most so many images of each split; all images of a split without a size."""
    samples = []
    for number, split in enumerate(("train", "val", "test")):
        rows = dataset.rows(split)
        size = min(sizes.get(split, len(rows)), len(rows))
        samples.append(np.random.default_rng([0, number]).choice(rows, size, replace=False))
    return dataset.take(np.concatenate(samples))


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
        replace_section(study.page, study.encoder.name, f"{made_by} {cores}.\n\n{text}")
