"""Exports of caches, which say themselves what their columns mean."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from featurecache.datasets.dataset import Dataset, safe_name
from featurecache.datasets.table_reader import Table, open_table
from featurecache.errors import DatasetError
from featurecache.export import parquet
from featurecache.export.tables import (
    EXPORT_FORMAT,
    EXPORT_VERSION,
    IMAGE_COLUMNS,
    ExportHeader,
    hash_ids,
)
from featurecache.io import json as strict_json
from featurecache.io.csv import read_rows
from featurecache.io.fingerprint import fingerprint
from featurecache.label_cells import BLANK, VALID_CELLS, LabelPolicy
from featurecache.store.records import METADATA
from featurecache.units import Units
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class OwnExport:
    """An export of a cache as parquet, or as .npy with CSV files.

    Attributes:
        path: The parquet or .npy file.
        header: What the export says of itself.
        table: The table of images.
        texts: The array or parquet file of texts; None without texts.
    """

    path: Path
    header: ExportHeader
    table: Table
    texts: Path | None

    def dataset(self, name: str | None) -> "tuple[Dataset, pd.DataFrame]":
        """Return the images, and what is known of their files.

        Args:
            name: Name of the data set; None for that of the cache.

        Returns:
            The images, whose paths are the numbers of their rows; and, row by row, the columns
            ``id``, ``path``, ``sha256`` and ``perceptual_hash``.

        Raises:
            DatasetError: The table lacks a column, has an invalid value, or has other rows than the
                array, or the same ones in another order.
        """
        header = self.header
        columns = header["label_columns"]
        table = self.table.read([*IMAGE_COLUMNS, *columns])
        if self.path != self.table.path:
            self._require_same_order(table["id"])
        try:
            cells = table[columns].replace("", str(BLANK)).to_numpy(str).astype(np.int8)
        except ValueError as error:
            raise DatasetError(f"{self.table.path} has a label that is no number") from error
        if not set(np.unique(cells).tolist()) <= VALID_CELLS:
            raise DatasetError(f"{self.table.path} has numbers that are no cells of labels")
        images = table[list(METADATA)].assign(
            path=np.arange(len(table)).astype(str),
            age=table["age"].str.removesuffix(".0"),  # in CSV files, ages are floats
        )
        dataset = Dataset(
            name=safe_name(name or header["dataset"]),
            root=self.path,
            images=images.astype(str),
            cells=cells.reshape(len(table), len(columns)),
            label_names=header["labels"],
            notes=[*header["notes"], *self._unknown_training()],
            image_level_split=header["image_level_split"],
            collection=header["collection"],
            excluded=header["excluded"],
            bit_depth=header["bit_depth"],
            policy=LabelPolicy(**header["label_policy"]),
        )
        return dataset, table[["id", *IMAGE_COLUMNS[len(METADATA) :]]]

    def _require_same_order(self, ids: "pd.Series[str]") -> None:
        stated = self.header.get("ids_sha256")
        if stated is not None and hash_ids(map(str.encode, ids)) != stated:
            raise DatasetError(
                f"{self.table.path} does not have the ids of {self.path} in the order of their "
                "export: restore it, or, if the rows of both were changed alike, give it as "
                "`table`"
            )

    def _unknown_training(self) -> list[str]:
        trained_on = self.header["trained_on"]
        return [
            f"The encoder was fine-tuned on {count_noun(number, 'image')} of {collection}, which "
            "an export does not list: it is not known which images it has seen."
            for collection, number in trained_on.items()
        ]


def find_own_export(path: Path) -> OwnExport | None:
    """Return the export of a cache that a file belongs to; None if it is no export.

    Raises:
        DatasetError: The export is damaged, of another version, or of several caches at once.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet" and path.is_file():
        table, document = open_table(path), _metadata(path)
        texts = path.with_suffix(parquet.TEXTS)
    elif suffix == ".npy" and path.with_suffix(".json").is_file():
        document = path.with_suffix(".json").read_bytes()
        images = path.with_suffix(".images.csv")
        if not images.is_file():
            return None
        table, texts = _open_csv(images), path.with_suffix(".texts.npy")
    else:
        return None
    if document is None:
        return None
    header = _parse(path, document)
    return OwnExport(path, header, table, texts if texts.exists() else None)


def _metadata(path: Path) -> bytes | None:
    from pyarrow.parquet import read_schema

    metadata: bytes | None = (read_schema(path).metadata or {}).get(b"featurecache")
    return metadata


def _parse(path: Path, document: bytes) -> ExportHeader:
    try:
        header: ExportHeader = strict_json.parse(document)
        if header.get("format") != EXPORT_FORMAT or header.get("version") != EXPORT_VERSION:
            raise ValueError(f"it is not a {EXPORT_FORMAT} of version {EXPORT_VERSION}")
        if "label_policies" in header or "joined" in header["spec"]:
            raise DatasetError(
                f"{path} is an export of several caches at once: export and import each of them"
            )
        strict_json.validate(header, ExportHeader)
        if fingerprint(header["spec"]) != header["fingerprint"]:
            raise ValueError("its fingerprint does not match its spec")
    except DatasetError:
        raise
    except (ValueError, KeyError, AttributeError) as error:
        raise DatasetError(
            f"{path} cannot be read as an export of a cache, because its header is damaged: {error}"
        ) from error
    if header["units"] != Units().to_config():
        raise DatasetError(
            f"{path} is an export of studies, or of some of the images: export the cache with "
            "all images as rows"
        )
    return header


class _EscapedRows:
    """The rows of a CSV file that ``io.csv.write_rows`` wrote.

    Args:
        path: The file.
    """

    rounded: Mapping[int, int] = MappingProxyType({})

    def __init__(self, path: Path) -> None:
        self._path = path
        self.notes: list[str] = []
        with path.open(encoding="utf-8", newline="") as file:
            self.header = next(read_rows(file), [])

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        with self._path.open(encoding="utf-8", newline="") as file:
            rows = read_rows(file)
            next(rows, None)
            for line, row in enumerate(rows, 2):
                if len(row) != len(self.header):
                    raise ValueError(f"row {line} has {count_noun(len(row), 'cell')}")
                yield line, row


def _open_csv(path: Path) -> Table:
    try:
        rows = _EscapedRows(path)
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return Table(path, tuple(rows.header), (), rows)


def open_texts(path: Path) -> Table:
    """Return the table of texts of an export, by its array or parquet file."""
    if path.suffix.lower() == ".parquet":
        return open_table(path)
    return _open_csv(path.with_suffix(".csv"))
