"""Read a study file: data sets, encoders, and steps with the values to try of each argument."""

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import GenericAlias
from typing import Any, Final, Literal, get_type_hints

from typing_extensions import TypedDict

from featurecache.datasets.dataset import Dataset
from featurecache.encoders.loading import HUB_PREFIX, TIMM_PREFIX
from featurecache.encoders.registry import find_encoder
from featurecache.errors import UnknownNameError, UsageError
from featurecache.evaluation.table import COLUMNS, DEFAULT_METRICS
from featurecache.finetune.config import FinetuneConfig
from featurecache.heads.config import HeadConfig
from featurecache.io import json as strict_json
from featurecache.io.text import read_text
from featurecache.label_cells import LabelPolicy
from featurecache.prompts import PROMPT_SETS
from featurecache.units import Units

StepKind = Literal["zero_shot", "train_head", "finetune"]

WHERE: Final[Mapping[str, Any]] = {"dataset": str, "model": str, "features": str}
"""What a step is done with: by default all data sets, models and features of the file."""
OPENING: Final[Mapping[str, Any]] = {**get_type_hints(LabelPolicy), **get_type_hints(Units)}
"""Arguments of ``open_cache``: what cells count as, and what is scored."""
_TRAINING: Final = {
    "operating_point": str,
    "log": str | list[str],
    "evaluate_on": list[str],
    "label_map": dict[str, str | list[str]],
}
_ARGUMENTS: Final[Mapping[StepKind, Mapping[str, Any]]] = {
    "zero_shot": {**WHERE, **OPENING, "prompts": str, "scoring": str, "operating_point": str},
    "train_head": {
        **WHERE,
        **OPENING,
        **_TRAINING,
        **get_type_hints(HeadConfig),
        "hidden": list[int],
        "seeds": int,
        "ensemble": int,
        "coverage": float,
        "controls": bool,
    },
    "finetune": {
        **WHERE,
        **_TRAINING,
        **get_type_hints(FinetuneConfig),
        "recipe": str,
        "workers": int,
        "device": str,
    },
}
_EMBEDDED: Final = ("model", "features", "prompts")
"""Arguments of ``extract`` that may have several values, which all end in caches."""
_EXTRACTION: Final[Mapping[str, Any]] = {
    **dict.fromkeys((*_EMBEDDED, "device", "backend", "precision", "resize"), str),
    **{"views": int, "bit_depth": int, "batch_size": int, "workers": int},
    "image_timeout": float,
}
"""The arguments of each section, and the type of each of their values."""
ARGUMENTS: Final = frozenset(name for arguments in _ARGUMENTS.values() for name in arguments)
"""The arguments of all steps."""
_WHOLE: Final = ("hidden", "evaluate_on", "log")
"""Arguments whose value is a list itself: several values are a list of lists."""
WITHOUT_EFFECT: Final = ("workers", "image_timeout", "device", "log")
"""Arguments that change how long something takes or what is logged, and not its result."""


class _StudyContent(TypedDict, total=False):
    out: str
    cache_dir: str
    n_bootstrap: int
    metrics: list[str]
    datasets: dict[str, Any]
    extract: dict[str, Any]
    zero_shot: list[dict[str, Any]]
    train_head: list[dict[str, Any]]
    finetune: list[dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """One section of a study file: a function, and the values to try of its arguments.

    Attributes:
        kind: Name of the function.
        values: The values of each argument, one or more.
    """

    kind: StepKind
    values: Mapping[str, Sequence[Any]]

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yield the arguments of each call: every value with every other, the last one fastest."""
        for values in product(*self.values.values()):
            yield dict(zip(self.values, values, strict=True))


@dataclass(frozen=True)
class StudyFile:
    """What a study file states.

    Attributes:
        name: What messages call it: its path, or "the study" for a mapping.
        folder: Folder that paths in it are relative to.
        out: Folder of the runs and results.
        cache_dir: Folder of the caches.
        n_bootstrap: Number of bootstrap samples over patients.
        metrics: Columns of the tables, keys of ``evaluation.table.COLUMNS``.
        datasets: Arguments of ``load_dataset``, or data sets, by the names that the file has for
            them.
        models: Names or folders of encoders.
        features: Features to cache, see ``extract``.
        prompts: Prompt sets to embed.
        extraction: Further arguments of ``extract``.
        steps: Its steps, in order.
    """

    name: str
    folder: Path
    out: Path
    cache_dir: Path
    n_bootstrap: int
    metrics: Sequence[str]
    datasets: Mapping[str, Mapping[str, Any] | Dataset]
    models: Sequence[str]
    features: Sequence[str]
    prompts: Sequence[str]
    extraction: Mapping[str, Any]
    steps: Sequence[Step]


def read_study(file: Path | Mapping[str, Any], *, out: Path | None = None) -> StudyFile:
    """Read and check a study file.

    Args:
        file: A TOML file, or a mapping with the content of one.
        out: Folder of the runs and results, instead of the one in the file.

    Raises:
        UsageError: The file cannot be read, or is not a study; or a mapping states no ``out``.
        UnknownNameError: It names an argument, a data set, a model or a metric that does not exist.
    """
    if isinstance(file, Path):
        name, folder = str(file), file.absolute().parent
        content = _check_content({"out": f"studies/{file.stem}", **_parse(file)}, name)
    else:
        name, folder = "the study", Path.cwd()
        paths = {key: os.fspath(file[key]) for key in ("out", "cache_dir") if _is_path(file, key)}
        content = _check_content({**file, **paths}, name)
        if out is None and "out" not in content:
            raise UsageError(
                f"{name} is a mapping and has no file to name its folder after: give `out`, as an "
                'argument or in it, such as "studies/NAME"'
            )
    datasets = content.get("datasets", {})
    extraction = dict(content.get("extract", {}))
    _check_arguments(name, "extract", extraction, _EXTRACTION)
    for argument, value in extraction.items():
        if isinstance(value, list) and argument not in _EMBEDDED:
            raise UsageError(f"{name}: `{argument}` of extract is a list: give one value")
    models = [_located(model, folder) for model in _values(extraction.pop("model", []))]
    if not datasets or not models:
        raise UsageError(
            f"{name}: name at least one data set, such as [datasets.phantom], and one model, such "
            'as model = "tiny" in [extract]'
        )
    steps = [
        _step(kind, arguments, name) for kind in _ARGUMENTS for arguments in content.get(kind, [])
    ]
    if not steps:
        raise UsageError(
            f"{name}: nothing is to be done; add one or more of "
            f"{', '.join(f'[[{kind}]]' for kind in _ARGUMENTS)}"
        )
    if (n_bootstrap := content.get("n_bootstrap", 1000)) < 0:
        raise UsageError(f"{name}: `n_bootstrap` is {n_bootstrap}: must be at least 0")
    metrics = content.get("metrics", list(DEFAULT_METRICS))
    for metric in metrics:
        if metric not in COLUMNS:
            raise UnknownNameError("metric", metric, COLUMNS, where=name)
    study = StudyFile(
        name=name,
        folder=folder,
        out=folder / content["out"] if out is None else out,
        cache_dir=folder / content.get("cache_dir", "cache"),
        n_bootstrap=n_bootstrap,
        metrics=metrics,
        datasets=datasets,
        models=models,
        features=_values(extraction.pop("features", ["default"])),
        prompts=[_located(prompts, folder) for prompts in _values(extraction.pop("prompts", []))],
        extraction=extraction,
        steps=[_located_step(step, folder) for step in steps],
    )
    for step in study.steps:
        _check_names(study, step)
    return study


def _is_path(content: Mapping[str, Any], key: str) -> bool:
    return isinstance(content.get(key), os.PathLike)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path, encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"study file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # deeply nested TOML is a RecursionError
        raise UsageError(f"study file {path} cannot be parsed: {error}") from error


def _check_content(content: Mapping[str, Any], file: str) -> _StudyContent:
    for name in content:
        if name not in _StudyContent.__annotations__:
            raise UnknownNameError("key", str(name), _StudyContent.__annotations__, where=file)
    try:
        study: _StudyContent = strict_json.validate(dict(content), _StudyContent)
        for name, options in study.get("datasets", {}).items():
            if not isinstance(options, Dataset):
                strict_json.validate({name: options}, dict[str, dict[str, Any]])
    except ValueError as error:
        raise UsageError(
            f"{file} is malformed: {error}. Data sets are tables such as [datasets.nih], and steps "
            "lists of tables such as [[train_head]]"
        ) from error
    return study


def _step(kind: StepKind, arguments: Mapping[str, Any], file: str) -> Step:
    _check_arguments(file, kind, arguments, _ARGUMENTS[kind])
    values = {name: _values(value, whole=name in _WHOLE) for name, value in arguments.items()}
    for name in WITHOUT_EFFECT:
        if len(values.get(name, [])) > 1:
            raise UsageError(f"{file}: `{name}` of {kind} changes no result: give one value")
    if "label_map" in values and "evaluate_on" not in values:
        raise UsageError(f"{file}: `label_map` of {kind} has no effect without `evaluate_on`")
    if kind == "train_head":
        values.setdefault("head", ["weighted_sum"])
    return Step(kind, values)


def _values(value: Any, *, whole: bool = False) -> list[Any]:
    """Return the values to try: those of a list, or the only one."""
    if not isinstance(value, list) or (whole and not all(isinstance(v, list) for v in value)):
        return [value]
    return value


def _check_arguments(
    file: str, section: str, given: Mapping[str, Any], valid: Mapping[str, Any]
) -> None:
    """Check that arguments exist and that their values have the right type."""
    for name, value in given.items():
        if name not in valid:
            raise UnknownNameError("argument", str(name), valid, where=f"{file}, {section}")
        if isinstance(value, list) and not value:
            raise UsageError(f"{file}: `{name}` of {section} is an empty list: leave it out")
        for one in _values(value, whole=name in _WHOLE):
            try:
                strict_json.validate({name: one}, GenericAlias(dict, (str, valid[name])))
            except ValueError as error:
                raise UsageError(f"{file}, {section}: {error}") from error


def _check_names(study: StudyFile, step: Step) -> None:
    """Check that what a step names is in the file; an encoder to fine-tune need not be cached."""
    known: dict[str, Sequence[str]] = {
        "dataset": list(study.datasets),
        "model": study.models,
        "features": study.features,
    }
    evaluated = [name for names in step.values.get("evaluate_on", []) for name in names]
    named = {argument: step.values.get(argument, []) for argument in WHERE}
    for argument, names in {**named, "evaluate_on": evaluated}.items():
        kind = "dataset" if argument == "evaluate_on" else argument
        for name in names:
            if name not in known[kind] and (kind, step.kind) != ("model", "finetune"):
                where = f"{study.name}, `{argument}` of {step.kind}"
                what = "data set" if kind == "dataset" else kind
                raise UnknownNameError(what, str(name), known[kind], where=where)


def _located_step(step: Step, folder: Path) -> Step:
    """Return a step whose models and prompt files are found from any folder."""
    values = {
        name: [_located(value, folder) for value in values]
        if name in ("model", "prompts")
        else values
        for name, values in step.values.items()
    }
    return Step(step.kind, values)


def _located(name: str, folder: Path) -> str:
    """Return a name, or the path of the file or folder that it names, relative to the study's."""
    is_name = name in PROMPT_SETS or find_encoder(name) is not None
    if is_name or name.startswith((HUB_PREFIX, TIMM_PREFIX)):
        return name
    path = folder / Path(name).expanduser()
    is_path = "/" in name or path.suffix in (".json", ".toml") or path.exists()
    return str(path) if is_path else name
