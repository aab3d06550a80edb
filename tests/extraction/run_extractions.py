"""Extract in forked processes with a decoder that crashes or hangs.

Run as ``run_extractions.py WORK COUNT IMAGE_TIMEOUT``: extracts WORK/data into WORK/cache COUNT
times; more of these arguments may follow. Prints a JSON list with, for each WORK, a list with, for
each process, the signal that ended it or its summary.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from featurecache.extraction.update import update_caches
from tests.extraction.bad_decoder.sitecustomize import CRASH, CRASH_LATER, HANG
from tests.extraction.stub_encoder import StubEncoder, make_dataset, touch, write_images

BATCH = 4


def spoil(path: Path, how: bytes) -> None:
    """Make an image crash or hang the bad decoder; any other decoder reads it as before."""
    path.write_bytes(path.read_bytes() + how)
    touch(path)


def crashing(path: Path) -> None:
    spoil(path, CRASH)


def crashing_later(path: Path) -> None:
    spoil(path, CRASH_LATER)


def hanging(path: Path) -> None:
    spoil(path, HANG)


class Extractions(NamedTuple):
    """How often to extract the images in a folder, and the seconds an image may take."""

    work: Path
    count: int
    seconds: float = 30.0


def run_extractions(*extractions: Extractions) -> list[list[Any]]:
    """Run this file: for each process its signal, or ``done``, ``failed`` and ``written``.

    All processes are forked from one interpreter, since its imports take most of the time.
    """
    here = Path(__file__).parent
    path = [here / "bad_decoder", *(folder for folder in sys.path if folder)]
    done = subprocess.run(
        [sys.executable, __file__, *(str(value) for each in extractions for value in each)],
        capture_output=True,
        text=True,
        timeout=100,
        # NumPy's threads do not survive a fork.
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "OPENBLAS_NUM_THREADS": "1",
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results: list[list[Any]] = json.loads(done.stdout)
    return results


def _extract(work: Path, seconds: float, pipe: int) -> None:
    ids = sorted(path.stem for path in (work / "data").glob("*.png"))
    (summary,) = update_caches(
        make_dataset(work / "data", ids),
        [StubEncoder()],
        cache_dir=work / "cache",
        batch_size=BATCH,
        image_timeout=seconds,
    )
    result = {name: getattr(summary, name) for name in ("done", "failed", "written")}
    os.write(pipe, json.dumps(result).encode())


def _extract_in_process(work: Path, seconds: float) -> Any:
    read_end, write_end = os.pipe()
    process = os.fork()
    if not process:
        _extract(work, seconds, write_end)
        sys.exit()  # the process must end by itself
    os.close(write_end)
    _, status = os.waitpid(process, 0)
    with os.fdopen(read_end) as answer:
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else json.loads(answer.read())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:  # slow imports, once for all processes
        made = make_dataset(Path(folder), write_images(Path(folder), 2))
        update_caches(made, [StubEncoder()], cache_dir=Path(folder) / "cache")
    results = [
        [_extract_in_process(Path(work), float(seconds)) for _ in range(int(count))]
        for work, count, seconds in zip(*[iter(sys.argv[1:])] * 3, strict=True)
    ]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
