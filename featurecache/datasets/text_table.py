"""Tables in text files, as spreadsheets and hospital systems export them.

How a file is written is detected: its encoding and the separator of its columns. Rows keep the
numbers of their lines, and limits hold against hostile files.
"""

import codecs
import csv
import gzip
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final, TextIO, cast

from featurecache.errors import DatasetError, UsageError
from featurecache.io.text import bounded_lines, require_regular_file
from featurecache.wording import count_noun

SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""Separators that are detected, and what they are called."""

MAX_UNPACKED: Final = 2**28
"""Characters that any compressed file may decompress to: about a million rows."""

MAX_EXPANSION: Final = 200
"""Characters per compressed byte that are allowed beyond that. Most tables have 5 to 30."""

_SAMPLE_ROWS: Final = 64
_CHUNK: Final = 2**20

_SEPARATOR_LINE: Final = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)
"""First line that tells Excel the separator; it is not a row."""

_BYTE_ORDER_MARKS: Final = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class TextTable:
    """An open table in a text file.

    Args:
        path: The file; compressed if its name ends in ".gz".
        separator: Separator of the columns; None detects it.
        encoding: Encoding of the file; None detects UTF-8, UTF-16 with a byte order mark, and
            cp1252 (Windows) for whatever is not UTF-8.

    Attributes:
        header: Names of the columns.
        notes: Sentences on what was detected and is not what the name of the file suggests.
        rounded: None.

    Raises:
        UsageError: If the encoding is unknown, or the separator is not one character.
        DatasetError: If two separators explain the file equally well.
        OSError: If the file cannot be read.
        ValueError: If it is not text in the encoding.
    """

    rounded: Mapping[int, int] = MappingProxyType({})

    def __init__(self, path: Path, *, separator: str | None, encoding: str | None) -> None:
        require_regular_file(path)
        self._path = path
        self.notes: list[str] = []
        self._encoding = self._checked(encoding) if encoding else self._detect_encoding()
        if separator is None:
            self._separator = self._detect_separator()
        else:
            self._separator = {"tab": "\t", "\\t": "\t"}.get(separator, separator)
            if len(self._separator) != 1:
                raise UsageError(f"the `separator` is {separator!r}: give one character, or 'tab'")
        _, header = next(self._raw_rows(self._separator), (0, []))
        self.header = _strip_empty_tail([name.strip() for name in header], 0)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line on which each row below the header starts, and its cells.

        Raises:
            DatasetError: If a row is longer or shorter than the header.
        """
        width = len(self.header)
        for line, row in islice(self._raw_rows(self._separator), 1, None):
            if len(row) != width:
                row = _strip_empty_tail(row, width)
            if len(row) != width:
                raise DatasetError(
                    f"{self._path}, line {line}: the row has {count_noun(len(row), 'cell')}, but "
                    f"the header has {width}. Correct the line (a cell that contains the separator "
                    f"{self._separator!r} needs quotes)"
                )
            yield line, row

    @property
    def _plain_name(self) -> str:
        return self._path.name.lower().removesuffix(".gz")

    def _checked(self, encoding: str) -> str:
        try:
            name = codecs.lookup(encoding).name
        except LookupError as error:
            raise UsageError(
                f"there is no `encoding` {encoding!r}: give for example utf-8, utf-16 or cp1252"
            ) from error
        # This one skips the byte order mark that spreadsheets write.
        return "utf-8-sig" if name == "utf-8" else name

    def _detect_encoding(self) -> str:
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        with self._open_bytes() as file:
            chunk = file.read(_CHUNK)
            for mark, encoding in _BYTE_ORDER_MARKS.items():
                if chunk.startswith(mark):
                    self.notes.append(f"{self._path.name} is read as UTF-16.")
                    return encoding
            total = 0
            try:
                # NUL bytes and decompression bombs are left for the reader to refuse.
                while chunk and b"\0" not in chunk and total <= self._max_chars:
                    decoder.decode(chunk)
                    total += len(chunk)
                    chunk = file.read(_CHUNK)
                if not chunk:
                    decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                self.notes.append(
                    f"{self._path.name} is not UTF-8 and is read as cp1252 (Windows): if letters "
                    "are wrong, give its `encoding`."
                )
                return "cp1252"
        return "utf-8-sig"

    def _detect_separator(self) -> str:
        with self._open_text() as file:
            first = next(self._lines(file), "")
        if match := _SEPARATOR_LINE.fullmatch(first):
            return match[1]
        usual = "\t" if self._plain_name.endswith(".tsv") else ","
        # The rows of a sample that are as long as the header, by separator.
        fits: dict[str, int] = {}
        headers: dict[str, list[str]] = {}
        for separator in SEPARATORS:
            try:
                rows = [row for _, row in islice(self._raw_rows(separator), _SAMPLE_ROWS)]
            except csv.Error:
                continue
            if rows and len(rows[0]) > 1:
                headers[separator] = header = _strip_empty_tail(rows[0], 0)
                lengths = Counter(len(_strip_empty_tail(row, len(header))) for row in rows[1:])
                fits[separator] = lengths[len(header)]
        best = [separator for separator, count in fits.items() if count == max(fits.values())]
        if len(best) > 1:
            readings = "; ".join(
                f"by {SEPARATORS[separator]}, it has the columns "
                + ", ".join(repr(name.strip()) for name in headers[separator])
                for separator in best
            )
            raise DatasetError(
                f"the columns of {self._path} may be separated in {len(best)} ways: {readings}. "
                "Give the `separator`"
            )
        separator = best[0] if best else usual
        if separator != usual:
            self.notes.append(
                f"The columns of {self._path.name} are separated by {SEPARATORS[separator]}."
            )
        return separator

    def _raw_rows(self, separator: str) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows that are not blank, header first, each with the line it starts on."""
        with self._open_text() as file:
            reader = csv.reader(self._lines(file, skip_separator=True), delimiter=separator)
            line = 1
            for row in reader:
                # Spreadsheets write blank lines as lines of separators.
                if any(map(str.strip, row)):
                    yield line, row
                # A quoted cell may span lines, so count from the end of the previous row.
                line = reader.line_num + 1

    def _lines(self, file: TextIO, *, skip_separator: bool = False) -> Iterator[str]:
        lines = bounded_lines(file, max_chars=self._max_chars)
        first = next(lines, "")
        # A blank line in its place keeps the line numbers.
        yield "\n" if skip_separator and _SEPARATOR_LINE.fullmatch(first) else first
        yield from lines

    @property
    def _compressed(self) -> bool:
        return self._path.suffix.lower() == ".gz"

    @property
    def _max_chars(self) -> int:
        size = self._path.stat().st_size
        return max(MAX_UNPACKED, MAX_EXPANSION * size) if self._compressed else size

    def _open_bytes(self) -> IO[bytes]:
        opener = gzip.open if self._compressed else Path.open
        return cast("IO[bytes]", opener(self._path, "rb"))

    def _open_text(self) -> TextIO:
        opener = gzip.open if self._compressed else Path.open
        return cast("TextIO", opener(self._path, "rt", encoding=self._encoding, newline=""))


def _strip_empty_tail(row: Sequence[str], length: int) -> list[str]:
    """Drop empty cells at the end of a row, down to a minimum length."""
    end = len(row)
    while end > length and not row[end - 1].strip():
        end -= 1
    return list(row[:end])
