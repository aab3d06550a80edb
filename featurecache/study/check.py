"""What can be checked of a study without computing anything."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from featurecache.encoders.loading import check_model, encoder_class, load_encoder
from featurecache.errors import UnknownNameError, UsageError
from featurecache.evaluation.label_matching import match_labels
from featurecache.evaluation.zero_shot import zero_shot
from featurecache.evaluation.zero_shot_scores import Scoring
from featurecache.extraction.update import check_numbers
from featurecache.features import parse_features
from featurecache.finetune.config import FinetuneConfig, make_config
from featurecache.finetune.finetune import finetune
from featurecache.heads.config import HeadConfig
from featurecache.heads.registry import head_spec
from featurecache.heads.train import check_repeats, train_head
from featurecache.images.gray_range import check_bit_depth
from featurecache.images.subprocess_decoder import IMAGE_TIMEOUT
from featurecache.label_cells import LabelPolicy
from featurecache.metrics.conformal import DEFAULT_COVERAGE
from featurecache.metrics.metrics import LabelMap
from featurecache.metrics.thresholds import OperatingPoint
from featurecache.prompts import load_prompts
from featurecache.provenance.names import base_name
from featurecache.study.file import OPENING, StepKind, StudyFile
from featurecache.tracking.tracker import check_trackers
from featurecache.units import Units

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset

_FUNCTIONS: Final[Mapping[StepKind, Callable[..., Any]]] = {
    "zero_shot": zero_shot,
    "train_head": train_head,
    "finetune": finetune,
}
DEFAULT_FEATURES: Final = "default"
_LOADING: Final = ("backend", "precision", "resize", "views")
"""Arguments of ``extract`` that decide how an encoder is loaded, beside its device."""
_JOINT_SPACE: Final = (DEFAULT_FEATURES, "projected")
"""Features that may be in one space with texts, if those of the encoder are."""


class Misfit(NamedTuple):
    """Why a step cannot be done with a model or features.

    Attributes:
        argument: The argument that does not fit.
        reason: Why.
    """

    argument: Literal["model", "features"]
    reason: str


def check_extraction(file: StudyFile, prompts: Sequence[str]) -> None:
    """Check what is embedded, and how.

    Args:
        file: The study file.
        prompts: All prompt sets that are named in it.

    Raises:
        UnknownNameError: There is no such model, prompt set, or way to resize.
        UsageError: A number is out of its range, there are no such features, backend or precision,
            two models or prompt sets have the same name, or a model embeds no images.
        CheckpointError: The folder of a model is not a checkpoint.
        PromptError: A prompt file cannot be used.
    """
    extraction = file.extraction
    check_numbers(
        limit=None,
        batch_size=extraction.get("batch_size", 1),
        workers=extraction.get("workers"),
        image_timeout=extraction.get("image_timeout", IMAGE_TIMEOUT),
    )
    check_bit_depth(extraction.get("bit_depth"))
    options = {name: extraction[name] for name in _LOADING if name in extraction}
    for model, features in product(file.models, file.features):
        check_model(model, features=named_features(features), **options)
    classes = {model: encoder_class(model) for model in file.models}
    for model, encoder in classes.items():
        if encoder is not None and not encoder.has_images:
            raise UsageError(f"model {_short(model)} embeds no images: leave it out")
    _require_unique(file, "models", map(_short, file.models), "rename the folder of one")
    names = [load_prompts(one).name for one in prompts]
    _require_unique(file, "prompt sets", names, "give one of the files another `name`")
    if names and all(one is not None and not one.has_text for one in classes.values()):
        raise UsageError(
            f"{file.name}: no model has a text encoder ({', '.join(map(_short, classes))}): leave "
            "out `prompts`"
        )


def find_encoders(file: StudyFile) -> None:
    """Find the files of all encoders, or download them, before anything is computed with one.

    Raises:
        CheckpointError: Weights are missing, incomplete or of an unsupported model type.
        UsageError: An encoder does not offer features, this machine lacks the device, or an
            optional dependency is not installed.
    """
    loading = ("device", *_LOADING)
    options = {name: file.extraction[name] for name in loading if name in file.extraction}
    if options.get("device") == "all":
        options["device"] = "cuda"
    for model, features in product(file.models, file.features):
        load_encoder(model, features=named_features(features), **options)
    for step in file.steps:
        if step.kind == "finetune" and "random" not in step.values.get("init", ()):
            for model in step.values.get("model", ()):
                load_encoder(model)


def check_arguments(kind: StepKind, values: Mapping[str, Any]) -> None:
    """Check the arguments of one experiment.

    Args:
        kind: The function.
        values: Its arguments.

    Raises:
        UnknownNameError: There is no such head, recipe, prompt set, tracking tool or value.
        UsageError: Arguments contradict each other, a number is out of its range, or the package of
            a tracking tool is not installed.
        PromptError: A prompt file cannot be used.
    """
    opening = {name: values[name] for name in OPENING if name in values}
    LabelPolicy(**_fields_of(LabelPolicy, opening))
    Units(**_fields_of(Units, opening))
    if "operating_point" in values:
        OperatingPoint.parse(values["operating_point"])
    check_trackers(values.get("log", ()))
    scorings = ("auto", *get_args(Scoring))
    if (scoring := values.get("scoring", "auto")) not in scorings:
        raise UnknownNameError("scoring", scoring, scorings)
    if kind == "train_head":
        config = HeadConfig(**_fields_of(HeadConfig, values))
        head_spec(config.head).check(config)
        check_repeats(
            seeds=values.get("seeds", 1),
            ensemble=values.get("ensemble", 1),
            coverage=values.get("coverage", DEFAULT_COVERAGE),
        )
    if kind == "finetune":
        load_prompts(_finetuning(values).prompts)


def without_defaults(kind: StepKind, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that change what a function does: equal ones for equal calls.

    Args:
        kind: The function.
        values: Checked arguments of the function.
    """
    if "recipe" in values:  # which has defaults of its own
        return dict(values)
    parameters = inspect.signature(_FUNCTIONS[kind]).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return {
        # 1 and 1.0 are the same number, but not the same JSON.
        name: float(value) if isinstance(defaults.get(name), float) else value
        for name, value in values.items()
        if name not in defaults or value != defaults[name]
    }


def find_misfit(
    kind: StepKind, model: str, features: str, values: Mapping[str, Any]
) -> Misfit | None:
    """Return why an experiment is impossible with its model and features, or None.

    The model is not loaded: nothing is known about a repository of the hub, or an encoder with a
    loader of its own.

    Args:
        kind: The function.
        model: The encoder.
        features: What is cached of it.
        values: Checked arguments of the function.
    """
    encoder = encoder_class(model)
    if kind == "finetune":
        needs_text = _finetuning(values).objective == "contrastive"
        if needs_text and encoder is not None and not encoder.aligned:
            return Misfit(
                "model",
                "the contrastive objective needs an encoder that embeds images and texts in one "
                f"space, and {_short(model)} does not",
            )
        return None
    what, text, takes_tokens = "zero_shot", "aligned", False
    if kind == "train_head":
        spec = head_spec(values["head"])
        what, text, takes_tokens = f"the head {spec.name}", spec.text, spec.takes_tokens
    wanted = named_features(features)
    is_tokens = wanted is not None and parse_features(wanted).grid is not None
    if takes_tokens and not is_tokens:
        return Misfit("features", f"{what} takes tokens, such as tokens:7, and not {features}")
    if is_tokens and not takes_tokens:
        return Misfit("features", f"{what} takes one vector for each image, and not {features}")
    if text == "aligned" and features not in _JOINT_SPACE:
        return Misfit(
            "features",
            f"{what} compares images with texts, which share no space with the features {features}",
        )
    if encoder is None:
        return None
    if text == "aligned" and not encoder.aligned:
        return Misfit(
            "model",
            f"{what} compares images with texts, and {_short(model)} does not embed them in one "
            "space",
        )
    if text != "none" and not encoder.has_text:
        return Misfit("model", f"{what} uses texts, and {_short(model)} has no text encoder")
    return None


def find_shortage(kind: StepKind, values: Mapping[str, Any], n_train: int) -> str | None:
    """Return why a data set has too few training images for an experiment, or None.

    Fewer may be trained on, such as without copies of test images: that is found in the training.

    Args:
        kind: The function.
        values: Checked arguments of the function.
        n_train: Number of the data set's training images.
    """
    images = "training images: give a smaller one"
    train_size = values.get("train_size") or n_train
    if train_size > n_train:
        return f"`train_size` {train_size} of {kind} is more than the {n_train} {images}"
    if kind == "finetune" and (batch_size := _finetuning(values).batch_size) > train_size:
        return f"`batch_size` {batch_size} of {kind} is more than the {train_size} {images}"
    return None


def check_labels(trained: "Dataset", scored: "Dataset", label_map: LabelMap | None) -> None:
    """Check that what is trained on one data set can be scored on another.

    Args:
        trained: The data set of the training.
        scored: The other.
        label_map: See ``Run.evaluate``.

    Raises:
        UsageError: The map names a label that does not exist, or without one no label matches.
    """
    match_labels(
        trained.label_names,
        scored.label_names,
        label_map,
        trained_on=_vocabulary_names(trained),
        datasets=_vocabulary_names(scored),
    )


def _vocabulary_names(dataset: "Dataset") -> list[str]:
    loaded_as = [] if dataset.source is None else [dataset.source["dataset"]]
    return [*loaded_as, dataset.name, base_name(dataset.collection)]


def named_features(features: str) -> str | None:
    """Return features as ``extract`` takes them: None for the model's own embedding."""
    return None if features == DEFAULT_FEATURES else features


def _finetuning(values: Mapping[str, Any]) -> FinetuneConfig:
    return make_config(values.get("recipe"), _fields_of(FinetuneConfig, values))


def _require_unique(file: StudyFile, what: str, names: Iterable[str], advice: str) -> None:
    for name, number in Counter(names).items():
        if number > 1:
            raise UsageError(f"{file.name}: {number} {what} are called {name!r}: {advice}")


def _fields_of(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in values.items() if name in names}


def _short(model: str) -> str:
    return Path(model).name
