"""Groups of images by sex, age, view, or columns of a table."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.cell_values import is_blank
from featurecache.datasets.table_reader import open_table
from featurecache.errors import UsageError
from featurecache.store.cache import Cache
from featurecache.store.records import from_utf8
from featurecache.wording import count_noun, pluralize

if TYPE_CHECKING:
    import pandas as pd

    TableLike = str | os.PathLike[str] | pd.DataFrame

_OF_IMAGES: Final = ("sex", "age", "view")
_MAX_GROUPS: Final = 20
"""More values than this are no groups."""
_MAX_CODES: Final = 5
"""More whole numbers than this are measurements, and no codes of a few groups."""


@dataclass(frozen=True)
class Attribute:
    """What images are grouped by.

    Attributes:
        name: "sex", "age", "view", or a column of a table.
        edges: Ascending edges of bins, each with its lower edge and without its upper one; the
            first may be minus infinity and the last infinity. Empty to group by values.
    """

    name: str
    edges: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Attribute":
        """Return the attribute that a text such as "sex" or "age:0-18-40-65-" describes.

        Raises:
            UsageError: It does not describe one.
        """
        name, colon, bins = text.strip().partition(":")
        if not name:
            raise UsageError(f"`by` has an empty name in {text!r}: give sex, age, view or a column")
        if not colon:
            if name == "age":
                raise UsageError("`by` age needs bins: give them as in age:0-18-40-65-")
            return cls(name)
        parts = bins.split("-")
        try:
            edges = [float(part) for part in parts if part]
        except ValueError:
            edges = []
        # Only the first and the last bin may be open.
        if "" in parts[1:-1] or len(parts) < 2 or not edges or edges != sorted(set(edges)):
            raise UsageError(
                f"`by` has the bins {bins!r}: give ascending edges joined by -, as in 0-18-40-65-, "
                "whose last bin is open"
            )
        low, high = [] if parts[0] else [-np.inf], [] if parts[-1] else [np.inf]
        return cls(name, (*low, *edges, *high))

    def group(self, values: NDArray[np.str_]) -> NDArray[np.str_]:
        """Return the group of each of N images by its value, (N,); empty for none.

        Args:
            values: Values, (N,); empty where unknown.
        """
        if not self.edges:
            return values
        names = [
            f"{low:g} and over"
            if high == np.inf
            else f"under {high:g}"
            if low == -np.inf
            else f"{low:g} to under {high:g}"
            for low, high in zip(self.edges[:-1], self.edges[1:], strict=True)
        ]
        numbers = np.array([_number(value) for value in values.tolist()])
        bins = np.searchsorted(self.edges, numbers, side="right") - 1
        inside = (bins >= 0) & (bins < len(names)) & ~np.isnan(numbers)
        padded = np.array([*names, ""], dtype=np.str_)
        return padded[np.where(inside, bins, len(names))]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def parse_attributes(by: str | Sequence[str]) -> list[Attribute]:
    """Return what images are to be grouped by.

    Args:
        by: Attributes, such as ["sex", "age:0-18-40-65-"], or the same joined by commas.

    Raises:
        UsageError: One of them does not describe an attribute, or is given twice.
    """
    attributes = [Attribute.parse(text) for text in (by.split(",") if isinstance(by, str) else by)]
    names = [attribute.name for attribute in attributes]
    if len(set(names)) < len(names):
        raise UsageError("`by` names an attribute twice: give each once")
    return attributes


def group_rows(
    cache: Cache,
    rows: NDArray[np.intp],
    by: str | Sequence[str],
    table: "TableLike | None" = None,
) -> tuple[dict[str, NDArray[np.str_]], list[str]]:
    """Return the group of each of N rows of a cache, (N,), by attribute; empty for none.

    A second value has what a reader has to know about the groups.

    Args:
        cache: The cache.
        rows: The rows, (N,).
        by: See ``parse_attributes``.
        table: A table with the column ``id`` and further columns, or its file; its columns come
            before those of the cache. Cells such as "NaN", "None" or "unknown" have no value.

    Raises:
        UsageError: There is no such attribute, it is unknown for all rows, it has numbers and no
            bins, or it has too many values.
    """
    attributes = parse_attributes(by)
    values = _of_images(cache, rows)
    notes = []
    if table is not None:
        names = [attribute.name for attribute in attributes]
        of_table = _of_table(table, names, cache.ids[rows])
        if replaced := [name for name in of_table if name in values and (values[name] != "").any()]:
            notes.append(f"{', '.join(replaced)} of images are those of `groups`, not of the cache")
        values |= of_table
    groups = {}
    for attribute in attributes:
        name = attribute.name
        if name not in values:
            raise UsageError(
                f"`by` {name!r} is neither sex, age nor view: give a table with the columns id and "
                f"{name} as `groups`"
            )
        groups[name] = attribute.group(values[name])
        number = len(set(groups[name].tolist()) - {""})
        if not number:
            raise UsageError(
                f"{name} is unknown for all scored {pluralize(cache.units.level)} of {cache.path}, "
                "or in no bin: leave it out of `by`, or give a table with it as `groups`"
            )
        if not attribute.edges and _are_measurements(groups[name]):
            raise UsageError(
                f"{name} has {number} different numbers, each of which would be a group: give "
                f"bins in `by`, as in {name}:0-18-40-65-, whose last bin is open"
            )
        if number > _MAX_GROUPS:
            raise UsageError(
                f"{name} has {number} values, and at most {_MAX_GROUPS} can be groups: leave it "
                "out of `by`, or give a table with fewer as `groups`"
            )
    return groups, notes


def _are_measurements(values: NDArray[np.str_]) -> bool:
    """Return whether values are numbers to be put into bins, and not a few whole ones (codes)."""
    distinct = {value for value in values.tolist() if value}
    numbers = [_number(value) for value in distinct]
    if not np.isfinite(numbers).all():
        return False
    return len(distinct) > _MAX_CODES or any(not number.is_integer() for number in numbers)


def _of_images(cache: Cache, rows: NDArray[np.intp]) -> dict[str, NDArray[np.str_]]:
    images = cache.images.take(rows)
    return {name: from_utf8(getattr(images, name)) for name in _OF_IMAGES}


def _of_table(
    table: "TableLike", names: Sequence[str], ids: NDArray[np.str_]
) -> dict[str, NDArray[np.str_]]:
    """Return those columns that a table has, for N images, (N,) each; empty where unknown."""
    if isinstance(table, str | os.PathLike):
        opened, source = open_table(Path(table)), str(table)
        frame = opened.read(["id", *(name for name in names if name in opened.header)])
    else:
        source = "the table of `groups`"
        if "id" not in table.columns:
            raise UsageError(f"{source} has no column id: it has {', '.join(table.columns)}")
        columns = ["id", *(name for name in names if name in table.columns)]
        frame = table[columns].astype(object).fillna("").astype(str)
    twice = frame["id"][frame["id"].duplicated()]
    if len(twice):
        raise UsageError(f"{source} has the id {twice.iloc[0]!r} twice: give each image once")
    if not np.isin(ids, frame["id"].to_numpy(dtype=np.str_)).any():
        raise UsageError(
            f"{source} has none of the {count_noun(len(ids), 'scored id')}, such as "
            f"{str(ids[0])!r}: its column id must hold ids of the cache"
        )
    matched = frame.set_index("id").reindex(ids.tolist()).fillna("")
    return {
        name: matched[name].mask(is_blank(matched[name]), "").str.strip().to_numpy(dtype=np.str_)
        for name in matched.columns
    }
