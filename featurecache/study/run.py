"""Run a study: embed, train and score what is missing, and write the tables of all results."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from featurecache.encoders.loading import encoder_class
from featurecache.errors import CacheError, FeaturecacheError, UnknownNameError, UsageError
from featurecache.evaluation.zero_shot import zero_shot
from featurecache.extraction.extract import extract
from featurecache.extraction.plan import LostContentError
from featurecache.finetune.finetune import finetune
from featurecache.heads.train import train_head
from featurecache.io.lock import OnWait, exclusive_lock
from featurecache.progress import DetailedProgress
from featurecache.runs.run import Run, load_run
from featurecache.store.cache import Cache
from featurecache.store.open import open_cache
from featurecache.study.check import DEFAULT_FEATURES, find_encoders, named_features
from featurecache.study.file import OPENING, read_study
from featurecache.study.plan import PROPERTIES, Experiment, StudyPlan, make_plan
from featurecache.study.results import StudyTable, results_frame, study_tables, write_results
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

    from featurecache.datasets.dataset import Dataset

StudyLike = str | os.PathLike[str] | Mapping[str, Any]
"""A study file, or its content."""


@dataclass(frozen=True, repr=False)
class StudyResult:
    """What a study found.

    Attributes:
        plan: Its experiments, with the folder of each run.
        frame: One row for each experiment, average or label, and metric, as in ``results.csv``.
        tables: A table for each data set, of the runs that scored the same images.
        failures: Why experiments have no run, by data set and title. Empty if all have one.
        files: The files that were written.
        runs: The run of each experiment that has one.
    """

    plan: StudyPlan
    frame: "pd.DataFrame"
    tables: Sequence[StudyTable]
    failures: Mapping[str, str]
    files: Sequence[Path]
    runs: Mapping[Experiment, Run]

    def __repr__(self) -> str:
        experiments = count_noun(len(self.plan.experiments), "experiment")
        done = f"{len(self.runs)} done, {len(self.failures)} failed"
        tables = "".join(f"\n{one.caption}" for one in self.tables)
        return f"StudyResult({experiments}, {done}: {self.plan.file.out}){tables}"

    def run(self, **arguments: Any) -> Run:
        """Return the run of one experiment.

        Args:
            **arguments: What distinguishes it from all others of the study: arguments of its step,
                or its ``kind`` ("zero_shot", "train_head", "finetune" or "evaluate"), ``dataset``,
                ``model``, ``features``, ``trained_on`` or ``method``, see ``Experiment``. None
                stands for an argument that its step does not have.

        Raises:
            UnknownNameError: There is no such argument.
            UsageError: No run matches, or several do.

        Example:
            >>> import featurecache as fc
            >>> result = fc.run_study(
            ...     {
            ...         "n_bootstrap": 20,
            ...         "datasets": {"phantom": fc.load_dataset("phantom", n_images=60)},
            ...         "extract": {"model": "tiny"},
            ...         "zero_shot": [{"scoring": ["pair", "sigmoid"]}],
            ...     },
            ...     out="studies/scoring",
            ... )
            >>> result.run(scoring="pair").metrics.macro.auroc > 0.8
            True
        """
        for name in arguments:
            if name not in PROPERTIES:
                raise UnknownNameError("argument of a study's runs", name, PROPERTIES)
        found = [
            one
            for one in self.runs
            if all(one.properties.get(name) == value for name, value in arguments.items())
        ]
        if len(found) == 1:
            return self.runs[found[0]]
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "anything"
        if found:
            differences = "; ".join(
                f"{name}={' or '.join(values)}" for name, values in _differing(found).items()
            )
            raise UsageError(
                f"{len(found)} runs of the study match {given}: name more of the arguments in "
                f"which they differ: {differences}"
            )
        candidates = "; ".join(f"{one.dataset}: {one.title}" for one in self.runs)
        failed = "".join(f"; failed: {title}: {why}" for title, why in self.failures.items())
        raise UsageError(f"no run of the study matches {given}. Its runs: {candidates}{failed}")


def _differing(experiments: Sequence[Experiment]) -> dict[str, list[str]]:
    """Return the properties that are not the same in all experiments, and their values as code."""
    names = dict.fromkeys(name for one in experiments for name in one.properties)
    values = {
        name: list(dict.fromkeys(repr(one.properties.get(name)) for one in experiments))
        for name in names
    }
    return {name: different for name, different in values.items() if len(different) > 1}


def plan_study(file: StudyLike, *, out: str | os.PathLike[str] | None = None) -> StudyPlan:
    r"""List the experiments of a study file without running one.

    Args:
        file: A TOML file or its content, see ``run_study``.
        out: See ``run_study``.

    Returns:
        The plan. ``plan.experiments`` are all experiments, ``plan.pending`` those without a run.

    Raises:
        UsageError: The file cannot be read, its arguments contradict each other or do not fit, or
            a mapping has no ``out``.
        UnknownNameError: It names an argument, data set, model, head, prompt set or metric that
            does not exist.
        DatasetError: A data set is missing or malformed.
        CheckpointError: The folder of a model is not a checkpoint.
        PromptError: A prompt file cannot be used.

    Example:
        >>> import featurecache as fc
        >>> from pathlib import Path
        >>> study = Path("study.toml")
        >>> _ = study.write_text(
        ...     "[datasets.phantom]\n"
        ...     "[extract]\n"
        ...     'model = "tiny"\n'
        ...     "[[train_head]]\n"
        ...     'head = ["prototype", "linear"]\n'
        ... )
        >>> [experiment.title for experiment in fc.plan_study(study).pending]
        ['prototype', 'linear']
    """
    if not isinstance(file, Mapping | str | os.PathLike):
        raise UsageError(f"a study is a TOML file or a mapping, not {type(file).__name__}")
    study = file if isinstance(file, Mapping) else Path(file)
    return make_plan(read_study(study, out=None if out is None else Path(out)))


def run_study(
    file: StudyLike,
    *,
    out: str | os.PathLike[str] | None = None,
    progress: DetailedProgress | None = None,
) -> StudyResult:
    r"""Run all experiments of a study file that have no run yet, and write tables of all results.

    A study can be interrupted at any moment: the next call goes on with the next experiment, and
    ends with the same results. An experiment that fails does not stop the others. While another
    process is writing a cache that the study needs, it waits.

    Args:
        file: A TOML file. ``[datasets.NAME]`` has the arguments of ``load_dataset``, ``[extract]``
            those of ``extract``, and ``[[zero_shot]]``, ``[[train_head]]`` and ``[[finetune]]``
            those of these functions; a list tries each of its values. Or a mapping with the content
            of such a file, whose paths are relative to the current folder; in place of the
            arguments of ``load_dataset`` it may have a ``Dataset``.
        out: Folder of the runs and results, instead of the one in the file, which is by default
            ``studies/NAME`` beside the file ``NAME.toml``. A mapping needs one.
        progress: Called before each experiment with the number of experiments that are done, that
            of all, and a description.

    Returns:
        The results, which are also in ``results.csv``, ``tables.md``, ``tables.tex`` and
        ``report.html`` in the folder.

    Raises:
        UsageError: The file cannot be read, its arguments contradict each other or do not fit, a
            mapping has no ``out``, an encoder does not offer features, this machine lacks a
            device, or another process is running the study.
        UnknownNameError: It names an argument, data set, model, head, prompt set or metric that
            does not exist.
        DatasetError: A data set is missing or malformed.
        CheckpointError: The weights of a model are missing or incomplete.
        PromptError: A prompt file cannot be used.
        OSError: The disk is full or not writable.

    Example:
        >>> import featurecache as fc
        >>> from pathlib import Path
        >>> study = Path("study.toml")
        >>> _ = study.write_text(
        ...     "n_bootstrap = 20\n"
        ...     "[datasets.small]\n"
        ...     'dataset = "phantom"\n'
        ...     "n_images = 60\n"
        ...     "[extract]\n"
        ...     'model = "tiny"\n'
        ...     "[[zero_shot]]\n"
        ... )
        >>> result = fc.run_study(study)
        >>> scores = result.frame.query("of == 'macro' and metric == 'auroc'")
        >>> bool((scores["value"] > 0.8).all())
        True
    """
    plan = plan_study(file, out=out)
    if plan.pending:
        find_encoders(plan.file)
    failures: dict[str, str] = {}
    with exclusive_lock(plan.file.out, plan.file.out / ".lock"):
        caches = _Caches(plan)
        for number, experiment in enumerate(plan.experiments):
            if experiment.done:
                continue
            wait: bool | OnWait = True
            if progress is not None:
                progress(number, len(plan.experiments), f"{experiment.dataset}: {experiment.title}")
                wait = partial(_report_wait, progress, number, len(plan.experiments))
            try:
                _run(plan, experiment, caches, wait)
            except FeaturecacheError as error:
                failures[f"{experiment.dataset}: {experiment.title}"] = str(error)
        done = [experiment for experiment in plan.experiments if experiment.done]
        runs = {one: load_run(one.folder) for one in done}
        frame, tables = results_frame(runs), study_tables(plan, runs)
        files = write_results(plan, runs, frame, tables)
    return StudyResult(
        plan=plan, frame=frame, tables=tables, failures=failures, files=files, runs=runs
    )


def _report_wait(progress: DetailedProgress, number: int, total: int, cache: Path) -> None:
    progress(number, total, f"waiting for another process that is writing {cache}")


class _Caches:
    """The caches of a study. A data set is embedded when the first of its caches is opened."""

    def __init__(self, plan: StudyPlan) -> None:
        self._plan = plan
        self._paths: dict[str, Mapping[tuple[str, str], Path]] = {}
        self._failures: dict[str, str] = {}

    def open(
        self, experiment: Experiment, opening: Mapping[str, Any], wait: bool | OnWait
    ) -> Cache:
        """Open the cache of an experiment with arguments of ``open_cache``."""
        name, file = experiment.dataset, self._plan.file
        if name in self._failures:
            raise FeaturecacheError(self._failures[name])
        if name not in self._paths:
            try:
                made = _embed(
                    self._plan, self._plan.datasets[name], file.models, file.features, wait
                )
            except FeaturecacheError as error:
                self._failures[name] = str(error)
                raise
            keys = product(file.models, file.features)
            self._paths[name] = {key: one.path for key, one in zip(keys, made, strict=True)}
        return open_cache(self._paths[name][experiment.model, experiment.features], **opening)


def _embed(
    plan: StudyPlan,
    dataset: "Dataset",
    models: Sequence[str],
    features: Sequence[str],
    wait: bool | OnWait,
) -> list[Cache]:
    """Embed a data set and the prompts of the study with several encoders, each image once."""
    classes = [encoder_class(model) for model in models]
    has_text = any(one is None or one.has_text for one in classes)
    named: Sequence[str | None] = (plan.prompts if has_text else []) or [None]
    try:
        for prompts in named:
            made = extract(
                dataset,
                models,
                prompts=prompts,
                features=list(map(named_features, features)),
                cache_dir=plan.file.cache_dir,
                wait=wait,
                **plan.file.extraction,
            )
    except LostContentError as error:
        raise CacheError(
            f"{error.loss}: give the data set {dataset.name} another name in the study, or the "
            "study another `cache_dir`"
        ) from error
    return made


def _run(plan: StudyPlan, experiment: Experiment, caches: _Caches, wait: bool | OnWait) -> None:
    """Run one experiment and save its run."""
    file, arguments = plan.file, dict(experiment.arguments)
    opening = {name: arguments.pop(name) for name in OPENING if name in arguments}
    if experiment.kind == "finetune":
        finetune(
            plan.datasets[experiment.dataset],
            experiment.model,
            out=experiment.folder,
            n_bootstrap=file.n_bootstrap,
            cache_dir=file.cache_dir,
            **arguments,
        )
        return
    if (training := experiment.training) is None:
        cache = caches.open(experiment, opening, wait)
        function = zero_shot if experiment.kind == "zero_shot" else train_head
        run = cast(Run, function(cache, n_bootstrap=file.n_bootstrap, **arguments))
    else:
        if not training.done:
            raise FeaturecacheError("its training has failed")
        if training.kind == "finetune":
            # No head is trained on these embeddings, so those of other images are not needed.
            test = plan.datasets[experiment.dataset].split("test")
            (cache,) = _embed(plan, test, [str(training.folder)], [DEFAULT_FEATURES], wait)
        else:
            cache = caches.open(experiment, opening, wait)
        label_map = arguments.get("label_map")
        run = load_run(training.folder).evaluate(
            cache, label_map=label_map, n_bootstrap=file.n_bootstrap
        )
    run.save(experiment.folder)
