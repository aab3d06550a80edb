"""What the cells of a table mean: labels, ages, sexes and views, however they are written.

Each function returns the values and notes that say what was assumed, with counts.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.dataset import MAX_AGE
from featurecache.errors import DatasetError, UsageError
from featurecache.label_cells import BLANK, CELLS, NEGATIVE, POSITIVE, UNCERTAIN
from featurecache.views import normalize_view

if TYPE_CHECKING:
    import pandas as pd

_MAX_SHOWN: Final = 80

MISSING: Final = frozenset(
    {"", "nan", "na", "n/a", "<na>", "nat", "null", "none"}
    | {"#n/a", "#ref!", "#value!", "#div/0!", "#name?", "#num!", "#null!"}  # Excel's errors
)
"""What programs write into cells without a value, in lower case."""

BLANKS: Final = MISSING | {"unknown", "unk", "not available", "missing", "unbekannt", "k.a.", "?"}
"""Cells without a value, in lower case."""

_PLAIN: Final = frozenset({"1", "0", "-1", "1.0", "0.0", "-1.0", ""})
"""Label cells whose meaning needs no note."""

_POSITIVE: Final = frozenset(
    {"true", "yes", "y", "t", "positive", "pos", "present", "wahr", "ja", "j", "positiv"}
)
_NEGATIVE: Final = frozenset(
    {"false", "no", "n", "f", "negative", "neg", "absent", "falsch", "nein", "negativ"}
)
_UNCERTAIN: Final = frozenset(
    {"uncertain", "u", "unsure", "unclear", "equivocal", "indeterminate", "inconclusive"}
    | {"unklar", "unsicher", "fraglich"}
)

_CODES: Final = {code: name for name, code in CELLS.items()}

_SEXES: Final = {
    **dict.fromkeys(("m", "male", "man", "boy", "mann", "männlich", "maennlich"), "M"),
    **dict.fromkeys(("f", "female", "woman", "girl", "w", "frau", "weiblich"), "F"),
    **dict.fromkeys(("o", "other", "x", "d", "divers", "diverse", "non-binary"), "O"),
}

_UNITS_PER_YEAR: Final = {
    **dict.fromkeys(
        ("", "y", "yr", "yrs", "year", "years", "yo", "y/o", "j", "jahr", "jahre"), 1.0
    ),
    **dict.fromkeys(("m", "mo", "mos", "mon", "month", "months", "monat", "monate"), 12.0),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks", "woche", "wochen"), 365.25 / 7),
    **dict.fromkeys(("d", "day", "days", "tag", "tage"), 365.25),
}

_AGE: Final = re.compile(
    r"(?P<more>>=?|≥|over\b|above\b|at least\b|über\b)? ?(?P<number>\d{1,4}(?:[.,]\d{1,9})?) ?"
    rf"(?P<unit>{'|'.join(sorted(_UNITS_PER_YEAR, reverse=True))})\.? ?(?:old|alt)? ?"
    r"(?P<older>\+|plus|(?:or|and|oder|und) (?:more|older|over|above|up|älter|mehr))?"
)


def is_blank(cells: "pd.Series[str]") -> NDArray[np.bool_]:
    """Return whether each of N cells has no value, such as "", "nan" or "Unknown"."""
    return cells.str.strip().str.casefold().isin(list(BLANKS)).to_numpy(dtype=bool)


def read_labels(
    table: "pd.DataFrame",
    *,
    file: Path,
    positive: Collection[str] = (),
    negative: Collection[str] = (),
    hint: str = "",
) -> tuple[NDArray[np.int8], list[str]]:
    """Read N rows and C columns of one label each.

    Args:
        table: (N, C) text, indexed by line of the file.
        file: The file, for error messages.
        positive: Words for positive, besides 1, yes, true and so on; they come before all others.
        negative: Words for negative.
        hint: What to do about another value, for messages; by default how to read it otherwise.

    Returns:
        (N, C) int8 cells: 1 positive, 0 negative, -1 uncertain, -2 blank; and notes.

    Raises:
        UsageError: If a word is both positive and negative.
        DatasetError: If a cell has another value.
    """
    import pandas as pd

    own = {word.strip().casefold(): POSITIVE for word in positive}
    for word in negative:
        if own.setdefault(word.strip().casefold(), NEGATIVE):
            raise UsageError(f"the word {word!r} is both in `positive` and in `negative`")
    values = np.empty(table.shape, dtype=np.int8)
    readings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    only_positive: list[str] = []
    for position, name in enumerate(table.columns):
        codes, texts = pd.factorize(table.iloc[:, position])
        meanings = [_label(text, own) for text in texts]
        counts = np.bincount(codes, minlength=len(texts)).tolist()
        for code, (text, meaning, count) in enumerate(zip(texts, meanings, counts, strict=True)):
            if meaning is None:
                line = table.index[int(np.argmax(codes == code))]
                raise DatasetError(
                    f"{file}, line {line}: {text!r} in the column {name!r} is not a valid label "
                    "value. Use 1, 0, -1 or empty; "
                    f"{hint or _advice(texts.tolist(), meanings, name)}"
                )
            readings[_CODES[meaning]][text] += count
        values[:, position] = np.array(meanings, dtype=np.int8)[codes]
        if POSITIVE in meanings and NEGATIVE not in meanings and BLANK in meanings:
            only_positive.append(name)
    notes = []
    if any(text not in _PLAIN for counter in readings.values() for text in counter):
        notes.append(f"Label cells: {_describe_readings(readings)}.")
    if only_positive:
        notes.append(
            f"No image is negative for {list_some(only_positive)}: other cells are blank. If "
            "they mean that there is no finding, give their words, or '' for empty cells, as "
            "`negative`."
        )
    return values, notes


def are_label_cells(texts: Iterable[str]) -> bool:
    """Return whether cells are read as labels, one of them as positive or negative."""
    meanings = {_label(text, {}) for text in texts}
    return None not in meanings and not meanings.isdisjoint({POSITIVE, NEGATIVE})


def _label(text: str, own: Mapping[str, int]) -> int | None:
    word = text.casefold()
    if word in own:
        return own[word]
    for words, cell in (
        (_POSITIVE, POSITIVE),
        (_NEGATIVE, NEGATIVE),
        (_UNCERTAIN, UNCERTAIN),
        (BLANKS, BLANK),
    ):
        if word in words:
            return cell
    try:
        number = float(word.replace(",", "."))
    except ValueError:
        return None
    return int(number) if number in (POSITIVE, NEGATIVE, UNCERTAIN) else None


def _advice(texts: Sequence[str], meanings: Sequence[int | None], column: str) -> str:
    """Return how to read a column whose cells are no label values."""
    unread = [text for text, meaning in zip(texts, meanings, strict=True) if meaning is None]
    if all(re.fullmatch(r"\d{1,3}(\.0+)?", text) for text in unread):
        return f"for one label per class, give the column {column!r} as `classes`"
    return (
        f"give the words that mean yes and no as `positive` and `negative`; for one label per "
        f"class, the column {column!r} as `classes`; for names of findings, as `multilabel`"
    )


def read_ages(cells: "pd.Series[str]") -> "tuple[pd.Series[str], list[str]]":
    """Read N ages such as 58, 058Y, 18M (months), 6W, 90+, "85 or more" and 58,5.

    Args:
        cells: (N,) text.

    Returns:
        (N,) ages in years, as text, "" where unknown; and notes.

    Raises:
        DatasetError: If there are values, but none is an age.
    """
    return _read_values(cells, _age, "age", "a number of years such as 58, or 18M for months")


def _age(text: str) -> tuple[str, str]:
    if (match := _AGE.fullmatch(" ".join(text.split()))) is None:
        return "", ""
    years = float(match["number"].replace(",", ".")) / _UNITS_PER_YEAR[match["unit"]]
    if years > MAX_AGE:
        return "", ""
    value = str(int(years)) if years.is_integer() else f"{years:.2f}".rstrip("0").rstrip(".")
    if match["more"] or match["older"]:
        return value, "the lower limit"
    return value, "" if _UNITS_PER_YEAR[match["unit"]] == 1 else "months, weeks or days"


def read_sexes(cells: "pd.Series[str]") -> "tuple[pd.Series[str], list[str]]":
    """Read N sexes such as F, male and w.

    Args:
        cells: (N,) text.

    Returns:
        (N,) of "M", "F", "O" (other) and "" where unknown; and notes.

    Raises:
        DatasetError: If there are values, but none is a sex.
    """
    return _read_values(cells, lambda text: _same(_SEXES.get(text, "")), "sex", "M, F or O")


def read_views(cells: "pd.Series[str]") -> "tuple[pd.Series[str], list[str]]":
    """Read N views such as PA, pa and Postero-anterior.

    Args:
        cells: (N,) text.

    Returns:
        (N,) views as ``views.normalize_view`` spells them, "" where unknown; and notes.
    """
    return _read_values(cells, lambda text: _same(normalize_view(text)), "view", "")


def _same(value: str) -> tuple[str, str]:
    return value, value


def _read_values(
    cells: "pd.Series[str]", parse: Callable[[str], tuple[str, str]], what: str, valid: str
) -> "tuple[pd.Series[str], list[str]]":
    """Translate cells to one spelling, and describe what was not spelled so.

    Args:
        cells: (N,) text.
        parse: Function of a cell in lower case that returns its value, "" if it has none, and the
            reading it is reported as, "" if it is not reported.
        what: What the cells are.
        valid: Advice if none of the cells can be read.
    """
    import pandas as pd

    codes, texts = pd.factorize(cells)
    parsed = [("", "") if text.casefold() in BLANKS else parse(text.casefold()) for text in texts]
    counts = np.bincount(codes, minlength=len(texts)).tolist()
    readings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for text, (value, reading), count in zip(texts, parsed, counts, strict=True):
        if text and not value:
            readings["unknown"][text] += count
        elif reading and text != value:
            readings[reading][text] += count
    if valid and not any(value for value, _ in parsed) and not all(is_blank(pd.Series(texts))):
        raise DatasetError(
            f"no cell of the column {cells.name!r} is a valid {what}: it has "
            f"{describe_counts(readings['unknown'])}. Use {valid}, or leave out `{what}`"
        )
    values = np.array([value for value, _ in parsed], dtype=object)[codes]
    notes = []
    if readings:
        notes.append(f"The {what} in the column {cells.name!r}: {_describe_readings(readings)}.")
    return pd.Series(values, cells.index, name=cells.name, dtype=str), notes


def _describe_readings(readings: Mapping[str, "Counter[str]"]) -> str:
    return "; ".join(
        f"{describe_counts(readings[reading])} read as {reading}" for reading in sorted(readings)
    )


def describe_counts(counts: "Counter[str]", *, most: int = 8) -> str:
    """Return the most frequent texts with their counts, such as "'PA' (12), 'pa' (3)"."""
    shown = [f"{_shorten(text)!r} ({count:,})" for text, count in counts.most_common(most)]
    return list_some(shown, most=most, total=len(counts))


def _shorten(text: str) -> str:
    """Cut a text that is longer than any label: a stranger's cell may have a million characters."""
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def list_some(texts: Sequence[str], *, most: int = 8, total: int | None = None) -> str:
    """Join the first texts by commas, and say how many more there are."""
    total = len(texts) if total is None else total
    return ", ".join(texts[:most]) + (f" and {total - most:,} more" if total > most else "")
