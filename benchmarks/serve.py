"""Latency and memory of a server of predictions under load, on the loopback interface.

    python benchmarks/serve.py RUN IMAGE [--requests 1000] [--at-once 8]

``featurecache serve`` runs in a process of its own. The same image is sent again and again, by as
many clients as ``--at-once``. Printed are the seconds of a request, without the time in which its
client waits for its turn, the requests per second, and the memory of the server after a tenth of
the requests and after all, and of its processes that decode images.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from resource import getpagesize

import httpx2
import numpy as np


def memory(process: int) -> str:
    """Return the resident memory of a process, and that of its children, in MB."""
    children = Path(f"/proc/{process}/task").glob("*/children")
    decoders = [child for path in children for child in path.read_text().split()]
    own, *others = (
        int(Path(f"/proc/{number}/statm").read_text().split()[1]) * getpagesize() / 1e6
        for number in (process, *decoders)
    )
    return f"{own:.0f} MB, and {sum(others):.0f} MB in {len(others)} decoders"


def main() -> None:
    """Start a server, send it requests, and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=8)
    arguments = parser.parse_args()
    content = arguments.image.read_bytes()
    command = [sys.executable, "-m", "featurecache", "serve", str(arguments.run)]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        address = server.stdout.readline().decode().strip()

        def send(client: httpx2.Client) -> tuple[int, float]:
            start = time.perf_counter()
            status = client.post(f"{address}/predict", content=content).status_code
            return status, time.perf_counter() - start

        n_first = arguments.requests // 10
        with httpx2.Client(timeout=60) as client, ThreadPoolExecutor(arguments.at_once) as pool:
            start = time.perf_counter()
            results = list(pool.map(send, [client] * n_first))
            print(f"after {n_first} requests: {memory(server.pid)}")
            results += pool.map(send, [client] * (arguments.requests - n_first))
            seconds = time.perf_counter() - start
        print(f"after {arguments.requests} requests: {memory(server.pid)}")
        server.terminate()
    print(f"status: {dict(Counter(status for status, _ in results))}")
    median, high = 1000 * np.percentile([taken for _, taken in results], [50, 95])
    print(f"p50 {median:.0f} ms, p95 {high:.0f} ms, {len(results) / seconds:.1f} requests/s")


if __name__ == "__main__":
    main()
