"""Cells of labels as a data set states them, and policies that turn them into labels.

Releases state more than positive and negative: a cell may be uncertain, blank, by a model that read
the report, or one that several readers do not agree on. Data sets and caches store the cells; a
``LabelPolicy`` is chosen when labels are used, so that another one needs no new extraction.
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
NEGATIVE_BY_MODEL: Final = 2
POSITIVE_BY_MODEL: Final = 3

CELLS: Final[Mapping[str, int]] = {
    "positive": POSITIVE,
    "negative": NEGATIVE,
    "uncertain": UNCERTAIN,
    "blank": BLANK,
}
"""The codes of cells, int8, by name, where one authority states them."""

MAX_READERS: Final = 10
_DISPUTED: Final = 10
"""A cell that k of n readers state is 10 n + k, where 0 < k < n."""

_VOTES: Final = [(k, n) for n in range(2, MAX_READERS + 1) for k in range(1, n)]

CELLS_BY_STRENGTH: Final = (
    *(BLANK, NEGATIVE_BY_MODEL, NEGATIVE, UNCERTAIN),
    *(_DISPUTED * n + k for k, n in sorted(_VOTES, key=lambda votes: (votes[0] / votes[1], votes))),
    *(POSITIVE_BY_MODEL, POSITIVE),
)
"""All codes of cells, int8, from those that say nothing to those that surely say positive."""
VALID_CELLS: Final = frozenset(CELLS_BY_STRENGTH)

UNKNOWN: Final = -1
"""Label of a cell that a policy resolves neither to positive nor to negative."""

_LABELS: Final = {"positive": POSITIVE, "negative": NEGATIVE}
NO_FINDING_WORDS: Final = frozenset({"nofinding", "nofindings", "keinbefund", "ohnebefund", "o.b"})
NORMAL_WORDS: Final = frozenset({"normal", "healthy", "unremarkable", "gesund", "unauffällig"})
"""Words for no finding as ``bare_word`` writes them. Some data sets have the latter as a label."""

_PAPER_POSITIVE: Final = ("Atelectasis", "Edema")

_CHEXPERT_PARENTS: Final[Mapping[str, str]] = {
    "Pneumonia": "Consolidation",
    "Consolidation": "Lung Opacity",
    "Edema": "Lung Opacity",
    "Atelectasis": "Lung Opacity",
    "Lung Lesion": "Lung Opacity",
    "Cardiomegaly": "Enlarged Cardiomediastinum",
}
"""Labels of CheXpert with those that they are kinds of (Irvin et al. 2019, figure 1), the lowest of
the tree first."""
_CHEXPERT_RENAMED: Final[Mapping[str, str]] = {"Airspace Opacity": "Lung Opacity"}
"""Other names of these labels; this one is that of the radiologist's labels of MIMIC-CXR."""

_CHOICES: Final[Mapping[str, Mapping[str, str]]] = {
    "uncertain": {
        "ignore": "unknown",
        "positive": "positive",
        "negative": "negative",
        "paper": f"positive for {' and '.join(_PAPER_POSITIVE)}, else negative",
    },
    "blank": {"unknown": "unknown", "negative": "negative"},
    "readers": {
        "majority": "positive if a majority of the readers states them, else negative",
        "any": "positive",
    },
    "labels_from": {"all": "stated", "physician": "unknown"},
    "hierarchy": {"none": "", "chexpert": ""},
}
"""The values of each field of a policy, and what its cells count as; readers may be a number."""
_CODES_OF: Final = {
    "uncertain": (UNCERTAIN, UNCERTAIN),
    "blank": (BLANK, BLANK),
    "readers": (_DISPUTED, max(VALID_CELLS)),
    "labels_from": (NEGATIVE_BY_MODEL, POSITIVE_BY_MODEL),
}
"""The first and last code of the cells that each field of a policy decides on."""
_CELLS_OF: Final = {
    "uncertain": ("uncertain cell", "uncertain cells"),
    "blank": ("blank cell", "blank cells"),
    "readers": ("cell on which readers disagree", "cells on which readers disagree"),
    "labels_from": ("cell labeled by a model", "cells labeled by a model"),
}


@dataclass(frozen=True, kw_only=True)
class LabelPolicy:
    """What the cells of labels count as that are neither positive nor negative by one authority.

    Attributes:
        uncertain: "ignore" (unknown), "positive", "negative", or "paper": positive for the labels
            Atelectasis and Edema and negative for all others, as commonly taken from Irvin et al.,
            "CheXpert" (AAAI 2019).
        blank: "unknown" or "negative".
        readers: How many readers have to state a finding where several read an image: "majority",
            "any", or a number. Where there are fewer readers than that, all of them have to.
        labels_from: "all", or "physician": labels that a model read from a report are unknown.
        hierarchy: "none"; or "chexpert": a positive finding makes those that it is a kind of in
            CheXpert's tree positive, too, whatever their cells say. Pneumonia is a kind of
            Consolidation, for example, and that a kind of Lung Opacity.

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
    readers: str = "majority"
    labels_from: str = "all"
    hierarchy: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "readers", str(self.readers))  # as a number, it may be an int
        for field, value in asdict(self).items():
            is_number = field == "readers" and re.fullmatch(r"[1-9]\d?", value)
            if value not in _CHOICES[field] and not is_number:
                choices = [*_CHOICES[field], *(["a number"] if field == "readers" else [])]
                raise UnknownNameError(f"label policy `{field}`", str(value), choices)

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
            cells: (N, C) int8 cells; see ``VALID_CELLS``.
            names: The C label names.

        Returns:
            (N, C) int8: 1 positive, 0 negative, -1 unknown. Read-only.
        """
        # Data sets and their policies are listed without it.
        import numpy as np

        if self.uncertain == "paper":
            uncertain = [int(name in _PAPER_POSITIVE) for name in names]
        else:
            uncertain = [_LABELS.get(self.uncertain, UNKNOWN)] * len(names)
        labels = np.where(cells == UNCERTAIN, np.array(uncertain, dtype=np.int8), cells)
        labels[cells == BLANK] = _LABELS.get(self.blank, UNKNOWN)
        by_model = _of_field(cells, "labels_from")
        stated = cells[by_model] - NEGATIVE_BY_MODEL
        labels[by_model] = stated if self.labels_from == "all" else UNKNOWN
        disputed = _of_field(cells, "readers")
        readers, votes = np.divmod(cells[disputed], _DISPUTED)
        if self.readers == "majority":
            needed = readers // 2 + 1
        else:
            needed = np.minimum(readers, 1 if self.readers == "any" else int(self.readers))
        labels[disputed] = votes >= needed
        if self.hierarchy != "none":
            for child, parent in _parents(names):
                labels[labels[:, child] == POSITIVE, parent] = POSITIVE
        labels.flags.writeable = False
        return labels

    def applied_to(self, cells: "NDArray[np.int8]", names: Sequence[str]) -> dict[str, str]:
        """Return the fields that matter for some cells, with their values.

        Policies of data sets without uncertain cells do not differ in what these count as.

        Args:
            cells: (N, C) int8 cells; see ``VALID_CELLS``.
            names: The C label names.
        """
        applied = {
            field: getattr(self, field)
            for field in _CODES_OF
            if bool(_of_field(cells, field).any())
        }
        return applied | ({"hierarchy": self.hierarchy} if _parents(names) else {})

    def decisions(self, cells: "NDArray[np.int8]") -> dict[str, str]:
        """Return in words what cells count as, by the field that decides on them, if any are there.

        Args:
            cells: (N, C) int8 cells; see ``VALID_CELLS``.

        Returns:
            Phrases that name the fields in backticks, such as "2 blank cells count as unknown
            (`blank` unknown)".
        """
        decisions = {}
        for field in _CODES_OF:
            value = getattr(self, field)
            if number := int(_of_field(cells, field).sum()):
                one, several = _CELLS_OF[field]
                needed = f"positive if {value} of the readers state them, else negative"
                decisions[field] = (
                    f"{count_noun(number, f'{one} counts', f'{several} count')} as "
                    f"{_CHOICES[field].get(value, needed)} (`{field}` {value})"
                )
        return decisions

    def describe(self, cells: "NDArray[np.int8]", names: Sequence[str]) -> str:
        """Return what cells count as that are not simply positive, negative, or blank and unknown.

        Args:
            cells: (N, C) int8 cells; see ``VALID_CELLS``.
            names: The C label names.

        Returns:
            A line that names the fields in backticks; "" where there are none.
        """
        parts = [
            decision
            for field, decision in self.decisions(cells).items()
            if (field, getattr(self, field)) != ("blank", "unknown")
        ]
        if self.hierarchy != "none" and (pairs := _parents(names)):
            implied = ", ".join(f"{names[child]}: {names[parent]}" for child, parent in pairs)
            parts.append(f"positive findings make their parents positive ({implied})")
        return f"labels: {', '.join(parts)}" if parts else ""


def _parents(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the indices of labels and of their nearest ancestors in CheXpert's tree."""
    index = {bare_word(name): position for position, name in enumerate(names)}
    for other, name in _CHEXPERT_RENAMED.items():
        if bare_word(other) in index:
            index.setdefault(bare_word(name), index[bare_word(other)])
    parent_of = {bare_word(child): bare_word(parent) for child, parent in _CHEXPERT_PARENTS.items()}
    pairs = []
    for child, parent in parent_of.items():
        ancestor: str | None = parent
        while ancestor is not None and ancestor not in index:
            ancestor = parent_of.get(ancestor)
        if child in index and ancestor is not None:
            pairs.append((index[child], index[ancestor]))
    return pairs


def _of_field(cells: "NDArray[np.int8]", field: str) -> "NDArray[np.bool_]":
    """Return which cells a field of a policy decides on."""
    low, high = _CODES_OF[field]
    return (cells >= low) & (cells <= high)


def cells_of_votes(
    votes: "NDArray[np.integer]", readers: "NDArray[np.integer]"
) -> "NDArray[np.int8]":
    """Return the cells that several readers state.

    Args:
        votes: (N, C) number of readers that state a finding.
        readers: (N,) number of readers of each image, at most ``MAX_READERS``.

    Returns:
        (N, C) int8: negative or positive where all agree, else the number of readers and votes.

    Raises:
        ValueError: There are more readers.
    """
    import numpy as np

    of = readers[:, np.newaxis]
    if (of > MAX_READERS).any() or (votes > of).any():
        raise ValueError(f"at most {MAX_READERS} readers can be counted, not {of.max()}")
    agreed = np.where(votes == of, POSITIVE, NEGATIVE)
    disputed = (votes > 0) & (votes < of)
    return np.where(disputed, _DISPUTED * of + votes, agreed).astype(np.int8)


def require_same_policy(
    first: Mapping[str, str], other: Mapping[str, str], *, names: tuple[str, str]
) -> None:
    """Check that two policies do not differ in a field that matters for both.

    Args:
        first: See ``LabelPolicy.applied_to``.
        other: Likewise.
        names: What the two policies are of, for the message.

    Raises:
        UsageError: They differ; the message names the field, and the value of ``first`` to give.
    """
    for field in first:
        if first[field] != other.get(field, first[field]):
            raise UsageError(
                f"labels follow different policies: `{field}` is {first[field]!r} for {names[0]} "
                f"and {other[field]!r} for {names[1]}. Train and score them under one policy: "
                f"open the cache with `{field}` {first[field]}"
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


def names_of_codes(cells: "NDArray[np.int8]") -> dict[str, int]:
    """Return the codes of cells by name: ``CELLS``, and all others that occur."""
    import numpy as np

    names = {NEGATIVE_BY_MODEL: "negative by a model", POSITIVE_BY_MODEL: "positive by a model"}
    names |= {_DISPUTED * n + k: f"positive by {k} of {n} readers" for k, n in _VOTES}
    return {**CELLS, **{names[code]: code for code in np.unique(cells).tolist() if code in names}}


def count_cells(cells: "NDArray[np.int8]", names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the number of positive, negative, uncertain and blank cells of each label.

    Those of models are counted with the others. If readers disagree on any, ``disputed`` ones are
    counted, too.

    Args:
        cells: (N, C) int8 cells.
        names: The C label names.
    """
    of_kind = {
        "positive": (cells == POSITIVE) | (cells == POSITIVE_BY_MODEL),
        "negative": (cells == NEGATIVE) | (cells == NEGATIVE_BY_MODEL),
        "uncertain": cells == UNCERTAIN,
        "blank": cells == BLANK,
        "disputed": cells >= _DISPUTED,
    }
    if not of_kind["disputed"].any():
        del of_kind["disputed"]
    numbers = {kind: which.sum(axis=0).tolist() for kind, which in of_kind.items()}
    return {name: {kind: numbers[kind][c] for kind in numbers} for c, name in enumerate(names)}
