"""A ``Run``: what a training or an evaluation produced, in memory and as a run folder."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from html import escape
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import RunError, UsageError
from featurecache.label_cells import require_same_policy
from featurecache.metrics.conformal import ConformalLimits, read_answers
from featurecache.metrics.metrics import LabelMap, Metrics, format_with_interval
from featurecache.metrics.platt_scaling import PlattScaling, read_calibration
from featurecache.metrics.predictive_values import Prevalence
from featurecache.progress import Progress
from featurecache.provenance.provenance import PROVENANCE_FILE, Provenance, read_provenance
from featurecache.runs.folder import (
    free_folder,
    new_run,
    read_config,
    read_history,
    read_metrics,
    write_config,
    write_history,
    write_json,
)
from featurecache.runs.prediction import Images, find_images
from featurecache.runs.predictions import (
    DecisionRules,
    Predictions,
    read_predictions,
    write_predictions,
)
from featurecache.runs.tracking import log_run
from featurecache.store.cache import Cache
from featurecache.store.open import CacheLike, open_cache
from featurecache.units import Units, require_same_units
from featurecache.wording import count_scored

if TYPE_CHECKING:
    import pandas as pd

RUNS_FOLDER = Path("runs")
"""Where runs are saved by default."""

MODEL_LOADERS: Mapping[str, str] = {
    "head": "featurecache.heads.io:load_model",
    "finetune": "featurecache.finetune.io:load_model",
}
"""By kind of run, the function that loads its trained model from the run folder."""

SCORED_KINDS = ("head", "zero-shot", "finetune", "external")
"""Kinds of runs that have metrics and predictions."""


class Model(Protocol):
    """What a run needs of its trained model; see ``evaluation.trained_model.TrainedModel``."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The C labels."""
        ...

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Threshold of each label."""
        ...

    @property
    def calibration(self) -> PlattScaling | None:
        """Platt scaling of each label."""
        ...

    @property
    def limits(self) -> ConformalLimits | None:
        """Limits of the answers of each label."""
        ...

    @property
    def provenance(self) -> Provenance:
        """The images that it was trained on."""
        ...

    def probabilities(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return probabilities of shape (N, C) for embeddings of shape (N, D), or tokens."""
        ...

    def predict(
        self,
        images: Images,
        *,
        models: Sequence[str] | None = None,
        weights: Sequence[str | os.PathLike[str]] | None = None,
        device: str = "auto",
        bit_depth: int | None = None,
        heatmap: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> "pd.DataFrame":
        """Predict new images."""
        ...

    def evaluate(
        self,
        cache: CacheLike,
        *,
        name: str,
        **options: Any,
    ) -> "Run":
        """Evaluate on another cache."""
        ...

    def save(self, folder: Path) -> None:
        """Write the weights into a run folder."""
        ...


@dataclass(eq=False)
class Run:
    """The result of a training, a zero-shot evaluation or an external validation.

    Example:
        >>> import featurecache as fc
        >>> run = fc.train_head("cache/phantom/tiny.h5", "linear", controls=False)
        >>> run.metrics.macro.auroc > 0.9
        True
        >>> run.predictions.columns[:3].tolist()
        ['id', 'patient', 'study']
        >>> path = run.save("runs/linear")
        >>> fc.load_run("runs/linear").metrics.macro.auroc == run.metrics.macro.auroc
        True

    Attributes:
        kind: "head", "zero-shot", "finetune" or "external".
        config: Settings, as ``config.json`` holds them.
        metrics: All metrics, with 95 % intervals over patients.
        scored: Labels and probabilities of the validation and test images, as arrays.
        default_name: Name of the folder that ``save`` makes when it is given none.
        history: One entry per epoch or candidate; empty where nothing was trained.
        provenance: The images that the model was trained on; None for zero-shot.
        path: Folder that the run was saved to or loaded from; None before.
        log: Tracking tools that ``save`` logs the run to.
    """

    kind: str
    config: Mapping[str, Any]
    metrics: Metrics
    scored: Predictions
    default_name: str
    history: Sequence[Mapping[str, Any]] = ()
    provenance: Provenance | None = None
    path: Path | None = None
    load_model: Callable[[], Model] | None = field(default=None, repr=False)
    log: Sequence[str] = ()

    @cached_property
    def model(self) -> Model | None:
        """The trained model; None for a run that trained nothing. Loaded at first use."""
        return None if self.load_model is None else self.load_model()

    @property
    def name(self) -> str:
        """The name of the run folder, or the name that it would get."""
        return self.default_name if self.path is None else self.path.resolve().name

    @property
    def dataset_name(self) -> str:
        """The data set that the run was made on."""
        return str(self.config.get("cache", self.config).get("dataset", "?"))

    @property
    def model_name(self) -> str:
        """The encoder behind the run."""
        return str(self.config.get("cache", self.config).get("model", "?"))

    @property
    def label_policy(self) -> Mapping[str, str]:
        """What uncertain and blank cells counted as, where there were any."""
        return dict(self.config.get("label_policy", {}))

    @property
    def units(self) -> Units:
        """What was scored: images or studies, and of which views."""
        return Units().override(**self.config.get("units", {}))

    @cached_property
    def predictions(self) -> "pd.DataFrame":
        """Predictions of the validation and test images.

        At study level there is a row per study. Columns are ``id``, ``patient``, ``study``,
        ``split``, ``sha256`` of the file ("" for a study) and, for each label,
        ``<label> truth`` (NaN for unknown), ``<label> probability``, ``<label> threshold``,
        ``<label> positive`` (whether the probability, not the calibrated one, reaches the
        threshold), ``<label> calibrated`` (the probability after Platt scaling; NaN for a label
        without one, for the reason in ``metrics.calibration``) and ``<label> answer`` ("present",
        "absent" or "unsure"; missing for a label without answers, for the reason in
        ``metrics.answers``). All but the truth are missing for a label that was not learned.
        """
        return self.scored.to_pandas(decision_rules(self))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the metrics has to know."""
        return tuple(self.metrics.warnings)

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the run folder, completely or not at all.

        Args:
            path: Folder to create; None for ``runs/<default_name>``, with a number appended if
                that exists.

        Returns:
            The folder.

        Raises:
            UsageError: ``path`` exists already.
            OSError: The disk is full or not writable.
        """
        target = free_folder(RUNS_FOLDER, self.default_name) if path is None else Path(path)
        write_run(self, target, None if self.model is None else self.model.save)
        self.path = target
        if self.log:
            log_run(self, target)
        return target

    def predict(
        self,
        images: Images,
        *,
        models: Sequence[str] | None = None,
        weights: Sequence[str | os.PathLike[str]] | None = None,
        device: str = "auto",
        bit_depth: int | None = None,
        heatmap: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> "pd.DataFrame":
        """Predict new images with the trained model.

        Args:
            images: Image files; folders, for every image below them; tables, for the images in
                their column ``path``; a ``Dataset``; or caches of its encoders, whose embeddings
                are used.
            models: Name or folder of each encoder, where the names in the run do not find them.
            weights: Local checkpoint of each encoder.
            device: "auto", "cpu", "cuda" or "mps".
            bit_depth: Number of bits in use, 8 to 16, in files that do not define the range of
                their gray values: 16-bit PNG and TIFF, DICOM without a window. By default that of
                the training images; where they needed none, it is judged from these images. An
                image whose values need more bits has this as its ``error``.
            heatmap: Folder for a picture of each image, over which the attention of a head on
                tokens is drawn for each learned label; see the column ``heatmap`` of the result.
            progress: Called with the number of finished images and of all.

        Returns:
            One row per image, or per study for a run at study level; see ``TrainedModel.predict``.

        Raises:
            UsageError: The run trained no model, or there is no image.
            RunError: An encoder is not the one that the model was trained with.
        """
        self._require_training()
        found = find_images(images, self.units)  # before the model, and torch, are loaded
        return self.require_model().predict(
            found,
            models=models,
            weights=weights,
            device=device,
            bit_depth=bit_depth,
            heatmap=heatmap,
            progress=progress,
        )

    def evaluate(
        self,
        cache: CacheLike,
        *,
        label_map: LabelMap | None = None,
        split: str = "test",
        prevalence: Prevalence | None = None,
        by: str | Sequence[str] | None = None,
        groups: "str | os.PathLike[str] | pd.DataFrame | None" = None,
        negatives: str = "all",
        boxes: "str | os.PathLike[str] | pd.DataFrame | None" = None,
        n_bootstrap: int = 1000,
    ) -> "Run":
        """Evaluate the trained model on the cache of another data set (external validation).

        Nothing is chosen on that data set: the thresholds are those of the training.

        Args:
            cache: A cache made with the encoder that the model was trained with, or its path,
                which is opened at the level and with the views of the run.
            label_map: Trained label to label of the cache, or to several, any of which counts. By
                default, labels of the same name, and others by the ``vocabulary``: those that mean
                the same finding, the union of its kinds, or what is near it, which is a warning.
            split: "test", or "all" for every image of the cache.
            prevalence: Share of positives, above 0 and below 1, for which ``metrics.at_prevalence``
                states PPV and NPV: a number for all labels, or numbers by label.
            by: Attributes, such as ["sex", "age:0-18-40-65-", "view"], by whose groups
                ``metrics.subgroups`` has AUROC, TPR and FPR at the same thresholds. Numbers need
                bins, each of which has its lower edge. None for no groups.
            groups: Table with the column ``id`` and further columns to group by, or its file; its
                columns come before those of the cache.
            negatives: Which negatives each label is scored against: "all"; "healthy", images
                without any finding; or "diseased", images with another one. Others are unknown.
            boxes: Boxes around findings, such as ``Dataset.boxes``, or a file of them, also as
                releases state them, for a head with attention: ``metrics.localization`` says
                whether its maps point at them. The threshold of the maps is chosen on the cache's
                validation images.
            n_bootstrap: Number of bootstrap samples over patients.

        Returns:
            A run of kind "external".

        Raises:
            UsageError: The run trained no model, no label matches, there is nothing to score,
                the model was trained on images that would be scored, uncertain or blank cells
                count differently in the cache and in the training, or the cache was opened at
                another level or with other views.
            RunError: The cache was made with another encoder.
        """
        name = str(self.path or self.default_name)
        model = self.require_model()
        units = {} if isinstance(cache, Cache) else asdict(self.units)
        opened = open_cache(cache, **units)
        require_same_policy(
            self.label_policy,
            opened.labels.applied_policy,
            names=(name, str(opened.path)),
        )
        require_same_units(self.units, opened.units, names=(name, str(opened.path)))
        evaluated = model.evaluate(
            opened,
            name=self.name,
            label_map=label_map,
            split=split,
            prevalence=prevalence,
            by=by,
            groups=groups,
            negatives=negatives,
            boxes=boxes,
            n_bootstrap=n_bootstrap,
        )
        # Messages have its name, which holds no path of this machine; its config says where it is.
        return replace(evaluated, config={**evaluated.config, "run": name})

    def _require_training(self) -> None:
        if self.load_model is None:
            raise UsageError(
                f"{self.name} is a run of kind {self.kind!r}, which trained no model: use a run of "
                "a trained head or a fine-tuned encoder"
            )

    def require_model(self) -> Model:
        """Return the trained model.

        Raises:
            UsageError: The run trained none.
        """
        self._require_training()
        return cast("Model", self.model)

    def __repr__(self) -> str:
        """Return the headline metrics with their intervals."""
        return f"Run({self.name!r}, {self.kind}, {self.metrics!r})"

    def _repr_html_(self) -> str:
        """Return a table of the headline metrics for notebooks."""
        headline = self.metrics.headline
        macro, micro = headline.macro, headline.micro
        over = f", {headline.note}" if headline.note else ""
        rows = "".join(
            f"<tr><th>{label}</th><td>{format_with_interval(value, interval)}</td></tr>"
            for label, value, interval in (
                ("macro AUROC", macro.auroc, macro.auroc_ci),
                ("macro AUPRC", macro.auprc, macro.auprc_ci),
                ("macro F1", macro.f1, macro.f1_ci),
                ("micro AUROC", micro.auroc, micro.auroc_ci),
            )
        )
        metrics = self.metrics
        scored = count_scored(metrics.n, metrics.split, metrics.level, metrics.n_patients)
        warnings = "".join(f"<li>{escape(warning)}</li>" for warning in self.warnings)
        return (
            f"<table><caption>{escape(self.name)}: "
            f"{scored}{over}</caption>{rows}</table>"
            f"{f'<ul>{warnings}</ul>' if warnings else ''}"
        )


def decision_rules(run: Run) -> DecisionRules:
    """Return what decides the labels of a run, in the order of its predictions."""
    labels = run.scored.label_names
    scores = [run.metrics.per_label[label] for label in labels]
    thresholds = [score.threshold if score.learned else float("nan") for score in scores]
    return DecisionRules(
        np.array(thresholds, dtype=np.float64),
        read_calibration(run.metrics, labels),
        read_answers(run.metrics.answers, labels),
    )


def write_run(run: Run, target: Path, write_weights: Callable[[Path], None] | None) -> None:
    """Write a run folder, completely or not at all.

    Args:
        run: The run.
        target: Folder to create.
        write_weights: Writes the weights of the trained model into a folder; None without one.

    Raises:
        UsageError: ``target`` exists already.
        OSError: The disk is full or not writable.
    """
    with new_run(target) as folder:
        write_config(folder, run.kind, run.config)
        write_json(folder / "metrics.json", run.metrics.to_json())
        write_predictions(folder, run.scored, decision_rules(run))
        if run.provenance is not None:
            write_json(folder / PROVENANCE_FILE, run.provenance.to_json())
        if run.history:
            write_history(folder, run.history)
        if write_weights is not None:
            write_weights(folder)


def load_run(path: str | os.PathLike[str]) -> Run:
    """Load a run folder.

    Example:
        >>> import featurecache as fc
        >>> path = fc.zero_shot("cache/phantom/tiny.h5").save("runs/zero-shot")
        >>> fc.load_run("runs/zero-shot").kind
        'zero-shot'

    Args:
        path: The folder.

    Returns:
        The run. Weights are loaded when ``model``, ``predict`` or ``evaluate`` is first used.

    Raises:
        RunError: The folder or a file is missing or damaged, the files contradict each other, or
            it is a learning curve.
    """
    folder = Path(path)
    config = read_config(folder)
    kind = str(config.get("kind"))
    if kind not in SCORED_KINDS:
        raise RunError(
            f"{folder} is a run of kind {kind!r}, which has no metrics of its own: load one of "
            f"kind {', '.join(SCORED_KINDS)}"
        )
    metrics, scored = read_metrics(folder), read_predictions(folder)
    if set(metrics.per_label) != set(scored.label_names):
        raise RunError(
            f"{folder}: its metrics and its predictions are of different labels: make it again"
        )
    learned = [metrics.per_label[label].learned for label in scored.label_names]
    if learned != scored.learned.tolist():
        raise RunError(
            f"{folder}: by its metrics it learned other labels than it predicted: make it again"
        )
    has_provenance = (folder / PROVENANCE_FILE).exists()
    return Run(
        kind=kind,
        config=config,
        metrics=metrics,
        scored=scored,
        default_name=folder.resolve().name,
        history=read_history(folder),
        provenance=read_provenance(folder) if has_provenance else None,
        path=folder,
        load_model=partial(_load_model, kind, folder) if kind in MODEL_LOADERS else None,
    )


def as_run(run: Run | str | os.PathLike[str]) -> Run:
    """Return a run as it is, or load it from its folder."""
    return run if isinstance(run, Run) else load_run(run)


def displayed_names(
    own: Sequence[str], folders: Sequence[Path | None], names: Mapping[str, str] | None = None
) -> list[str]:
    """Return what runs are called where several are shown.

    Args:
        own: Name of each run.
        folders: Folder of each run; None for one in memory.
        names: Names that were given, by the name or the folder of a run.

    Returns:
        The given names; else the runs' own, or their folders or numbers where these are equal.

    Raises:
        UsageError: A name is given for a run that is not among them, or for two.
    """
    paths = ["" if folder is None else str(folder) for folder in folders]
    given = dict(names or {})
    displayed = []
    for index, (name, path) in enumerate(zip(own, paths, strict=True)):
        numbered = path or f"{name} ({own[: index + 1].count(name)})"
        default = name if own.count(name) == 1 else numbered
        displayed.append(given.get(path, given.get(name, default)))
    if unknown := sorted(given.keys() - {*own, *paths}):
        raise UsageError(f"{unknown[0]!r} is none of the runs: name one of {', '.join(own)}")
    if len(set(displayed)) < len(displayed):
        name = next(name for name in displayed if displayed.count(name) > 1)
        raise UsageError(f"two runs are called {name!r}: give each a name of its own")
    return displayed


def _load_model(kind: str, folder: Path) -> Model:
    model: Model = resolve_name(MODEL_LOADERS[kind])(folder)
    return model
