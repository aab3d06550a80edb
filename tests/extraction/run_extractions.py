"""Extract in forked processes with a decoder that crashes or hangs.

Run as ``run_extractions.py WORK IMAGE_TIMEOUT COUNT``: extracts WORK/data into WORK/cache COUNT
times, and prints a JSON list with, for each process, the signal that ended it or its summary.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def run_extractions(work: Path, count: int, *, seconds: float = 30.0) -> list[Any]:
    """Run this file: for each process its signal, or ``done``, ``failed`` and ``written``."""
    here = Path(__file__).parent
    path = [here / "bad_decoder", *(folder for folder in sys.path if folder)]
    done = subprocess.run(
        [sys.executable, __file__, work, str(seconds), str(count)],
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
    results: list[Any] = json.loads(done.stdout)
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


def main() -> None:
    work, seconds, count = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    # Slow imports, once for all processes.
    made = make_dataset(work / "two", write_images(work / "two", 2))
    update_caches(made, [StubEncoder()], cache_dir=work / "cache-of-two")

    results: list[Any] = []
    for _ in range(count):
        read_end, write_end = os.pipe()
        process = os.fork()
        if not process:
            _extract(work, seconds, write_end)
            return  # the process must end by itself
        os.close(write_end)
        _, status = os.waitpid(process, 0)
        with os.fdopen(read_end) as answer:
            results.append(
                os.WTERMSIG(status) if os.WIFSIGNALED(status) else json.loads(answer.read())
            )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
