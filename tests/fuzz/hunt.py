"""The hunt for files that one reader trips over, in a process of its own, which may crash or hang.

    python -m tests.fuzz.hunt READER METHOD EXAMPLES SEED FOLDER

``drawn`` examples are hypothesis's. ``guided`` ones are, too, but what they are drawn from is
chosen by atheris for the lines of featurecache that it makes run. ``FOLDER/file`` is the last
example, ``FOLDER/outcomes.json`` the count of what came of them. An example that takes too long, or
too much memory, ends the process.
"""

import faulthandler
import json
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fuzz.readers import Reader, readers

MEMORY = 2 * 2**30
"""Bytes that an example may take beside what the process has already."""


class Hunt:
    """One reader, and what came of the examples so far."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader, self.folder = reader, folder
        self.outcomes: Counter[str] = Counter()
        place = folder / "place"
        place.mkdir()
        self.file = reader.prepare(place)
        self.whole = self.file.read_bytes()
        assert reader.outcome(self.file) == "read"

    def example(self, data: bytes) -> None:
        """Put it in the place of the file, and read that."""
        (self.folder / "file").write_bytes(data)
        self.file.write_bytes(data)
        faulthandler.dump_traceback_later(self.reader.seconds, exit=True)
        with little_memory():
            outcome = self.reader.outcome(self.file)
        self.outcomes[outcome] += 1
        faulthandler.cancel_dump_traceback_later()

    def tell(self) -> None:
        """Write down what came out."""
        (self.folder / "outcomes.json").write_text(json.dumps(self.outcomes))


@contextmanager
def little_memory() -> Iterator[None]:
    """While the body runs, so much more than there is now."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def property_of(hunt: Hunt, examples: int, seed: int) -> Callable[[], None]:
    """What hypothesis tries: that every changed file is read, or refused as it should be."""
    import hypothesis
    from hypothesis import Phase

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[Phase.generate, *([Phase.shrink] if hunt.reader.cost == 1 else [])],
        report_multiple_bugs=False,
    )
    @hypothesis.given(hunt.reader.changed(hunt.whole))
    def tried(data: bytes) -> None:
        hunt.example(data)

    return tried


def drawn(name: str, examples: int, seed: int, folder: Path) -> None:
    """Examples as hypothesis draws them."""
    hunt = Hunt(readers()[name], folder)
    try:
        property_of(hunt, examples, seed)()
    except Exception as error:
        error.__notes__ = []  # the whole example, which is in a file
        raise
    finally:
        hunt.tell()


def guided(name: str, examples: int, seed: int, folder: Path) -> None:
    """Examples that atheris steers."""
    import atheris

    with atheris.instrument_imports(include=["featurecache"], enable_loader_override=False):
        hunt = Hunt(readers()[name], folder)
    try_one: Any = property_of(hunt, examples, seed).hypothesis.fuzz_one_input  # type: ignore[attr-defined]

    def one(data: bytes) -> None:
        try:
            try_one(data)
        finally:
            hunt.tell()

    # What examples are drawn from, to begin with.
    seeds = folder / "seeds"
    seeds.mkdir()
    generator = random.Random(seed)
    for number in range(32):
        (seeds / str(number)).write_bytes(generator.randbytes(2048))
    options = [f"-runs={examples}", f"-seed={seed + 1}", "-max_len=8192", "-verbosity=0"]
    options += [f"-artifact_prefix={folder}/", str(seeds)]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    warnings.simplefilter("error")
    method = {"drawn": drawn, "guided": guided}[sys.argv[2]]
    method(sys.argv[1], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
