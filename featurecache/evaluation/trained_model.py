"""A ``TrainedModel``: a head on an encoder's embeddings, or a fine-tuned encoder with its head."""

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.compatibility import check_encoder_specs
from featurecache.errors import FeaturecacheWarning, ImageError, UsageError
from featurecache.evaluation.external import validate_external
from featurecache.evaluation.heatmaps import (
    check_attention,
    make_heatmap_folder,
    save_heatmap,
)
from featurecache.evaluation.localization import as_boxes, localize
from featurecache.images.bit_depth import judge_bit_depth, sample_files
from featurecache.images.gray_range import check_bit_depth
from featurecache.metrics.conformal import ConformalLimits
from featurecache.metrics.familiarity import COLUMNS, Familiarity
from featurecache.metrics.platt_scaling import PlattScaling
from featurecache.metrics.thresholds import OperatingPoint
from featurecache.progress import Progress
from featurecache.provenance.provenance import Provenance
from featurecache.runs.prediction import (
    ImageFiles,
    Images,
    Prediction,
    classify_images,
    find_images,
)
from featurecache.runs.predictions import DecisionRules
from featurecache.runs.run import Run
from featurecache.store.cache import Cache
from featurecache.store.grouped import GroupedCache, Grouping, join_scores, pool_embeddings
from featurecache.store.open import CacheLike, open_cache
from featurecache.units import BOTH_SIDES, STUDY, Units, require_same_units
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

    from featurecache.encoders.encoder import Encoder


class TrainedModel(ABC):
    """Predicts the labels that it was trained on, from embeddings or from images.

    A run of ``train_head`` or ``finetune`` has one as ``run.model``.

    Example:
        >>> import featurecache as fc
        >>> cache = fc.open_cache("cache/phantom/tiny.h5")
        >>> model = fc.train_head(cache, "linear", controls=False).model
        >>> model.probabilities(cache.embedding[:2]).shape
        (2, 14)
        >>> model.predict("image.png")["error"].isna().all()
        np.True_

    Attributes:
        labels: The C labels.
        thresholds: Threshold of each label, chosen on validation; 0.5 where none could be.
        thresholds_chosen: Whether each was chosen, and is not the default.
        operating_point: The rule by which they were chosen.
        learned: Whether training had positives and negatives of each label; the metrics of other
            labels are undefined.
        calibration: Platt scaling of each label, fitted on validation, and why a label has none;
            None without any.
        limits: Limits of the answers present, absent and unsure, chosen on validation, and why a
            label has none; None without any.
        provenance: The images that it was trained on.
        bit_depth: Bit depth of its training images; see ``extract``. New images are read with it.
        learning_caveats: What a reader of any evaluation has to know about its training images.
        units: What it was trained and scored on, and predicts: images, or studies.
        familiarity: Compares images with a sample of the training images; None without one.
    """

    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    thresholds_chosen: tuple[bool, ...]
    operating_point: OperatingPoint
    learned: tuple[bool, ...]
    calibration: PlattScaling | None
    limits: ConformalLimits | None
    provenance: Provenance
    bit_depth: int | None
    learning_caveats: tuple[str, ...]
    units: Units = Units()
    familiarity: Familiarity | None = None

    def __repr__(self) -> str:
        # Without the ids of the training images, of which there can be 100,000.
        labels = count_noun(len(self.labels), "label")
        return f"{type(self).__name__}({labels}: {', '.join(self.labels)})"

    @abstractmethod
    def probabilities(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return probabilities of shape (N, C) for embeddings of shape (N, D), or tokens."""

    @property
    def n_members(self) -> int:
        """Number of members, K, of an ensemble; 0 for a model that is none."""
        return 0

    def member_probabilities(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probabilities of each member, (N, K, C), whose mean is ``probabilities``."""
        return np.empty((len(embedding), 0, len(self.labels)))

    def attention(self, embedding: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return how much each label looks at each token, (N, C, T), for tokens (N, T, D).

        Raises:
            UsageError: The model has no attention.
        """
        raise UsageError(
            "this model does not look at places of an image: train the head attentive on a cache "
            "of tokens"
        )

    @abstractmethod
    def encoder_specs(self) -> list[Mapping[str, Any]]:
        """Return the spec of each encoder whose embeddings it takes, in order."""

    @abstractmethod
    def load_encoders(
        self,
        *,
        models: Sequence[str] | None = None,
        weights: Sequence[str | os.PathLike[str]] | None = None,
        device: str = "auto",
    ) -> "list[Encoder]":
        """Load the encoders whose embeddings it takes, and check that they are the same."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write its weights into a run folder."""

    def match_execution(self, specs: Sequence[Mapping[str, Any]]) -> "TrainedModel":
        """Return the model for embeddings of these specs; only one with its own encoder differs.

        Args:
            specs: Image specs of the caches that it is to be evaluated on.
        """
        return self

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
        """Predict new images.

        Args:
            images: Image files; folders, for every image below them; tables, for the images in
                their column ``path``; a ``Dataset``; or caches of its encoders, whose embeddings
                are used.
            models: Name or folder of each encoder, where the names in the run do not find them.
            weights: Local checkpoint of each encoder.
            device: "auto", "cpu", "cuda" or "mps".
            bit_depth: Number of bits in use, 8 to 16, in files that do not define the range of
                their gray values; by default that of the training images, or judged from these.
            heatmap: Folder for a picture of each image, over which the attention of a head on
                tokens is drawn for each learned label.
            progress: Called with the number of finished images and of all.

        Returns:
            One row per image, in the order given: ``image``, its path, or its id in a table, data
            set or cache; or, for a model of studies, one row per study, ``study``, in the order of
            their first images. For each label ``<label>
            probability``, ``<label> threshold``, ``<label> positive`` (whether the probability, not
            the calibrated one, reaches the threshold), ``<label> calibrated`` (the probability
            after Platt scaling; NaN for a label without one, for the reason in
            ``calibration.reasons``) and ``<label> answer`` ("present", "absent" or "unsure";
            missing for a label without limits, for the reason in ``limits.reasons``), and, for an
            ensemble, ``<label> sd`` (standard deviation of its members' probabilities, with n - 1
            in the denominator), all of them missing for a label that was not learned; ``familiarity
            knn`` and ``familiarity mahalanobis``, the percentiles of ``Familiarity`` (of a study
            whose images are scored, those of its most foreign image), for a head with enough
            training patients; and ``error``, the reason why an image, or all images of a study,
            could not be read, else None. Images that a study is predicted without are a warning.
            With ``heatmap``, also ``heatmap``, the file of the picture, or None for an image that
            could not be read or drawn.

        Raises:
            UsageError: There is no image, or none of the model's views, not one of ``models`` and
                ``weights`` per encoder, one of them or ``bit_depth`` beside a cache, ``bit_depth``
                is out of range, a cache was opened at another level or with other views, or
                ``heatmap`` is for a model without attention, is a file, or is among the images.
            RunError: An encoder is not the one that the model was trained with.
        """
        import pandas as pd

        check_bit_depth(bit_depth)
        source = find_images(images, self.units)
        attention: list[NDArray[np.floating] | None] = []
        if heatmap is not None:
            self._check_attention("heatmap")
        if isinstance(source, Cache):
            if models or weights or bit_depth or heatmap:
                raise UsageError(
                    "a cache holds embeddings: leave out `models`, `weights`, `bit_depth` and "
                    "`heatmap`"
                )
            names: Sequence[str] = source.ids.tolist()
            errors: list[str | None] = [None] * len(names)
            scores, familiar = self._predict_cache(source)
        else:
            grouping = source.group(self.units)
            if heatmap is not None:
                make_heatmap_folder(Path(heatmap), source)
            encoders = self.load_encoders(models=models, weights=weights, device=device)
            results = classify_images(
                encoders,
                self._outputs if heatmap is None else self._with_attention,
                [source.paths[row] for row in grouping.rows],
                names=[source.names[row] for row in grouping.rows],
                bit_depth=bit_depth or self.bit_depth,
                progress=progress,
            )
            if heatmap is not None:
                results, attention = self._split_attention(results)
            names = grouping.ids.tolist()
            errors = _errors_of_groups(results, grouping)
            scores, familiar = self._join_predictions(results, grouping, source.views)
        table = self._to_table(names, scores, familiar, errors)
        if heatmap is not None and isinstance(source, ImageFiles):
            paths = [source.paths[row] for row in grouping.rows]
            probability = scores[:, : len(self.labels)]
            pictures = self._draw(
                Path(heatmap), paths, attention, probability, bit_depth or self.bit_depth
            )
            table["heatmap"] = pd.Series(pictures, dtype=object)
        return table

    def predict_embedding(
        self, embedding: NDArray[np.floating], *, view: str = ""
    ) -> "pd.DataFrame":
        """Predict one image from its embedding, as ``predict`` does from its file.

        Args:
            embedding: Its embedding, (1, D), or tokens, (1, T, D), as ``embed_pixels`` returns it.
            view: Its view, for a model of frontal or of lateral images; "" if unknown.

        Returns:
            One row, with the columns of ``predict``.

        Raises:
            UsageError: The image is not known to be of the model's views.
        """
        image = ImageFiles(["image"], [Path()], views=[view])
        grouping = image.group(self.units)
        results = [Prediction(Path(), self._outputs(embedding)[0], None)]
        scores, familiar = self._join_predictions(results, grouping, [view])
        return self._to_table(grouping.ids.tolist(), scores, familiar, [None])

    @property
    def rules(self) -> DecisionRules:
        """What turns its probabilities into decisions."""
        thresholds = np.where(self.learned, self.thresholds, np.nan)
        return DecisionRules(thresholds, self.calibration, self.limits)

    def _to_table(
        self,
        names: Sequence[str],
        scores: NDArray[np.float64],
        familiar: NDArray[np.float64],
        errors: Sequence[str | None],
    ) -> "pd.DataFrame":
        """Return the result of ``predict`` for scores (G, C + K C) and familiarity (G, 2)."""
        import pandas as pd

        probability, members = np.split(scores, [len(self.labels)], axis=1)
        columns: dict[str, Any] = {self.units.level: names}
        derived = self.rules.columns(self.labels, np.where(self.learned, probability, np.nan))
        for c, (label, of_label) in enumerate(zip(self.labels, derived, strict=True)):
            columns |= of_label
            if self.n_members:
                of_members = members[:, c :: len(self.labels)]
                sd = of_members.std(axis=1, ddof=1)
                columns[f"{label} sd"] = np.where(self.learned[c], sd, np.nan)
        if self.familiarity is not None:
            columns |= dict(zip(COLUMNS, familiar.T, strict=True))
        columns["error"] = pd.Series(errors, dtype=object)
        return pd.DataFrame(columns)

    def _check_attention(self, argument: str) -> None:
        by_study = self.units.level == STUDY
        check_attention(self.encoder_specs()[0], by_study=by_study, argument=argument)

    def _outputs(self, embedding: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return what ``_join_predictions`` takes: scores, or embeddings where these are pooled.

        A head on pooled embeddings needs all of a study; others, one image after another.
        """
        return embedding if self.units.study_features is not None else self._scores(embedding)

    def _with_attention(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return ``_scores`` and the attention of each image, C * T values, side by side."""
        attention = self.attention(embedding).reshape(len(embedding), -1)
        return np.concatenate([self._scores(embedding), attention], axis=1)

    def _split_attention(
        self, results: Sequence[Prediction]
    ) -> tuple[list[Prediction], list[NDArray[np.floating] | None]]:
        """Undo ``_with_attention``: return the predictions, and the attention of each, (C, T)."""
        n_labels = len(self.labels)
        n_scores = n_labels * (1 + self.n_members) + len(COLUMNS)
        predictions, attention = [], list[NDArray[np.floating] | None]()
        for result in results:
            output = result.output
            predictions.append(
                replace(result, output=None if output is None else output[:n_scores])
            )
            attention.append(None if output is None else output[n_scores:].reshape(n_labels, -1))
        return predictions, attention

    def _draw(
        self,
        folder: Path,
        files: Sequence[Path],
        attention: Sequence[NDArray[np.floating] | None],
        probability: NDArray[np.float64],
        bit_depth: int | None,
    ) -> list[str | None]:
        """Draw the attention of the learned labels over each image; return the files.

        What cannot be drawn is a warning: the predictions must not be lost.
        """
        learned = np.flatnonzero(self.learned)
        spec = self.encoder_specs()[0]
        judged = bit_depth or judge_bit_depth(sample_files(files))
        pictures: list[str | None] = []
        failures: list[str] = []
        for number, (file, weights) in enumerate(zip(files, attention, strict=True), start=1):
            if weights is None:
                pictures.append(None)
                continue
            captions = [
                f"{self.labels[c]} {probability[number - 1, c]:.3f}"
                + ("*" if probability[number - 1, c] >= self.thresholds[c] else "")
                for c in learned
            ]
            try:
                path = save_heatmap(
                    folder,
                    number,
                    file,
                    attention=weights[learned],
                    captions=captions,
                    spec=spec,
                    bit_depth=judged,
                )
            except (ImageError, OSError) as error:
                failures.append(str(error))
                pictures.append(None)
            else:
                pictures.append(str(path))
        if failures:
            warnings.warn(
                f"{count_noun(len(failures), 'heat map')} could not be drawn, the first because of "
                f"{failures[0]}",
                FeaturecacheWarning,
                stacklevel=3,
            )
        return pictures

    def _join_predictions(
        self, results: Sequence[Prediction], grouping: Grouping, views: Sequence[str] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scores (G, C + K C) and familiarity (G, 2) of G images or studies.

        The scores are probabilities, and those of each member. They are NaN where no image could be
        read.

        Args:
            results: Of each of the M images of the groups, its scores, or its embedding where these
                are pooled.
            grouping: The groups.
            views: Views of the images that were grouped; None if unknown.
        """
        labels = self.labels * (1 + self.n_members)
        scores = np.full((len(grouping.ids), len(labels)), np.nan)
        familiar = np.full((len(grouping.ids), len(COLUMNS)), np.nan)
        readable = [row for row, result in enumerate(results) if result.output is not None]
        if not readable:
            return scores, familiar
        outputs = np.array([results[row].output for row in readable])
        present, group = np.unique(grouping.group[readable], return_inverse=True)
        if self.units.study_features is not None:
            of_images = None
            if self.units.study_features == BOTH_SIDES:
                of_images = np.array(views, dtype=np.str_)[grouping.rows[readable]]
            outputs = self._scores(pool_embeddings(outputs, group, views=of_images))
        of_labels, percentiles = np.split(outputs, [len(labels)], axis=1)
        if self.units.study_scores is not None:
            of_labels = join_scores(of_labels, group, labels, how=self.units.study_scores)
            percentiles = _lowest(percentiles, group)
        scores[present], familiar[present] = of_labels, percentiles
        return scores, familiar

    def _scores(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return ``_probabilities`` and familiarity of each image side by side."""
        return np.concatenate(
            [self._probabilities(embedding), self._percentiles(embedding)], axis=1
        )

    def _probabilities(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return probabilities and those of each member side by side, (N, C + K C)."""
        members = self.member_probabilities(embedding).reshape(len(embedding), -1)
        return np.concatenate([self.probabilities(embedding), members], axis=1)

    def _percentiles(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        if self.familiarity is None:
            return np.full((len(embedding), len(COLUMNS)), np.nan)
        return self.familiarity.percentiles(embedding)

    def _predict_cache(self, cache: Cache) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scores (N, C + K C) and familiarity (N, 2) of a cache of the same encoders."""
        require_same_units(self.units, cache.units, names=("the run", str(cache.path)))
        specs = [member.header.encoder_spec for member in cache.members]
        model = self.match_execution(specs)
        for difference in check_encoder_specs(model.encoder_specs(), specs, source="the run"):
            warnings.warn(
                f"{cache.path} was made with other library versions than the training "
                f"({difference})",
                FeaturecacheWarning,
                stacklevel=3,
            )
        embedding = cache.inputs.values
        percentiles = self._percentiles(embedding)
        if isinstance(cache, GroupedCache) and cache.units.study_scores is not None:
            percentiles = _lowest(percentiles, cache.group)
        labels = self.labels * (1 + self.n_members)
        return cache.join_scores(model._probabilities(embedding), labels), percentiles

    def evaluate(
        self,
        cache: CacheLike,
        *,
        name: str,
        boxes: "str | os.PathLike[str] | pd.DataFrame | None" = None,
        **options: Any,
    ) -> Run:
        """Evaluate on the cache of another data set; see ``Run.evaluate``.

        Args:
            cache: The cache, or its path.
            name: What the model is called in messages and in the new run's config.
            boxes: Boxes around findings; see ``Run.evaluate``.
            **options: Arguments of ``Run.evaluate``.
        """
        if boxes is not None:
            self._check_attention("boxes")
        if not isinstance(cache, Cache):
            cache = open_cache(cache, **asdict(self.units))
        specs = [member.header.encoder_spec for member in cache.members]
        model = self.match_execution(specs)
        differences = check_encoder_specs(model.encoder_specs(), specs, source=name)
        box_notes: list[str] = []
        table = None if boxes is None else as_boxes(boxes, box_notes)
        run = validate_external(
            cache,
            model.probabilities,
            name=name,
            labels=self.labels,
            thresholds=np.where(self.thresholds_chosen, self.thresholds, np.nan).tolist(),
            operating_point=self.operating_point,
            learned=self.learned,
            calibration=self.calibration,
            limits=self.limits,
            familiarity=self.familiarity,
            provenance=self.provenance,
            warnings=[
                *(f"in the training of {name}, {caveat}" for caveat in self.learning_caveats),
                *(
                    "the cache was made with other library versions than the training "
                    f"({difference})"
                    for difference in differences
                ),
            ],
            **options,
        )
        if table is None:
            return run
        localization, notes = localize(
            cache,
            table,
            model.attention,
            labels=self.labels,
            matches=dict(run.metrics.label_map or {}),
            split=str(run.config["split"]),
            n_bootstrap=int(run.config["n_bootstrap"]),
        )
        metrics = run.metrics.replace(
            localization=localization, warnings=[*run.metrics.warnings, *box_notes, *notes]
        )
        file = str(boxes) if isinstance(boxes, str | os.PathLike) else None
        return replace(run, metrics=metrics, config={**run.config, "boxes": file})


def _lowest(values: NDArray[np.float64], group: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the lowest values of each group, (G, K), of (M, K) values."""
    lowest = np.full((group.max() + 1, values.shape[1]), np.inf)
    np.minimum.at(lowest, group, values)
    return lowest


def _errors_of_groups(results: Sequence[Prediction], grouping: Grouping) -> list[str | None]:
    """Return why each of G images or studies has no prediction, else None.

    An image that a study is predicted without is a warning.
    """
    reasons: list[list[str]] = [[] for _ in grouping.ids]
    for group, result in zip(grouping.group.tolist(), results, strict=True):
        if result.reason is not None:
            reasons[group].append(result.reason)
    sizes = np.bincount(grouping.group)
    errors: list[str | None] = []
    for of_group, size, name in zip(reasons, sizes.tolist(), grouping.ids, strict=True):
        complete = len(of_group) == size
        errors.append("; ".join(of_group) if complete else None)
        if of_group and not complete:
            warnings.warn(
                f"study {name} is predicted without images that could not be read: "
                f"{'; '.join(of_group)}",
                FeaturecacheWarning,
                stacklevel=4,
            )
    return errors
