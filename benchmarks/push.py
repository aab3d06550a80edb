"""Peak memory of sending a cache to the hub, and how it grows with the number of images.

    PYTHONPATH=. python benchmarks/push.py [--n-images 50000 200000 600000] [--dim 768]

The caches are synthetic, as in ``benchmarks/cache.py``, and go to the stand-in of the hub of the
tests, by git LFS or by Xet. Each command runs in a process of its own. Its memory is sampled every
5 ms, without the pages of the cache file that it mapped, which the system can take back at any
time.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cache import write_synthetic
from tests.sharing.hub_server import serve_hub

COMMAND = """
import re, sys, threading, time
from pathlib import Path
from featurecache.cli import main
peak = 0
def sample():
    global peak
    while True:
        status = Path("/proc/self/status").read_text()
        peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+)", status)[1]))
        time.sleep(0.005)
threading.Thread(target=sample, daemon=True).start()
sys.argv = ["featurecache", *sys.argv[1:]]
try:
    main()
finally:
    print(peak, file=sys.stderr)
"""
"""Runs a command and prints its peak memory in KiB as the last line of stderr."""


def main() -> None:
    """Send each cache in both ways and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n-images", type=int, nargs="+", default=[50_000, 200_000, 600_000])
    parser.add_argument("--dim", type=int, default=768)
    arguments = parser.parse_args()
    print("| images | file, MiB | git LFS, MiB | Xet, MiB |\n|---|---|---|---|")
    for n_images in arguments.n_images:
        with tempfile.TemporaryDirectory() as name:
            cache = Path(name) / "cache.h5"
            write_synthetic(cache, n_images, arguments.dim)
            size = cache.stat().st_size / 2**20
            peaks = [measure(cache, Path(name), with_xet=with_xet) for with_xet in (False, True)]
            print(f"| {n_images:,} | {size:.0f} | {peaks[0]:.0f} | {peaks[1]:.0f} |", flush=True)


def measure(cache: Path, folder: Path, *, with_xet: bool) -> float:
    """Send a cache; return the peak memory in MiB."""
    with serve_hub() as hub:
        hub.xet = folder / "storage"
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder),
            "HF_HUB_DISABLE_XET": str(int(not with_xet)),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "none",
            "XDG_DATA_HOME": str(folder),
        }
        options = ["cache", "push", "my-lab/set", "--cache", str(cache), "--yes"]
        process = subprocess.run(
            [sys.executable, "-c", COMMAND, *options],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert hub.objects
    return int(process.stderr.split()[-1]) / 2**10


if __name__ == "__main__":
    main()
