"""The typed ``Metrics`` of a run: what ``metrics.json`` holds.

Code builds, validates, writes and reads metrics through these models. A metric that is undefined,
such as the AUROC of a label with one class only, is None (null in JSON), never 0 or 0.5. Unknown
keys are ignored when a file is read, since a newer version may have written them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from annotated_types import Gt, Le, Len
from pydantic import Field, PrivateAttr

from featurecache.metrics.conformal import Answers
from featurecache.metrics.delong import Delong
from featurecache.metrics.document import (
    Change,
    ChangeInterval,
    Count,
    Difference,
    Document,
    FloatInterval,
    Interval,
    Score,
)
from featurecache.metrics.familiarity import FamiliarityScores
from featurecache.metrics.localization import Localization
from featurecache.metrics.predictive_values import PredictiveValues
from featurecache.metrics.retuned import Retuned
from featurecache.metrics.subgroups import Subgroups
from featurecache.metrics.thresholds import NOT_CHOSEN
from featurecache.wording import count_noun, count_scored

LabelMap = Mapping[str, str | Sequence[str]]
"""Trained label to label of another data set, or to several, any of which counts."""
_ConfusionRow = Annotated[list[Count], Len(2, 2)]

MatchKind = Literal["same", "union", "near", "map"]


class LabelMatch(Document):
    """What a trained label is scored against in another data set.

    Attributes:
        labels: Labels of the data set; an image is positive if one of them is.
        kind: How they are related: "same" (they mean the same, or have the same name), "union"
            (they are its kinds), "near" (they mean something similar), or "map" (they were given).
    """

    labels: Annotated[list[str], Len(1)]
    kind: MatchKind

    def scored_as(self, trained: str) -> str:
        """Return the name that metrics have: that of the only label, else of the trained one."""
        return self.labels[0] if len(self.labels) == 1 else trained


class RankingIntervals(Document):
    """Confidence intervals of metrics that need no threshold."""

    auroc: Interval | None = None
    auprc: Interval | None = None


class RankingScores(Document):
    """Metrics that need no threshold.

    Attributes:
        auroc: Area under the ROC curve, in [0, 1].
        auprc: Average precision, in [0, 1].
    """

    auroc: Score | None
    auprc: Score | None
    _intervals: RankingIntervals = PrivateAttr(default_factory=RankingIntervals)

    @property
    def auroc_ci(self) -> tuple[float, float] | None:
        """The 95 % interval of the AUROC."""
        return self._intervals.auroc

    @property
    def auprc_ci(self) -> tuple[float, float] | None:
        """The 95 % interval of the AUPRC."""
        return self._intervals.auprc

    def interval(self, metric: str) -> tuple[float, float] | None:
        """Return the 95 % interval of a metric by its name, such as ``"recall"``."""
        bounds: tuple[float, float] | None = getattr(self._intervals, metric, None)
        return bounds


class DecisionIntervals(RankingIntervals):
    """Confidence intervals of all metrics of one label or average."""

    precision: Interval | None = None
    recall: Interval | None = None
    specificity: Interval | None = None
    npv: Interval | None = None
    f1: Interval | None = None
    accuracy: Interval | None = None


class DecisionScores(RankingScores):
    """Metrics of one label or of an average over labels, all in [0, 1].

    Attributes:
        precision: Positive predictive value.
        recall: Sensitivity.
        specificity: True negatives over all negatives.
        npv: Negative predictive value.
        f1: Harmonic mean of precision and recall.
        accuracy: Share of right decisions.
    """

    precision: Score | None
    recall: Score | None
    specificity: Score | None = None
    npv: Score | None = None
    f1: Score | None
    accuracy: Score | None = None
    _intervals: DecisionIntervals = PrivateAttr(default_factory=DecisionIntervals)

    @property
    def f1_ci(self) -> tuple[float, float] | None:
        """The 95 % interval of the F1 score."""
        return self._intervals.f1


class LabelScores(DecisionScores):
    """Metrics of one label.

    Attributes:
        n_positive: Number of positive images.
        n_known: Number of images whose label is known.
        n_positive_patients: Number of patients with a positive image.
        n_negative_patients: Number of patients with a negative image.
        no_interval: Why the label has no intervals: it was not learned, or too few patients have a
            positive or a negative image. None where neither holds.
        threshold: Probability from which on the label is predicted.
        threshold_source: The rule by which it was chosen, and where: such as ``"f1 on validation"``
            or ``"f1 on validation of the training run"`` (carried over to another data set);
            ``NOT_CHOSEN`` where there were no images to choose one on.
        confusion: [[tn, fp], [fn, tp]]; None for a label that could not be learned.
    """

    n_positive: Count
    n_known: Count
    n_positive_patients: Count
    n_negative_patients: Count
    no_interval: str | None = None
    threshold: Score
    threshold_source: str | None = None
    confusion: Annotated[list[_ConfusionRow], Len(2, 2)] | None

    @property
    def learned(self) -> bool:
        """Whether training had both positives and negatives of this label."""
        return self.confusion is not None

    @property
    def threshold_chosen(self) -> bool:
        """Whether its threshold was chosen on validation images, and is not the default of 0.5."""
        return self.threshold_source != NOT_CHOSEN


class ScoreIntervals(Document):
    """Confidence intervals under the same names as the metrics."""

    macro: DecisionIntervals
    micro: DecisionIntervals
    exact_match: Interval | None
    hamming_loss: Interval | None
    per_label: dict[str, DecisionIntervals]


class Scores(Document):
    """Metrics of one set of decisions.

    Attributes:
        macro: Mean over the labels with a positive and a negative image (``macro_labels``), without
            those whose precision or NPV is undefined because nothing is predicted.
        micro: Metrics over all known (image, label) entries pooled.
        exact_match: Share of images with every label right.
        hamming_loss: Share of entries that are wrong.
        per_label: Metrics by label name.
    """

    macro: DecisionScores
    micro: DecisionScores
    exact_match: Score | None
    hamming_loss: Score | None
    per_label: dict[str, LabelScores]


class GroupIntervals(Document):
    """Confidence intervals of averaged ranking metrics."""

    macro: RankingIntervals
    micro: RankingIntervals


class RankingSummary(Document):
    """Averaged ranking metrics of one or several trainings, such as a negative control."""

    macro: RankingScores
    micro: RankingScores
    ci95: GroupIntervals
    per_label: dict[str, RankingScores] = Field(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        """Attach each interval to the score that it belongs to."""
        for group in ("macro", "micro"):
            getattr(self, group)._intervals = getattr(self.ci95, group)


class RankingDifferences(Document):
    """Paired differences in AUROC and AUPRC."""

    auroc: Difference
    auprc: Difference | None = None


class RankingGain(Document):
    """How much better one method ranks than another on the same images."""

    macro: RankingDifferences
    micro: RankingDifferences | None = None


class PairedGain(RankingGain):
    """How much better the trainings of a run rank than something else.

    Attributes:
        pairs: Number of paired trainings.
        labels: The labels behind it: learned, and with enough patients for an interval.
    """

    pairs: Count
    labels: list[str]


class ControlIntervals(GroupIntervals):
    """Confidence intervals of a control."""

    exact_match: Interval | None = None
    hamming_loss: Interval | None = None


class Control(RankingSummary):
    """The scores of a predictor that cannot tell one finding from another.

    Attributes:
        supported: Averages over the labels with enough patients; compare ``Metrics.supported``.
        within_abnormal: Averages within the abnormal images; compare ``Metrics.within_abnormal``.
        exact_match: Share of images with every label right, for a control that makes decisions.
        hamming_loss: Share of entries that are wrong, for a control that makes decisions.
        gain: How much better the run ranks than "any_finding"; None for other controls.
    """

    ci95: ControlIntervals
    supported: RankingSummary | None = None
    within_abnormal: RankingSummary | None = None
    exact_match: Score | None = None
    hamming_loss: Score | None = None
    gain: PairedGain | None = None


class CurvePoint(Document):
    """The scores of one head at one number of training images.

    Attributes:
        macro: Means over the seeds.
        ci95: Their 95 % intervals, over patients and seeds.
        seeds: AUROC of each seed.
        gain: Gain over the first head, paired by patient and seed; None for the first head.
        labels: Number of labels with enough patients that could be learned with every seed. The
            scores are over ``CurveMetrics.labels``, which are the same at each size.
    """

    macro: RankingScores
    ci95: RankingIntervals
    seeds: list[Score | None] = Field(default_factory=list)
    gain: RankingDifferences | None
    labels: Count

    def model_post_init(self, context: Any, /) -> None:
        """Attach the intervals to the scores."""
        self.macro._intervals = self.ci95

    @property
    def auroc_gain(self) -> Difference:
        """The gain in AUROC over the first head; undefined for the first head."""
        return Difference(difference=None, ci95=None) if self.gain is None else self.gain.auroc

    @classmethod
    def undefined(cls, labels: int) -> Self:
        """Return the point of a size at which too few labels can be learned."""
        scores = RankingScores(auroc=None, auprc=None)
        return cls(macro=scores, ci95=RankingIntervals(), gain=None, labels=labels)


class CurveMetrics(Document):
    """The scores of a learning curve; the content of ``curve.json``.

    Attributes:
        n: Number of test images.
        n_patients: Number of their patients.
        sizes: Numbers of training images, ascending.
        labels: The labels behind every score, at each size and for each head: with enough test
            patients, and learned in every training. Sizes that too few labels can be learned from
            are undefined.
        cells: By head, a point for each size.
        warnings: What a reader of these numbers has to know.
    """

    n: Count
    n_patients: Count
    sizes: list[Annotated[int, Gt(0), Le(2**53)]]
    labels: list[str]
    cells: Annotated[dict[str, list[CurvePoint]], Len(1)]
    warnings: list[str] = Field(default_factory=list)

    def model_post_init(self, context: Any, /) -> None:
        """Check that every head has a point for each size.

        Raises:
            ValueError: A head has more or fewer points.
        """
        for head, points in self.cells.items():
            if len(points) != len(self.sizes):
                raise ValueError(f"{head} has {len(points)} points for {len(self.sizes)} sizes")


class ClassIntervals(Document):
    """Confidence intervals of exclusive classes."""

    accuracy: Interval | None = None
    balanced_accuracy: Interval | None = None


class ClassScores(Document):
    """How often the predicted class is the true one, where each image has exactly one label.

    The predicted class is the learned label with the highest probability.

    Attributes:
        labels: The classes, in the order of ``confusion``.
        accuracy: Top-1 accuracy: share of images whose class is predicted.
        balanced_accuracy: Mean of that share over the classes that have images.
        confusion: Number of images by true class (row) and predicted class (column), of the first
            training. The scores are means over the trainings.
        ci95: Their 95 % intervals, over patients and trainings.
    """

    labels: list[str]
    accuracy: Score | None
    balanced_accuracy: Score | None
    confusion: list[list[Count]]
    ci95: ClassIntervals = ClassIntervals()

    def model_post_init(self, context: Any, /) -> None:
        """Check the shape of the confusion matrix.

        Raises:
            ValueError: It is not square, or of other classes.
        """
        if [len(row) for row in self.confusion] != [len(self.labels)] * len(self.labels):
            raise ValueError("the confusion matrix does not have a row and a column for each class")


class TextGain(PairedGain):
    """What the label texts contribute: the run compared with itself on permuted texts.

    Attributes:
        against: What it is compared with.
    """

    against: str = "permuted"


class CalibrationIntervals(Document):
    """Confidence intervals of calibration, over patients; each contains its score."""

    error: Interval | None = None
    brier: Interval | None = None
    calibration_slope: FloatInterval | None = None
    calibration_intercept: FloatInterval | None = None
    observed_minus_predicted: ChangeInterval | None = None
    observed_to_expected: FloatInterval | None = None


class CalibrationScores(Document):
    """How far the probabilities of a label, or of several labels, are from observed frequencies.

    Attributes:
        error: Calibration error, in [0, 1]: root mean squared difference between mean probability
            and fraction of positives in 15 bins, without the part that chance explains.
        brier: Brier score, in [0, 1]: mean squared difference between probability and label.
        calibration_slope: Slope of a logistic regression of the label on the log odds: 1 if right,
            below 1 if the probabilities are too extreme, above 1 if they are not extreme enough.
            None for averages, and where the probabilities separate the classes (``no_slope``).
        calibration_intercept: What has to be added to the log odds for the mean probability to
            equal the fraction of positives: 0 if right, below 0 if probabilities are too high.
            None for averages.
        observed_minus_predicted: Fraction of positives minus mean probability: calibration in the
            large. None for averages.
        observed_to_expected: Number of positives over the sum of the probabilities: 1 if right,
            below 1 if probabilities are too high. None for averages, and where no positive is
            expected.
        ci95: 95 % intervals; empty without bootstrap samples.
    """

    error: Score | None = None
    brier: Score | None = None
    calibration_slope: float | None = None
    calibration_intercept: float | None = None
    observed_minus_predicted: Change | None = None
    observed_to_expected: float | None = None
    ci95: CalibrationIntervals = CalibrationIntervals()


class BeforeAfter(Document):
    """Calibration before and after Platt scaling fitted on validation.

    Attributes:
        before: Calibration of the predicted probabilities.
        after: The same after Platt scaling; equal to ``before`` for a label without one.
    """

    before: CalibrationScores
    after: CalibrationScores


class LabelCalibration(BeforeAfter):
    """Calibration of one label, and its Platt scaling: sigmoid(slope * log odds + intercept).

    Attributes:
        slope: Slope of the Platt scaling, above 0; None for a label without one.
        intercept: Intercept of the Platt scaling; None for a label without one.
        reason: Why there is no Platt scaling; None where there is one.
        undefined_reason: Why the scores are undefined; None where they are not.
        no_slope: Why only ``calibration_slope`` is undefined; None where it is not.
    """

    slope: Annotated[float, Gt(0)] | None
    intercept: float | None
    reason: str | None = None
    undefined_reason: str | None = None
    no_slope: str | None = None


class Calibration(Document):
    """How far predicted probabilities are from observed frequencies.

    Attributes:
        labels: The labels behind ``macro``: those with enough patients in the scored split.
        macro: The error over the bins of all these labels together, each label with the same
            weight, and the mean of their Brier scores.
        per_label: Calibration by label name.
    """

    labels: list[str]
    macro: BeforeAfter
    per_label: dict[str, LabelCalibration]


class Spread(Document):
    """One metric over several seeds.

    Attributes:
        mean: Mean; None where a seed's value is undefined.
        sd: Standard deviation with n - 1 in the denominator.
        ci95: 95 % interval of the mean, over seeds and patients.
        values: The value of each seed.
    """

    mean: Score | None
    sd: Score | None
    ci95: Interval | None = None
    values: list[Score | None] = Field(default_factory=list)


class SeedSpread(Document):
    """Means over seeds, by metric name: the metrics to report where there are several seeds.

    Attributes:
        seeds: The seeds.
        learned: The labels that every seed learned: all averages are over these.
        macro: Means over labels.
        supported: Means over the labels with enough patients; None without any. Only of AUROC and
            AUPRC.
        micro: Metrics over pooled entries.
        exact_match: Share of images with every label right.
        hamming_loss: Share of entries that are wrong.
    """

    seeds: list[int]
    learned: list[str]
    macro: dict[str, Spread]
    supported: dict[str, Spread] | None = None
    micro: dict[str, Spread]
    exact_match: Spread
    hamming_loss: Spread


@dataclass(frozen=True)
class Headline:
    """The averages to report: means over seeds where there are several, else the run's own.

    Attributes:
        macro: Means over labels, with their intervals.
        supported: Means over the labels with enough patients, with their intervals; None without
            any.
        micro: Metrics over pooled entries, with their intervals.
        exact_match: Share of images with every label right.
        exact_match_ci: Its interval.
        hamming_loss: Share of entries that are wrong.
        hamming_loss_ci: Its interval.
        labels: The labels behind ``macro``, ``supported`` and ``micro``, by these names.
        n_seeds: Number of seeds.
    """

    macro: DecisionScores
    supported: RankingScores | None
    micro: DecisionScores
    exact_match: float | None
    exact_match_ci: tuple[float, float] | None
    hamming_loss: float | None
    hamming_loss_ci: tuple[float, float] | None
    labels: Mapping[str, Sequence[str]]
    n_seeds: int = 1

    @property
    def note(self) -> str:
        """What they are, such as "mean of 5 seeds"; empty for a single seed."""
        return f"mean of {self.n_seeds} seeds" if self.n_seeds > 1 else ""


def _mean_scores(spreads: Mapping[str, Spread]) -> DecisionScores:
    """Return means over seeds as scores with their intervals."""
    scores = DecisionScores(**{name: spread.mean for name, spread in spreads.items()})
    scores._intervals = DecisionIntervals(**{name: spread.ci95 for name, spread in spreads.items()})
    return scores


def _mean_ranking(spreads: Mapping[str, Spread]) -> RankingScores:
    """Return means over seeds of AUROC and AUPRC with their intervals."""
    scores = RankingScores(auroc=spreads["auroc"].mean, auprc=spreads["auprc"].mean)
    scores._intervals = RankingIntervals(auroc=spreads["auroc"].ci95, auprc=spreads["auprc"].ci95)
    return scores


class Metrics(Scores):
    """All metrics of a run; the content of ``metrics.json``.

    Example:
        >>> import featurecache as fc
        >>> metrics = fc.zero_shot("cache/phantom/tiny.h5").metrics
        >>> 0.9 < metrics.macro.auroc < 1
        True
        >>> low, high = metrics.macro.auroc_ci
        >>> metrics.per_label["Edema"].n_positive > 0
        True

    Attributes:
        ci95: 95 % intervals over patients; also at each score, as in
            ``metrics.macro.auroc_ci``.
        n: Number of images, or studies, scored.
        level: What was scored: "image" or "study".
        n_patients: Number of their patients.
        split: The split that was scored: "test", "val" where there is no test split, or "all".
        macro_labels: The labels behind ``macro``: learned, and with a positive and a negative image
            in the scored split. They are the same for the intervals and the controls.
        supported: Averages over the labels that have enough patients for an interval of their own;
            None without any. Only ``macro`` is defined.
        n_bootstrap: Number of bootstrap samples behind the intervals; 0 for none.
        at_half: The same metrics at a threshold of 0.5 for every label.
        within_abnormal: Averages within the abnormal images, those with at least one finding; None
            where no label has both positives and negatives among them.
        controls: Scores by name that a useful model has to beat: "any_finding", "prevalence",
            "always_negative", "view_only", "shuffled_labels", "random_features", "permuted_texts".
            None where one cannot be made.
        calibration: Calibration before and after Platt scaling; None without a validation split.
        at_prevalence: Predictive values at a stated prevalence, by label; None where none was
            stated.
        delong: DeLong's intervals of the AUROC, beside those in ``ci95``.
        answers: Split-conformal answers: present, absent or unsure.
        classes: How often the predicted class is right, where each image of the data set has
            exactly one of the labels; None for other labels.
        text_gain: What the label texts contribute; None for methods without text.
        familiarity: How familiar the scored images are to the head; None without a trained head, or
            with too few training patients.
        seeds: Means over seeds, the metrics to report; None for a single seed. All other metrics
            are those of the first seed.
        retuned: For external validation, what thresholds chosen on that data set would change.
        negatives: Which negatives each label is scored against: "all", "healthy" or "diseased". For
            some of them, ``exact_match``, ``hamming_loss`` and ``classes`` are undefined.
        subgroups: For external validation, metrics of groups of images by attribute, such as "sex";
            None where none were asked for.
        label_map: For external validation, what each trained label is scored against.
        localization: Whether the maps of a head with attention point at boxes; None without boxes.
        warnings: What a reader of these numbers has to know.
    """

    ci95: ScoreIntervals
    n: Count
    level: Literal["image", "study"] = "image"
    n_patients: Count
    split: str
    macro_labels: list[str]
    supported: RankingSummary | None = None
    n_bootstrap: Count = 0
    at_half: Scores
    within_abnormal: RankingSummary | None = None
    controls: dict[str, Control | None]
    calibration: Calibration | None = None
    at_prevalence: dict[str, PredictiveValues] | None = None
    delong: Delong | None = None
    answers: Answers | None = None
    classes: ClassScores | None = None
    text_gain: TextGain | None = None
    familiarity: FamiliarityScores | None = None
    seeds: SeedSpread | None = None
    retuned: Retuned | None = None
    negatives: Literal["all", "healthy", "diseased"] = "all"
    subgroups: dict[str, Subgroups] | None = None
    label_map: dict[str, LabelMatch] | None = None
    localization: Localization | None = None
    warnings: list[str] = Field(default_factory=list)

    def model_post_init(self, context: Any, /) -> None:
        """Attach each interval to the score that it belongs to.

        Raises:
            ValueError: The intervals, the calibration or the answers are of other labels.
        """
        for section in (self.ci95, self.calibration, self.answers):
            if section is not None and set(section.per_label) != set(self.per_label):
                raise ValueError(
                    "intervals, calibration or answers are of other labels than the metrics"
                )
        self.macro._intervals = self.ci95.macro
        self.micro._intervals = self.ci95.micro
        for label, scores in self.per_label.items():
            scores._intervals = self.ci95.per_label[label]

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced, validated like a new object."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**fields, **changes})

    @property
    def supported_labels(self) -> list[str]:
        """The labels with enough patients for an interval of their own."""
        return [label for label, scores in self.per_label.items() if scores.no_interval is None]

    @property
    def seed_note(self) -> str | None:
        """Which seed all metrics but ``headline`` are of; None for a single one.

        An example is "seed 0 (first of 5)".
        """
        if self.seeds is None:
            return None
        return f"seed {self.seeds.seeds[0]} (first of {len(self.seeds.seeds)})"

    @property
    def headline(self) -> Headline:
        """The averages to report: means over seeds where there are several."""
        learned = [label for label, scores in self.per_label.items() if scores.learned]
        labels = {
            "macro": self.macro_labels,
            "supported": self.supported_labels,
            "micro": learned,
        }
        if self.seeds is None:
            return Headline(
                macro=self.macro,
                supported=None if self.supported is None else self.supported.macro,
                micro=self.micro,
                exact_match=self.exact_match,
                exact_match_ci=self.ci95.exact_match,
                hamming_loss=self.hamming_loss,
                hamming_loss_ci=self.ci95.hamming_loss,
                labels=labels,
            )
        by_all = set(self.seeds.learned)
        return Headline(
            macro=_mean_scores(self.seeds.macro),
            supported=None if self.seeds.supported is None else _mean_ranking(self.seeds.supported),
            micro=_mean_scores(self.seeds.micro),
            exact_match=self.seeds.exact_match.mean,
            exact_match_ci=self.seeds.exact_match.ci95,
            hamming_loss=self.seeds.hamming_loss.mean,
            hamming_loss_ci=self.seeds.hamming_loss.ci95,
            labels={
                average: [label for label in names if label in by_all]
                for average, names in labels.items()
            },
            n_seeds=len(self.seeds.seeds),
        )

    def __repr__(self) -> str:
        """Return the headline metrics with their intervals."""
        headline = self.headline
        scores = ", ".join(
            f"{name.upper()} "
            f"{format_with_interval(getattr(headline.macro, name), headline.macro.interval(name))}"
            for name in ("auroc", "auprc", "f1")
        )
        over = f", {headline.note}" if headline.note else ""
        images = count_scored(self.n, self.split, self.level, self.n_patients)
        labels = count_noun(len(headline.labels["macro"]), "label")
        return f"Metrics(macro over {labels}{over}: {scores}; {images})"

    __str__ = __repr__


def format_with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    """Return a score as text, such as ``"0.813 [0.790, 0.834]"``; "undefined" for None."""
    if value is None:
        return "undefined"
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
