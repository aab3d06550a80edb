"""Cells of labels as a data set states them, and policies that turn them into labels.

Releases such as CheXpert state more than positive and negative: a cell may be uncertain, or blank.
Data sets and caches store the cells; a ``LabelPolicy`` is chosen when labels are used, so that
another one needs no new extraction.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from featurecache.errors import UnknownNameError, UsageError
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POSITIVE: Final = 1
NEGATIVE: Final = 0
UNCERTAIN: Final = -1
BLANK: Final = -2

CELLS: Final[Mapping[str, int]] = {
    "positive": POSITIVE,
    "negative": NEGATIVE,
    "uncertain": UNCERTAIN,
    "blank": BLANK,
}
"""The codes of cells, int8, by name."""

UNKNOWN: Final = -1
"""Label of a cell that a policy resolves neither to positive nor to negative."""

NO_FINDING_WORDS: Final = frozenset({"nofinding", "nofindings", "keinbefund", "ohnebefund", "o.b"})
NORMAL_WORDS: Final = frozenset({"normal", "healthy", "unremarkable", "gesund", "unauffällig"})
"""Words for no finding as ``bare_word`` writes them. Some data sets have the latter as a label."""

_PAPER_POSITIVE: Final = ("Atelectasis", "Edema")

_CHOICES: Final[Mapping[str, Mapping[str, str]]] = {
    "uncertain": {
        "ignore": "unknown",
        "positive": "positive",
        "negative": "negative",
        "paper": f"positive for {' and '.join(_PAPER_POSITIVE)}, else negative",
    },
    "blank": {"unknown": "unknown", "negative": "negative"},
}
"""The values of each field of a policy, and what its cells count as."""


@dataclass(frozen=True, kw_only=True)
class LabelPolicy:
    """What uncertain and blank cells of labels count as.

    Attributes:
        uncertain: "ignore" (unknown), "positive", "negative", or "paper": positive for the labels
            Atelectasis and Edema and negative for all others, as commonly taken from Irvin et al.,
            "CheXpert" (AAAI 2019).
        blank: "unknown" or "negative".

    Raises:
        UnknownNameError: There is no such value.

    Example:
        >>> import featurecache as fc
        >>> cache = fc.open_cache("cache/phantom/tiny.h5")
        >>> cache.with_policy(fc.LabelPolicy(blank="negative")).labels.policy.blank
        'negative'
    """

    uncertain: str = "ignore"
    blank: str = "unknown"

    def __post_init__(self) -> None:
        for field, value in asdict(self).items():
            if value not in _CHOICES[field]:
                raise UnknownNameError(f"label policy `{field}`", value, _CHOICES[field])

    def override(self, **values: str | None) -> "LabelPolicy":
        """Return the policy with other values; None keeps a value.

        Raises:
            UnknownNameError: There is no such value.
        """
        return replace(
            self, **{field: value for field, value in values.items() if value is not None}
        )

    def resolve(self, cells: "NDArray[np.int8]", names: Sequence[str]) -> "NDArray[np.int8]":
        """Return the labels that cells stand for.

        Args:
            cells: (N, C) int8 cells; see ``CELLS``.
            names: The C label names.

        Returns:
            (N, C) int8: 1 positive, 0 negative, -1 unknown. Read-only.
        """
        # Data sets and their policies are listed without it.
        import numpy as np

        if self.uncertain == "paper":
            uncertain = [int(name in _PAPER_POSITIVE) for name in names]
        else:
            uncertain = [CELLS.get(self.uncertain, UNKNOWN)] * len(names)
        blank = NEGATIVE if self.blank == "negative" else UNKNOWN
        labels = np.where(cells == UNCERTAIN, np.array(uncertain, dtype=np.int8), cells)
        labels[cells == BLANK] = blank
        labels.flags.writeable = False
        return labels

    def applied_to(self, cells: "NDArray[np.int8]") -> dict[str, str]:
        """Return the fields that matter for some cells: those that occur, with their values.

        Policies of data sets without uncertain cells do not differ in what these count as.
        """
        return {
            field: value
            for field, value in asdict(self).items()
            if bool((cells == CELLS[field]).any())
        }

    def describe(self, cells: "NDArray[np.int8]") -> str:
        """Return how many cells are uncertain, and how many blank ones are not unknown.

        Returns:
            A line that names the fields in backticks; "" where there are none.
        """
        numbers = {field: int((cells == CELLS[field]).sum()) for field in _CHOICES}
        parts = [
            f"{count_noun(number, f'{field} cell counts', f'{field} cells count')} as "
            f"{_CHOICES[field][getattr(self, field)]} (`{field}` {getattr(self, field)})"
            for field, number in numbers.items()
            if number and (field, self.blank) != ("blank", "unknown")
        ]
        return f"labels: {', '.join(parts)}" if parts else ""


def require_same_policy(
    first: Mapping[str, str], other: Mapping[str, str], *, names: tuple[str, str]
) -> None:
    """Check that two policies do not differ in a field that matters for both.

    Args:
        first: See ``LabelPolicy.applied_to``.
        other: Likewise.
        names: What the two policies are of, for the message.

    Raises:
        UsageError: They differ; the message names the field.
    """
    for field in first:
        if first[field] != other.get(field, first[field]):
            raise UsageError(
                f"{field} cells count differently: `{field}` is {first[field]!r} for {names[0]} "
                f"and {other[field]!r} for {names[1]}. Train and score them under one policy"
            )


def any_of(labels: "NDArray[np.int8]") -> "NDArray[np.int8]":
    """Return the label of a finding whose kinds have labels of their own.

    Args:
        labels: (N, K) labels of the K kinds: 1, 0, or -1 for unknown.

    Returns:
        (N,): 1 where a kind is positive, else -1 where one is unknown, else 0.
    """
    # Data sets and their policies are listed without it.
    import numpy as np

    return np.where((labels == POSITIVE).any(axis=1), POSITIVE, labels.min(axis=1)).astype(np.int8)


def means_no_finding(name: str) -> bool:
    """Return whether a label says that there is nothing to be found, such as "No Finding"."""
    return bare_word(name) in NO_FINDING_WORDS | NORMAL_WORDS


def bare_word(text: str) -> str:
    """Return a text in lower case without spaces, underscores, hyphens and final punctuation."""
    return re.sub(r"[\s_-]+", "", text.casefold()).rstrip(".,;:!")


def count_cells(cells: "NDArray[np.int8]", names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the number of positive, negative, uncertain and blank cells of each label.

    Args:
        cells: (N, C) int8 cells.
        names: The C label names.
    """
    numbers = {kind: (cells == code).sum(axis=0).tolist() for kind, code in CELLS.items()}
    return {name: {kind: numbers[kind][c] for kind in CELLS} for c, name in enumerate(names)}
