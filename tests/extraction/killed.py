"""Extract in forked processes that are killed by SIGKILL, and check the disk after each kill.

Run as ``killed.py WORK SEED``: extracts the images in WORK/data into WORK/cache, first some of
them, then all, and prints a JSON report.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from featurecache.datasets.dataset import Dataset
from featurecache.extraction.update import update_caches
from featurecache.prompts import PROMPT_SETS
from featurecache.store import builder, chunks, writer
from featurecache.store.layout import chunks_path
from featurecache.store.reader import read_cache
from featurecache.store.records import from_utf8
from tests.extraction.stub_encoder import StubEncoder, expected_embedding, make_dataset

BATCH = 4
BATCH_SECONDS = 0.04
BLOCK_SECONDS = 0.03
RANDOM_KILLS = 4
"""Kills while encoding, and as many while the finished file is written."""

DEATHS: dict[str, Callable[[], None]] = {}
"""Functions that make an extraction kill itself at moments that a timer would rarely hit."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def moment(patch: Callable[[], None]) -> Callable[[], None]:
    DEATHS[patch.__name__] = patch
    return patch


@moment
def while_a_chunk_is_written() -> None:
    chunks.write_strings = lambda *_: die()


@moment
def before_the_first_row_of_the_finished_file() -> None:
    builder.CacheBuilder._read = lambda *_: die()


@moment
def after_some_rows_of_the_finished_file() -> None:
    read = builder.CacheBuilder._read

    def dying(self: Any, rows: Any, start: int, stop: int) -> Any:
        return die() if start > 20 else read(self, rows, start, stop)

    builder.CacheBuilder._read = dying


@moment
def when_the_finished_file_lacks_its_texts_only() -> None:
    writer._write_text = lambda *_: die()


@moment
def when_the_finished_file_is_in_place_and_no_chunk_is_removed() -> None:
    chunks.ChunkFolder.delete = lambda _: die()


@moment
def when_some_of_the_chunks_are_removed() -> None:
    def dying(self: chunks.ChunkFolder) -> None:
        for part in sorted(self.folder.glob("part-*.h5"))[::2]:
            part.unlink()
        die()

    chunks.ChunkFolder.delete = dying


def make_slow(pipe: int) -> None:
    """Write small chunks and blocks, so that there is much to interrupt; report every block."""
    builder.CHUNK_ROWS, writer.BLOCK_ROWS = BATCH, 2 * BATCH
    read = builder.CacheBuilder._read

    def slowly(*arguments: Any) -> Any:
        os.write(pipe, b"x")
        time.sleep(BLOCK_SECONDS)
        return read(*arguments)

    builder.CacheBuilder._read = slowly


@contextmanager
def extraction(
    dataset: Dataset, cache: Path, patch: Callable[[], None] | None = None
) -> Iterator[tuple[int, int]]:
    """Extract in a process; yield its id, and a pipe that gets a byte for each image and block."""
    read_end, write_end = os.pipe()
    process = os.fork()
    if process:
        os.close(write_end)
        yield process, read_end
        os.close(read_end)
        return
    make_slow(write_end)
    if patch is not None:
        patch()
    update_caches(
        dataset,
        [StubEncoder(seconds=BATCH_SECONDS)],
        cache_dir=cache,
        prompts=PROMPT_SETS["signs"],
        batch_size=BATCH,
        progress=lambda finished, total: os.write(write_end, b"x") and None,
    )
    os._exit(0)


def readable(path: Path) -> dict[str, bytes]:
    """Read every embedding on the disk, by image id."""
    found: dict[str, bytes] = {}
    if path.exists():
        cache = read_cache(path)
        rows = zip(cache.ids.tolist(), cache.embedding, strict=True)
        found |= {image_id: row.tobytes() for image_id, row in rows}
    description = dict(StubEncoder().image_spec)
    for part in chunks.ChunkFolder(chunks_path(path), description, "set").read():
        embedding = chunks.read_chunk_rows(part.file, 0, len(part.id))
        rows = zip(from_utf8(part.id).tolist(), embedding, strict=True)
        found |= {image_id: row.tobytes() for image_id, row in rows}
    return found


class DiskChecker:
    """Check the disk after every kill."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = readable(path)

    def check(self) -> int:
        """Return the number of embeddings; exit if one is wrong or was lost."""
        after = readable(self.path)
        for image_id, row in after.items():
            if row != expected_embedding(int(image_id[1:])).astype(np.float16).tobytes():
                raise SystemExit(f"the embedding of {image_id} on the disk is wrong")
        if lost := sorted(set(self.before) - set(after)):
            raise SystemExit(f"the embedding of {lost[0]} was lost")
        self.before = after
        return len(after)


def wait(process: int) -> bool:
    """Return whether a process ended by SIGKILL, not by finishing."""
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    if os.WEXITSTATUS(status):
        raise SystemExit("an extraction failed by itself")
    return False


def kill_until_finished(dataset: Dataset, cache: Path, rng: random.Random) -> dict[str, Any]:
    """Kill at random moments and at chosen ones, then let one process finish."""
    checker = DiskChecker(cache / "set" / "stub.h5")
    found: dict[str, Any] = {"encoding": [], "writing": [], "chosen": []}

    # They are killed early, so that all of them together do not finish a stage.
    def kill_at_random(stage: str, most_steps: int) -> None:
        for _ in range(RANDOM_KILLS):
            with extraction(dataset, cache) as (process, pipe):
                for _ in range(rng.randint(1, most_steps)):
                    os.read(pipe, 1)
                time.sleep(rng.uniform(0, 0.02))
                os.kill(process, signal.SIGKILL)
                if wait(process):
                    found[stage].append(checker.check())

    def was_killed(death: Callable[[], None] | None = None) -> bool:
        with extraction(dataset, cache, death) as (process, _):
            return wait(process)

    kill_at_random("encoding", 10)
    for name, death in DEATHS.items():
        if was_killed(death):
            found["chosen"].append(name)
            checker.check()
    kill_at_random("writing", 5)
    if was_killed():
        raise SystemExit("the last process was killed by something else")
    return found


def main() -> None:
    work, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    ids = sorted(path.stem for path in (work / "data").glob("*.png"))
    some = make_dataset(work / "data", ids[::2])
    everything = make_dataset(work / "data", ids)
    # Slow imports, once for all processes.
    update_caches(
        make_dataset(work / "data", ids[:2]), [StubEncoder()], cache_dir=work / "cache-of-two"
    )
    first = kill_until_finished(some, work / "cache", rng)
    shutil.copytree(work / "cache", work / "cache-of-some")
    second = kill_until_finished(everything, work / "cache", rng)
    print(json.dumps({"first": first, "second": second}))


if __name__ == "__main__":
    main()
