"""Processor time and peak memory of commands on a large cache, from start to end.

    python benchmarks/scale.py [--rows 500000] [--dim 768] [--cache FILE]

The cache is synthetic, as in ``benchmarks/cache.py``, and in the page cache when it is read. Each
command runs in a process of its own. Its peak memory includes the pages of the cache file that it
mapped, which the system can take back at any time. ``--cache`` uses, or makes, a cache at a path
that is kept.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cache import write_synthetic

COMMAND = """
import atexit, re, sys
from pathlib import Path
from featurecache.cli import main
def note():  # not ru_maxrss, which a process inherits from its parent
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
atexit.register(note)
sys.argv = ["featurecache", *sys.argv[1:]]
main()
"""
"""Runs a command and prints its peak memory in KiB as the last line of stderr."""

COMMANDS = {
    "retrieve --label": ("retrieve", "--label", "finding 3"),
    "retrieve --image ID": ("retrieve", "--image", "00001234_000.png"),
    "retrieve": ("retrieve",),
    "audit": ("audit",),
    "zero-shot": ("zero-shot", "--out", "{out}"),
    "train-head": ("train-head", "--head", "baseline", "--out", "{out}"),
}


def main() -> None:
    """Measure each command and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        cache = arguments.cache or Path(name) / "cache.h5"
        if not cache.exists():
            write_synthetic(cache, arguments.rows, arguments.dim)
        print(
            "| command | processor time, s | wall time, s | peak memory, GiB |\n|---|---|---|---|"
        )
        for command in arguments.commands:
            out = Path(name) / command
            options = [option.format(out=out) for option in COMMANDS[command]]
            cpu, wall, gib = measure([*options, "--cache", str(cache)])
            print(f"| {command} | {cpu:.1f} | {wall:.1f} | {gib:.2f} |", flush=True)


def measure(options: Sequence[str]) -> tuple[float, float, float]:
    """Run a command; return its processor time and wall time in s and its peak memory in GiB."""
    before, start = os.times(), time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", COMMAND, *options], check=True, capture_output=True, text=True
    )
    after, wall = os.times(), time.perf_counter() - start
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return cpu, wall, int(process.stderr.split()[-1]) / 2**20


if __name__ == "__main__":
    main()
