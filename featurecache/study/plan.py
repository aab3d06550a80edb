"""The experiments of a study: one for each combination of values, each with a folder of its own."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, cast

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.load import UnknownFolderError, load_dataset
from featurecache.datasets.registry import get_dataset_spec
from featurecache.encoders.loading import check_model
from featurecache.errors import UnknownNameError, UsageError
from featurecache.extraction.extract import DEFAULT_PROMPTS
from featurecache.heads.registry import head_spec
from featurecache.io.atomic import cut_name
from featurecache.io.fingerprint import fingerprint
from featurecache.prompts import PromptSet, load_prompts
from featurecache.study.check import (
    DEFAULT_FEATURES,
    check_arguments,
    check_extraction,
    check_labels,
    find_misfit,
    find_shortage,
    without_defaults,
)
from featurecache.study.file import ARGUMENTS, WITHOUT_EFFECT, Step, StepKind, StudyFile
from featurecache.wording import count_noun

ExperimentKind = Literal["zero_shot", "train_head", "finetune", "evaluate"]

PROPERTIES: Final = frozenset({"kind", "trained_on", "method"}) | ARGUMENTS
"""The names of all properties that experiments may have."""
_MAX_NAME: Final = 120
"""Bytes of the name of a run folder, without its hash."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """One run of a study.

    Attributes:
        kind: The function that makes it.
        dataset: Name, in the study file, of the data set that it is scored on.
        model: The encoder, a name or a folder.
        features: What is cached of it.
        arguments: Arguments of the function; for "evaluate" those of the training.
        training: For "evaluate", the experiment whose model is evaluated; else None.
        title: What it is called in tables. It states what differs between experiments that were
            scored on the same images.
        folder: Where its run is saved. The name ends in a hash of everything that its result
            depends on, so a changed study makes new runs, and keeps those that did not change.
    """

    kind: ExperimentKind
    dataset: str
    model: str
    features: str
    arguments: Mapping[str, Any]
    training: "Experiment | None" = None
    title: str = ""
    folder: Path = Path()

    @property
    def done(self) -> bool:
        """Whether its run exists."""
        return self.folder.exists()

    @property
    def trained_on(self) -> str:
        """Name of the data set that it was trained on; empty for zero-shot."""
        if self.kind == "zero_shot":
            return ""
        return self.dataset if self.training is None else self.training.dataset

    @property
    def trained_by(self) -> StepKind:
        """The function that made what is scored."""
        return cast(StepKind, self.kind if self.training is None else self.training.kind)

    @property
    def method(self) -> str:
        """The head, "zero-shot" or "fine-tuned"."""
        if self.trained_by == "train_head":
            return str(self.arguments["head"])
        return "zero-shot" if self.trained_by == "zero_shot" else "fine-tuned"

    @property
    def properties(self) -> dict[str, Any]:
        """What ``StudyResult.run`` finds it by: its arguments, and what it is done with."""
        prompts = self.arguments.get("prompts")
        return {
            "kind": self.kind,
            "dataset": self.dataset,
            "model": self.model,
            "features": self.features,
            "trained_on": self.trained_on,
            "method": self.method,
            **self.arguments,
            **({"prompts": prompts.name} if isinstance(prompts, PromptSet) else {}),
        }

    @property
    def settings(self) -> dict[str, str]:
        """Its arguments with an effect as texts, without the head that is its method."""
        left_out = [*WITHOUT_EFFECT, *(["head"] if self.trained_by == "train_head" else [])]
        return {
            name: _as_text(value) for name, value in self.arguments.items() if name not in left_out
        }


def _as_text(value: Any) -> str:
    if isinstance(value, PromptSet):
        return value.name
    if isinstance(value, Mapping):
        value = [f"{name}={_as_text(given)}" for name, given in value.items()]
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True, repr=False)
class StudyPlan:
    """What a study consists of.

    Attributes:
        file: The study file.
        datasets: The loaded data sets, by their names in the file.
        experiments: All experiments, a training before what evaluates it.
    """

    file: StudyFile
    datasets: Mapping[str, Dataset]
    experiments: Sequence[Experiment]

    def __repr__(self) -> str:
        experiments = count_noun(len(self.experiments), "experiment")
        return f"StudyPlan({experiments}, {len(self.pending)} without a run: {self.file.out})"

    @property
    def pending(self) -> list[Experiment]:
        """The experiments without a run."""
        return [experiment for experiment in self.experiments if not experiment.done]

    @property
    def prompts(self) -> list[str]:
        """All prompt sets that are named, each once; ``extract`` has a default if none is."""
        named = [*self.file.prompts]
        for step in self.file.steps:
            named += step.values.get("prompts", []) if step.kind != "finetune" else []
        return list(dict.fromkeys(named))


def make_plan(file: StudyFile) -> StudyPlan:
    """Load the data sets of a study and list its experiments.

    Everything that can be checked without computing is checked here, before the first experiment.

    Args:
        file: The study file.

    Raises:
        UsageError: Arguments contradict each other, do not fit a model, or are out of their range.
        UnknownNameError: There is no such data set, model, head, recipe, prompt set or value.
        DatasetError: A data set is missing or malformed.
        CheckpointError: The folder of a model is not a checkpoint.
        PromptError: A prompt file cannot be used.
    """
    datasets = {
        # Caches, and so runs, have the name that the study gives it.
        name: given.with_name(name) if isinstance(given, Dataset) else _load(name, given, file)
        for name, given in file.datasets.items()
    }
    for dataset in datasets.values():
        dataset.require_labels()
    plan = StudyPlan(file, datasets, ())
    check_extraction(file, plan.prompts)
    identified: dict[str, Experiment] = {}
    contents = {name: _fingerprint_of(dataset) for name, dataset in datasets.items()}
    for experiment in _experiments(file, plan.prompts):
        if experiment.kind in ("train_head", "finetune"):
            n_train = len(datasets[experiment.dataset].rows("train"))
            if reason := find_shortage(experiment.kind, experiment.arguments, n_train):
                raise UsageError(f"{file.name}, data set {experiment.dataset}: {reason}")
        if (training := experiment.training) is not None:
            label_map = experiment.arguments.get("label_map")
            check_labels(datasets[training.dataset], datasets[experiment.dataset], label_map)
        # The same experiment in two steps is one.
        identified.setdefault(_identity(experiment, file, contents), experiment)
    titled = _with_titles(list(identified.values()))
    named: dict[str, Experiment] = {}
    for identity, one in zip(identified, titled, strict=True):
        trained = one.training and named[_identity(one.training, file, contents)]
        named[identity] = replace(one, folder=_folder(one, file, identity), training=trained)
    return replace(plan, experiments=list(named.values()))


def _load(name: str, options: Mapping[str, Any], file: StudyFile) -> Dataset:
    """Load a data set; paths in its options are relative to the study file."""
    options = dict(options)
    source = str(options.pop("dataset", name))
    root = options.pop("data_root", None)
    spec = get_dataset_spec(source)
    where = f"data set {name} of {file.name}"

    def locate(option: str, path: Any) -> Path:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(f"{where}: `{option}` is {path!r}: give a path")
        return file.folder / Path(path).expanduser()

    if "name" in options:
        raise UsageError(f"{where} takes no option `name`: its section is called by its name")
    for option in options:
        if option in ("corrections", "pseudonymize") or spec.takes_path(option):
            options[option] = locate(option, options[option])
    located = None if root is None else locate("data_root", root)
    own_name = None if source == name else name
    try:
        return load_dataset(source, located, name=own_name, **options)
    except UnknownNameError:
        raise
    except UnknownFolderError as error:
        how = f'data_root = "..." in [datasets.{name}]'
        raise UnknownFolderError(source, f"{where}: {error.reason}", how=how) from error
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    except TypeError as error:
        raise UsageError(f"{where}: an option has a value of another type: {error}") from error


def _fingerprint_of(dataset: Dataset) -> str:
    """Return a hash of the images' names, patients, splits and labels."""
    table = hashlib.sha256(dataset.images.to_csv().encode("utf-8", errors="surrogateescape"))
    table.update(repr(dataset.label_names).encode())
    table.update(dataset.cells.tobytes())
    return table.hexdigest()


def _experiments(file: StudyFile, prompts: Sequence[str]) -> Iterator[Experiment]:
    for step in file.steps:
        unfit: dict[str, str] = {}
        fitting = set()
        for values in _with_defaults(file, step, prompts).combinations():
            dataset, model = values.pop("dataset"), values.pop("model")
            features = values.pop("features", DEFAULT_FEATURES)
            others, label_map = values.pop("evaluate_on", []), values.pop("label_map", None)
            try:
                check_arguments(step.kind, values)
            except UsageError as error:
                error.args = (f"{file.name}, {step.kind}: {error}",)
                raise
            if step.kind == "finetune":
                check_model(model)  # it need not be one of those that are embedded
            if step.kind == "train_head" and not head_spec(values["head"]).uses_text:
                values.pop("prompts", None)
            misfit = find_misfit(step.kind, model, features, values)
            if misfit is not None and misfit.argument in step.values:
                raise UsageError(
                    f"{file.name}: {misfit.reason}; leave out `{misfit.argument}` of {step.kind} "
                    "for all that fit"
                )
            if misfit is not None:
                unfit.setdefault(str(values), misfit.reason)
                continue
            fitting.add(str(values))
            if "prompts" in values and step.kind != "finetune":
                values["prompts"] = load_prompts(values["prompts"])
            one = Experiment(step.kind, dataset, model, features, values)
            yield one
            mapped = {} if label_map is None else {"label_map": label_map}
            for other in others:
                if other != dataset:
                    yield Experiment(
                        "evaluate", other, model, features, {**values, **mapped}, training=one
                    )
        for arguments, reason in unfit.items():
            if arguments not in fitting:
                raise UsageError(f"{file.name}: no model and features of [extract] fit: {reason}")


def _with_defaults(file: StudyFile, step: Step, prompts: Sequence[str]) -> Step:
    """Return a step with all data sets, models, features and prompts that it does not name."""
    values: dict[str, Sequence[Any]] = {"dataset": list(file.datasets), "model": file.models}
    if step.kind != "finetune":
        values |= {"features": file.features, "prompts": prompts or [DEFAULT_PROMPTS]}
    return Step(step.kind, {**values, **step.values})


def _identity(experiment: Experiment, file: StudyFile, contents: Mapping[str, str]) -> str:
    """Return a hash of everything that the result of an experiment depends on."""
    training = experiment.training
    document = {
        "featurecache": version("featurecache"),
        "kind": experiment.kind,
        "dataset": experiment.dataset,
        "content": contents[experiment.dataset],
        "model": _portable(experiment.model, file.folder),
        "features": experiment.features,
        "arguments": _with_effect(without_defaults(experiment.trained_by, experiment.arguments)),
        "extraction": _with_effect(file.extraction),
        "n_bootstrap": file.n_bootstrap,
        "training": None if training is None else _identity(training, file, contents),
    }
    return fingerprint(document)


def _portable(model: str, folder: Path) -> str:
    """Return the name of a model, or its path, which moves with the study if it is inside."""
    if not Path(model).is_absolute():
        return model
    path, folder = Path(os.path.normpath(model)), Path(os.path.normpath(folder))
    return f"./{path.relative_to(folder).as_posix()}" if path.is_relative_to(folder) else str(path)


def _with_effect(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _content(load_prompts(value)) if name == "prompts" else value
        for name, value in arguments.items()
        if name not in WITHOUT_EFFECT
    }


def _content(prompts: PromptSet) -> dict[str, Any]:
    values = {field.name: getattr(prompts, field.name) for field in fields(prompts)}
    return {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()
    }


def _with_titles(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Give each experiment a title of what is not the same in all of its kind."""
    several_models = len({one.model for one in experiments}) > 1
    several_features = len({one.features for one in experiments}) > 1
    values: dict[tuple[str, str], set[str | None]] = {}
    names = {name for one in experiments for name in one.settings}
    for one in experiments:
        for name in names:
            values.setdefault((one.trained_by, name), set()).add(one.settings.get(name))
    titled = []
    for one in experiments:
        parts = [Path(one.model).name] if several_models else []
        parts += [one.features] if several_features else []
        parts += [one.method]
        parts += [
            f"{name} {value}"
            for name, value in one.settings.items()
            if len(values[one.trained_by, name]) > 1
        ]
        parts += [f"trained on {one.trained_on}"] if one.kind == "evaluate" else []
        titled.append(replace(one, title=", ".join(parts)))
    return titled


def _folder(experiment: Experiment, file: StudyFile, identity: str) -> Path:
    # Not the title, which changes as soon as another experiment has another value.
    names = experiment.dataset, Path(experiment.model).name, experiment.method
    words = re.sub(r"[^A-Za-z0-9.+_-]+", "-", "-".join(names))
    return file.out / "runs" / f"{cut_name(words, _MAX_NAME)}-{identity[:10]}"
