"""Readers to fuzz: the ways in which featurecache reads untrusted files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from tests.fuzz.changes import Changed

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"


@dataclass(frozen=True)
class Reader:
    """A reader, a file that it reads, and how to change that file.

    Attributes:
        prepare: Fills a new folder with everything the reader needs; returns the file to change.
        read: Reads that file.
        refusals: Exceptions that it may raise.
        changed: Returns a strategy of changed files for the bytes of the intact one.
        cost: Number of fast examples that one example takes as long as.
        seconds: Maximum time for one example.
    """

    prepare: Callable[[Path], Path]
    read: Callable[[Path], object]
    refusals: tuple[type[Exception], ...]
    changed: Callable[[bytes], Changed]
    cost: int = 1
    seconds: float = 20

    def outcome(self, file: Path) -> str:
        """Read the file; return "read" or "refused".

        Raises:
            Exception: Any that is not among ``refusals``.
        """
        try:
            self.read(file)
        except self.refusals:
            return "refused"
        return "read"


@cache
def readers() -> Mapping[str, Reader]:
    """Return all readers by name."""
    all_readers: dict[str, Reader] = {}
    for path in sorted(HERE.glob("*_files.py")):
        all_readers |= import_module(f"tests.fuzz.{path.stem}").READERS
    return all_readers
