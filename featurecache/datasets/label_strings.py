"""Parse columns of label names, such as ``Effusion|Mass``, into a label matrix."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.cell_values import BLANKS, MISSING, describe_counts
from featurecache.errors import DatasetError, UnknownNameError
from featurecache.label_cells import BLANK, NO_FINDING_WORDS, NORMAL_WORDS, bare_word

if TYPE_CHECKING:
    import pandas as pd

NO_FINDING: Final = "No Finding"

MAX_LABELS: Final = 1000
"""More than that are free text, not labels."""

_SEPARATORS: Final = ("|", ";", "\n", ",")
"""Separators that are detected. Only commas are also common within names."""
_RARE_SEPARATORS: Final = ("/", "+", "&")
"""Separators that are detected where every name that they join also stands alone."""

_LIST: Final = re.compile(
    r"\[.*\]|\{.*\}|set\(\)|\( *\)|\( *(?P<quote>['\"]).*(?P=quote) *,? *\)", re.DOTALL
)
"""A list, a set or a tuple of Python, or an array of PostgreSQL. ``(left) opacity`` is a name."""
_LIST_ENTRY: Final = re.compile(
    r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|([^\s,'\"\[\]][^,'\"\[\]]*)"
)
"""An entry in quotes, or without: ``nan`` of pandas, or all names of other programs."""

_Split = Callable[[str], list[str]]


def label_matrix(
    cells: "pd.Series[str]",
    names: Sequence[str] | None = None,
    *,
    file: Path,
    separator: str | None = None,
) -> tuple[tuple[str, ...], NDArray[np.int8], list[str]]:
    """Parse cells such as ``Effusion|Mass`` or ``['Effusion', 'Mass']`` into a label matrix.

    ``No Finding``, ``nan``, ``None`` and the empty cell stand for no positive label, and so do
    ``Normal`` and ``Healthy`` where they never stand beside another label. Labels that differ only
    in case are one.

    Args:
        cells: (N,) text, indexed by line of the file.
        names: Valid labels; None uses those that occur, sorted.
        file: The file, for error messages.
        separator: What joins the labels of a cell; by default ``|``, ``;``, ``,`` and the text of
            a Python list, set or tuple are detected, and ``/``, ``+`` and ``&`` where every name
            that they join also stands alone.

    Returns:
        The C names, (N, C) int8 of 1 and 0, and notes.

    Raises:
        DatasetError: If the separator is ambiguous, there are no labels or too many, or a cell has
            an unknown label, or ``No Finding`` beside another.
    """
    import pandas as pd

    # 100,000 rows have a few hundred distinct combinations, so parse each once.
    codes, texts = pd.factorize(cells)
    counts = np.bincount(codes, minlength=len(texts)).tolist()
    where = f"the column {cells.name!r} of {file}"
    if separator is None:
        separator, split = _detect_split(dict(zip(texts, counts, strict=True)), where)
    else:
        split = _split_by(separator)
    combinations: list[list[str]] = []
    for code, text in enumerate(texts):
        location = f"{file}, line {cells.index[int(np.argmax(codes == code))]}"
        combinations.append(_findings(split(text), text, location))

    occurrences: Counter[str] = Counter()
    read_as_none: Counter[str] = Counter()
    for text, labels, count in zip(texts, combinations, counts, strict=True):
        occurrences.update(dict.fromkeys(labels, count))
        if bare_word(text) in NO_FINDING_WORDS and text.casefold() != NO_FINDING.casefold():
            read_as_none[text] += count
    notes = []
    if read_as_none:
        notes.append(f"Read as no finding: {describe_counts(read_as_none)}.")
    if names is None:
        spelling = _one_spelling(occurrences)
        if len(spelling) < len(occurrences):
            others = Counter({n: c for n, c in occurrences.items() if n != spelling[n.casefold()]})
            notes.append(
                f"Labels that differ only in case are one: {describe_counts(others)} are "
                f"{', '.join(sorted({repr(spelling[name.casefold()]) for name in others}))}."
            )
        if normal := _normal_words(combinations, spelling):
            described = Counter({n: c for n, c in occurrences.items() if n.casefold() in normal})
            notes.append(
                f"Read as no finding, because no other label is ever in the same cell of the "
                f"column {cells.name!r}: {describe_counts(described)}. For labels of their own, "
                "give the column as `classes`."
            )
            spelling = {key: name for key, name in spelling.items() if key not in normal}
            combinations = [
                [n for n in found if n.casefold() in spelling] for found in combinations
            ]
        names = sorted(spelling.values())
        if not names:
            raise DatasetError(f"{where} has no labels: check the column")
        if len(names) > MAX_LABELS:
            raise DatasetError(
                f"{where} has {len(names):,} different labels, more than {MAX_LABELS:,}: is it the "
                "column of findings, and joined by the `label_separator`?"
            )
    spelling = {name.casefold(): name for name in names}
    positions = {name: position for position, name in enumerate(names)}
    matrix = np.zeros((len(texts), len(names)), dtype=np.int8)
    for code, labels in enumerate(combinations):
        for label in labels:
            if label.casefold() not in spelling:
                location = f"{file}, line {cells.index[int(np.argmax(codes == code))]}"
                raise DatasetError(f"{location}: {UnknownNameError('finding', label, names)}")
            matrix[code, positions[spelling[label.casefold()]]] = 1
    values = matrix[codes]
    totals = Counter(dict(zip(names, values.sum(axis=0, dtype=int).tolist(), strict=True)))
    notes.insert(
        0,
        f"Labels in the column {cells.name!r}{_describe(separator)}: "
        f"{describe_counts(totals, most=30)}; without a finding "
        f"({int((values == 0).all(axis=1).sum()):,}).",
    )
    return tuple(names), values, notes


def class_matrix(
    cells: "pd.Series[str]", *, file: Path
) -> tuple[tuple[str, ...], NDArray[np.int8], list[str]]:
    """Make one label of each class that a column of classes names.

    Args:
        cells: (N,) text, one class each, in any case; unknown where blank.
        file: The file, for error messages.

    Returns:
        The C names, sorted; numbers get the name of the column in front. (N, C) int8 of 1 and 0,
        and -2 (blank) in the rows of unknown classes. Notes.

    Raises:
        DatasetError: If there are fewer than two classes, or too many.
    """
    import pandas as pd

    # A column of numbers with empty cells is often exported as 1.0.
    cells = cells.str.replace(r"^(-?\d+)[.,]0+$", r"\1", regex=True)
    occurrences = Counter(cells.tolist())
    n_unknown = sum(c for text, c in occurrences.items() if text.casefold() in BLANKS)
    classes = Counter({t: c for t, c in occurrences.items() if t.casefold() not in BLANKS})
    spelling = _one_spelling(classes)
    where = f"the column {cells.name!r} of {file}"
    if len(spelling) < 2:
        raise DatasetError(
            f"{where} has {len(spelling)} classes: it needs at least two, "
            f"{describe_counts(occurrences)}"
        )
    if len(spelling) > MAX_LABELS:
        raise DatasetError(
            f"{where} has {len(spelling):,} different classes, more than {MAX_LABELS:,}: is it the "
            "right column?"
        )
    numbers = all(re.fullmatch(r"-?\d+([.,]\d+)?", key) for key in spelling)
    order = sorted(spelling, key=(lambda key: float(key.replace(",", "."))) if numbers else None)
    codes, keys = pd.factorize(cells.str.casefold())
    positions = {key: position for position, key in enumerate(order)}
    class_of = np.array([positions.get(key, -1) for key in keys])[codes]
    values = (class_of[:, None] == np.arange(len(order))).astype(np.int8)
    values[class_of < 0] = BLANK
    names = [f"{cells.name} {spelling[key]}" if numbers else spelling[key] for key in order]
    totals = Counter(dict(zip(names, (values == 1).sum(axis=0).tolist(), strict=True)))
    notes = [f"Classes in the column {cells.name!r}: {describe_counts(totals, most=30)}."]
    if n_unknown:
        notes.append(f"{n_unknown:,} images have no class; their labels are unknown.")
    return tuple(names), values, notes


def _detect_split(counts: dict[str, int], where: str) -> tuple[str, _Split]:
    """Return what joins the labels of the cells, and how to split them.

    Args:
        counts: Number of rows of each text.
        where: The column, for the error message.
    """
    texts = [text for text in counts if not _is_none(text)]
    if texts and all(_LIST.fullmatch(text) for text in texts):
        return "list", split_list
    present = [separator for separator in _SEPARATORS if any(separator in text for text in texts)]
    alone = {text.casefold() for text in texts}
    if not present:
        for separator in _RARE_SEPARATORS:
            if any(separator in text for text in texts) and alone.issuperset(
                name.casefold() for text in texts for name in _split_by(separator)(text)
            ):
                return separator, _split_by(separator)
        return "", _split_by("|")
    separator, *weaker = present
    names = {name.casefold() for text in texts for name in _split_by(separator)(text)}
    # A comma may be part of a name; not if what it separates also occurs as a label by itself.
    if separator == "," and not names <= alone:
        _ask(counts, ("|", ","), where)
    for other in weaker:
        compound = [name for name in names if other in name]
        # Commas are common within names; what is joined by other separators is several labels.
        if (compound and other != ",") or any(
            names.issuperset(_split_by(other)(name)) for name in compound
        ):
            _ask(counts, (separator, other), where)
    return separator, _split_by(separator)


def _ask(counts: dict[str, int], separators: Sequence[str], where: str) -> None:
    """Raise an error that shows the labels by each separator."""
    readings = []
    for separator in separators:
        labels: Counter[str] = Counter()
        for text, count in counts.items():
            if not _is_none(text):
                labels.update(dict.fromkeys(_split_by(separator)(text), count))
        readings.append(
            f"{separator!r} gives {len(labels)} labels, {describe_counts(labels, most=5)}"
        )
    raise DatasetError(
        f"{where} can be read in two ways: {'; '.join(readings)}. Give the `label_separator`, or "
        "the column as `classes` if each cell is one label"
    )


def _split_by(separator: str) -> _Split:
    return lambda text: [part for part in map(str.strip, text.split(separator)) if part]


def split_list(text: str) -> list[str]:
    """Return the names in the text of a list, such as ``['Effusion', ' Mass']``."""
    inside = "" if text == "set()" else text[1:-1]
    entries = ("".join(groups).strip() for groups in _LIST_ENTRY.findall(inside))
    return [entry for entry in entries if entry]


def _describe(separator: str) -> str:
    if separator in ("", "list"):
        return ", written as lists" if separator else ""
    return f", joined by {separator!r}"


def _findings(labels: Sequence[str], text: str, location: str) -> list[str]:
    """Return the labels without the words for no finding."""
    labels = [label for label in labels if label.casefold() not in MISSING]
    findings = [label for label in labels if bare_word(label) not in NO_FINDING_WORDS]
    if findings and len(findings) < len(labels):
        raise DatasetError(
            f"{location}: {NO_FINDING!r} together with a finding, {text!r}. Keep one of the two"
        )
    return findings


def _one_spelling(occurrences: "Counter[str]") -> dict[str, str]:
    """Return the most frequent spelling of each name, by the name in lower case."""
    spelling: dict[str, str] = {}
    for name, _ in sorted(occurrences.items(), key=lambda entry: (-entry[1], entry[0])):
        spelling.setdefault(name.casefold(), name)
    return spelling


def _normal_words(combinations: Sequence[Sequence[str]], spelling: dict[str, str]) -> set[str]:
    """Return the words for normal, in lower case, if they stand beside no label but are not all."""
    words = {key for key in spelling if bare_word(key) in NORMAL_WORDS}
    beside = any(
        len(labels) > 1 and not words.isdisjoint(map(str.casefold, labels))
        for labels in combinations
    )
    return set() if beside or len(words) == len(spelling) else words


def _is_none(text: str) -> bool:
    return text.casefold() in MISSING or bare_word(text) in NO_FINDING_WORDS
