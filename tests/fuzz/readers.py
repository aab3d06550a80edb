"""What is fuzzed: one way in which featurecache reads a file that a stranger may have written."""

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
    """A reader, a file that it reads, and how that file is changed.

    Attributes:
        prepare: fills a new folder with all that the reader needs, and gives the file in it that
            is changed.
        read: reads that file.
        refusals: what it may raise.
        changed: from the bytes of the whole file to a strategy of others.
        cost: an example of it counts for so many.
        seconds: that it may take.
    """

    prepare: Callable[[Path], Path]
    read: Callable[[Path], object]
    refusals: tuple[type[Exception], ...]
    changed: Callable[[bytes], Changed]
    cost: int = 1
    seconds: float = 20

    def outcome(self, file: Path) -> str:
        """Read the file, and say what came of it.

        Raises:
            Exception: what it may not raise.
        """
        try:
            self.read(file)
        except self.refusals:
            return "refused"
        return "read"


@cache
def readers() -> Mapping[str, Reader]:
    """All of them, by name."""
    found: dict[str, Reader] = {}
    for path in sorted(HERE.glob("*_files.py")):
        found |= import_module(f"tests.fuzz.{path.stem}").READERS
    return found
