"""Decision thresholds, chosen on validation images and never on the images that are scored."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UnknownNameError, UsageError
from featurecache.metrics.ranking import AnyFloats, Floats, Labels, valid_mask

_RULES: Final[Mapping[str, str]] = {
    "f1": "the best F1",
    "youden": "the highest sum of sensitivity and specificity",
    "sensitivity": "a sensitivity of at least",
    "specificity": "a specificity of at least",
}


@dataclass(frozen=True)
class OperatingPoint:
    """The rule by which thresholds are chosen on validation images.

    Attributes:
        rule: "f1" for the highest F1, "youden" for the highest sum of sensitivity and specificity
            (Youden 1950), "sensitivity" for the highest threshold that reaches a sensitivity, or
            "specificity" for the lowest one that reaches a specificity.
        target: The sensitivity or specificity to reach, above 0 and at most 1; None for the other
            rules.
    """

    rule: str
    target: float | None = None

    @classmethod
    def parse(cls, text: "str | OperatingPoint") -> "OperatingPoint":
        """Return the operating point that a text names.

        Args:
            text: "f1", "youden", "sensitivity=NUMBER" or "specificity=NUMBER".

        Raises:
            UnknownNameError: There is no such rule.
            UsageError: The number is missing, or not above 0 and at most 1.
        """
        if isinstance(text, OperatingPoint):
            return text
        rule, equals, number = text.partition("=")
        if rule not in _RULES:
            raise UnknownNameError("operating point", rule, _RULES)
        if rule in ("f1", "youden"):
            if equals:
                raise UsageError(f"`operating_point` is {text!r}: {rule} takes no number")
            return cls(rule)
        try:
            target = float(number)
        except ValueError:
            target = math.nan
        if not 0 < target <= 1:
            raise UsageError(
                f"`operating_point` is {text!r}: give the {rule} to reach, such as {rule}=0.9"
            )
        return cls(rule, target)

    def __str__(self) -> str:
        return self.rule if self.target is None else f"{self.rule}={self.target:g}"

    @property
    def description(self) -> str:
        """What the thresholds have on validation, such as "the best F1"."""
        return _RULES[self.rule] + ("" if self.target is None else f" {self.target:g}")


F1: Final = OperatingPoint("f1")

NOT_CHOSEN: Final = "default of 0.5, as none could be chosen"
"""The source of a threshold for which the rule found no images."""


@dataclass(frozen=True)
class ChosenThresholds:
    """The thresholds of C labels.

    Attributes:
        values: (C,) thresholds in 0 to 1; NaN for a label without the images that its rule needs.
        unreached: By label index, why a threshold is of no use although it is the best there is.
    """

    values: Floats
    unreached: Mapping[int, str]

    @classmethod
    def none(cls, n_labels: int) -> Self:
        """Return no thresholds."""
        return cls(np.full(n_labels, np.nan), {})


def choose_thresholds(
    truth: Labels, probability: AnyFloats, point: OperatingPoint = F1
) -> ChosenThresholds:
    """Choose the threshold of each label by a rule.

    Decisions are ``probability >= threshold``. A threshold lies midway between two adjacent scores
    (0 is adjacent to the lowest one, 1 to the highest), so that it does not depend on a single
    image. Among thresholds that are equally good the highest is chosen: the fewest false positives.
    Takes O(N log N) per label.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
        probability: (N, C) in 0 to 1.
        point: The rule. All need positives, "specificity" and "youden" negatives, too.

    Returns:
        The thresholds.

    Raises:
        ValueError: A probability lies outside 0 to 1, or as ``valid_mask``.
    """
    valid = valid_mask(truth, probability)
    if probability.size and (probability.min() < 0 or probability.max() > 1):
        raise ValueError(
            f"probabilities must lie in 0 to 1, but range from {probability.min()} to "
            f"{probability.max()}"
        )
    values, unreached = np.full(truth.shape[1], np.nan), {}
    for c, mask in enumerate(valid.T):
        ranking = _Ranking.of(truth[mask, c] == 1, probability[mask, c].astype(np.float64))
        if ranking.lacks(point):
            continue
        n_levels = ranking.choose(point)
        values[c] = ranking.threshold(n_levels)
        if reason := ranking.why_useless(point, n_levels):
            unreached[c] = reason
    return ChosenThresholds(values, unreached)


@dataclass(frozen=True)
class _Ranking:
    """The K distinct scores of a label, from the highest down.

    Attributes:
        scores: (K,) scores.
        tp: (K,) positives with this score or a higher one.
        fp: (K,) negatives with this score or a higher one.
        n_positive: Number of positives.
        n_negative: Number of negatives.
    """

    scores: Floats
    tp: NDArray[np.intp]
    fp: NDArray[np.intp]
    n_positive: int
    n_negative: int

    @classmethod
    def of(cls, positive: NDArray[np.bool_], p: Floats) -> Self:
        distinct, ascending = np.unique(p, return_inverse=True)
        level = len(distinct) - 1 - ascending
        tp, fp = (
            np.cumsum(np.bincount(level[rows], minlength=len(distinct)))
            for rows in (positive, ~positive)
        )
        return cls(distinct[::-1], tp, fp, int(positive.sum()), int((~positive).sum()))

    def lacks(self, point: OperatingPoint) -> bool:
        """Return whether there are no images that the rule needs."""
        needs_negatives = point.rule in ("specificity", "youden")
        return not self.n_positive or (needs_negatives and not self.n_negative)

    def choose(self, point: OperatingPoint) -> int:
        """Return how many of the scores, from the highest down, are called positive."""
        # argmax returns the first of several maxima, which is the highest threshold.
        if point.rule == "f1":
            return int(np.argmax(2 * self.tp / (self.tp + self.fp + self.n_positive))) + 1
        if point.rule == "youden":  # in whole numbers, of which equal ones are equal
            return int(np.argmax(self.tp * self.n_negative - self.fp * self.n_positive)) + 1
        target = point.target or 0.0
        if point.rule == "sensitivity":
            return int(np.argmax(self.tp / self.n_positive >= target)) + 1
        n_levels = int(((self.n_negative - self.fp) / self.n_negative >= target).sum())
        # Where one more score brings no more positives, it brings only false ones.
        found = np.concatenate([[0], self.tp[:n_levels]])
        return int(np.searchsorted(found, found[-1]))

    def threshold(self, n_levels: int) -> float:
        """Return the threshold at which the highest scores are called positive."""
        bounds = np.concatenate([[1.0], self.scores, [0.0]])
        upper, lower = bounds[n_levels], bounds[n_levels + 1]
        middle = lower + (upper - lower) / 2
        # Adjacent floats have no value in between, and rounding down would include the lower score.
        return float(middle if middle > lower else upper)

    def why_useless(self, point: OperatingPoint, n_levels: int) -> str:
        """Return why a target is not reached, or only by calling all images alike."""
        if point.rule == "sensitivity" and n_levels == len(self.scores) and self.n_negative:
            return "is reached only by calling every image positive"
        if point.rule != "specificity":
            return ""
        if not n_levels and self.threshold(0) <= self.scores[0]:
            return "cannot be reached, because too many negatives have a probability of 1"
        if not n_levels:
            return "is reached only without finding a single positive"
        return ""
