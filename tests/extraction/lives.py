"""Extractions with a decoder that crashes or hangs, and what came of each.

Run as ``lives.py WORK IMAGE_TIMEOUT LIVES``: extracts WORK/data into WORK/cache so many times, each
in a forked process, and prints a JSON list: the signal that a life ended by, or what it told.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.extraction.bad_decoder.sitecustomize import CRASH, CRASH_LATER, HANG
from tests.extraction.stub_encoder import StubEncoder, make_dataset, touch

BATCH = 4


def spoil(path: Path, how: bytes) -> None:
    """Make an image one that crashes the decoder, or hangs it; without a decoder such as that it is
    as good as before."""
    path.write_bytes(path.read_bytes() + how)
    touch(path)


def crashing(path: Path) -> None:
    spoil(path, CRASH)


def crashing_later(path: Path) -> None:
    spoil(path, CRASH_LATER)


def hanging(path: Path) -> None:
    spoil(path, HANG)


def live(work: Path, lives: int, *, seconds: float = 30.0) -> list[Any]:
    """Run this file: for each life its signal, or ``done``, ``failed`` and ``written``."""
    here = Path(__file__).parent
    found = [here / "bad_decoder", *(path for path in sys.path if path)]
    done = subprocess.run(
        [sys.executable, __file__, work, str(seconds), str(lives)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, found))},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: list[Any] = json.loads(done.stdout)
    return told


def _extract(work: Path, seconds: float, tell: int) -> None:
    from featurecache.extraction.update import update_caches

    ids = sorted(path.stem for path in (work / "data").glob("*.png"))
    (summary,) = update_caches(
        make_dataset(work / "data", ids),
        [StubEncoder()],
        cache_dir=work / "cache",
        batch_size=BATCH,
        image_timeout=seconds,
    )
    told = {name: getattr(summary, name) for name in ("done", "failed", "written")}
    os.write(tell, json.dumps(told).encode())


def main() -> None:
    work, seconds, lives = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    # What takes long to load is loaded here, once for all lives.
    import torch  # noqa: F401

    told: list[Any] = []
    for _ in range(lives):
        listen, tell = os.pipe()
        process = os.fork()
        if not process:
            _extract(work, seconds, tell)
            return  # and to the end of the process, which must come
        os.close(tell)
        _, status = os.waitpid(process, 0)
        with os.fdopen(listen) as answer:
            told.append(
                os.WTERMSIG(status) if os.WIFSIGNALED(status) else json.loads(answer.read())
            )
    print(json.dumps(told))


if __name__ == "__main__":
    main()
