"""Simulation of a cluster that embeds very many images; no real cluster is used.

    python benchmarks/cluster.py [--images 100000000] [--nodes 1 8 32 128 512] [--gpu-rate 2000]

Nodes take tasks (one shard each) from a queue: eight per node, at least 100. A node embeds as fast
as its cores, its GPU or its share of the storage bandwidth allow. Some nodes are slow; each fails
at random, loses the images that are not in a chunk yet, and restarts its task. At the end one node
merges all shards. Two kinds of nodes are simulated: 64 cores, and 16 cores with a GPU.

The costs of an image were measured on one core of an AMD EPYC, with a ViT-B/32 in bf16 and PNGs of
1024 px (as in the upper bound of benchmarks/extraction.py); so were merging and flushing. The
cluster (bandwidth, failures, slow nodes, throughput of the GPU) is assumed: give your own values.
"""

import argparse
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.extraction.pipeline import FLUSH_SECONDS
from featurecache.store.layout import CHUNK_ROWS

FORWARD_SECONDS: Final = 0.060
DECODE_SECONDS: Final = 0.0186
IMAGE_BYTES: Final = 415_500
MERGE_SECONDS: Final = 6.4e-6
"""Per image with 768 dimensions and 14 labels, on one core; storage is assumed to keep up."""


@dataclass(frozen=True)
class Node:
    """One machine. Without a GPU (a rate of 0), its cores decode and encode."""

    cores: int
    gpu_rate: float = 0.0

    def limits(self) -> dict[str, float]:
        """Return the images per second that each resource allows."""
        if self.gpu_rate:
            return {"encoding": self.gpu_rate, "decoding": self.cores / DECODE_SECONDS}
        return {"encoding": self.cores / (DECODE_SECONDS + FORWARD_SECONDS)}

    def rate(self) -> float:
        """Return the images per second with unlimited storage bandwidth."""
        return min(self.limits().values())


@dataclass(frozen=True)
class Cluster:
    """Equal nodes that share one storage system.

    Attributes:
        nodes: number of nodes.
        node: hardware of each node.
        bandwidth: total bandwidth of the storage, in bytes per second.
        start_seconds: time from the start or restart of a task to its first image.
        hours_between_failures: mean time between failures of one node.
        slow_fraction: fraction of nodes that are slow.
        slow_speed: speed of slow nodes, relative to the others.
    """

    nodes: int
    node: Node
    bandwidth: float = 10e9
    start_seconds: float = 60.0
    hours_between_failures: float = 1000.0
    slow_fraction: float = 0.05
    slow_speed: float = 0.5

    def flush_seconds(self) -> float:
        """Return the time between two chunks: the most work that a failure loses."""
        return min(FLUSH_SECONDS, CHUNK_ROWS / self.node.rate())


@dataclass(frozen=True)
class Outcome:
    """Result of a simulation.

    Attributes:
        seconds: time until the last image is embedded.
        merge_seconds: duration of the merge that follows.
        utilization: images embedded, as a fraction of what the nodes could have embedded.
        failures: number of failures.
        bottleneck: what most node-seconds waited for; merging, if that took longer.
    """

    seconds: float
    merge_seconds: float
    utilization: float
    failures: int
    bottleneck: str


def closed_form(images: int, cluster: Cluster, *, tasks: int) -> float:
    """Return the seconds that one node without failures takes, without the merge."""
    rate = min(cluster.node.rate(), cluster.bandwidth / IMAGE_BYTES)
    return tasks * cluster.start_seconds + images / rate


def simulate(images: int, cluster: Cluster, *, tasks: int, seed: int = 0) -> Outcome:
    """Simulate all tasks from event to event; between events, all rates are constant."""
    rng = np.random.default_rng(seed)
    nodes = cluster.nodes
    slow = rng.random(nodes) < cluster.slow_fraction
    rate = cluster.node.rate() * np.where(slow, cluster.slow_speed, 1.0)
    between = cluster.hours_between_failures * 3600
    left = np.zeros(nodes)  # images left in each node's task
    ready = np.zeros(nodes)  # time of its next image
    fails = rng.exponential(between, nodes)
    waited = dict.fromkeys((*cluster.node.limits(), "storage", "starting", "last tasks"), 0.0)
    binding = min(cluster.node.limits().items(), key=lambda limit: limit[1])[0]
    now, queued, failures = 0.0, tasks, 0
    while True:
        free = np.flatnonzero(left == 0)[:queued]
        left[free], ready[free] = images / tasks, now + cluster.start_seconds
        queued -= len(free)
        busy = left > 0
        if not busy.any():
            break
        working = busy & (ready <= now)
        wanted = np.where(working, rate, 0.0)
        given = fair_shares(wanted, cluster.bandwidth / IMAGE_BYTES)
        done = np.full(nodes, np.inf)
        done[working] = left[working] / given[working]
        next_event = np.minimum(fails - now, np.where(working, done, ready - now))
        step = max(float(next_event[busy].min()), 0.0)
        short = given < wanted
        waited["storage"] += step * int(short.sum())
        waited[binding] += step * int((working & ~short).sum())
        waited["starting"] += step * int((busy & ~working).sum())
        waited["last tasks"] += step * int((~busy).sum())
        now += step
        left = np.where(done <= step, 0.0, left - given * step)
        # Times are sums of steps, with rounding errors.
        ready[busy & (ready - now < 1e-9)] = now
        failed = fails - now < 1e-9
        again = failed & (left > 0)
        lost = rng.uniform(0, cluster.flush_seconds(), nodes) * given
        left[again] = np.minimum(left + lost, images / tasks)[again]
        ready[again] = now + cluster.start_seconds
        fails[failed] = now + rng.exponential(between, int(failed.sum()))
        failures += int(again.sum())
    merge = images * MERGE_SECONDS
    return Outcome(
        seconds=now,
        merge_seconds=merge,
        utilization=images / (cluster.node.rate() * nodes * now),
        failures=failures,
        bottleneck="merging" if merge > now else max(waited, key=lambda name: waited[name]),
    )


def fair_shares(wanted: NDArray[np.float64], supply: float) -> NDArray[np.float64]:
    """Share a supply by max-min fairness: nobody gets more than wanted, others equal shares."""
    if wanted.sum() <= supply:
        return wanted
    rising = np.sort(wanted)
    others = np.arange(len(rising), 0, -1)
    # The equal share, if all from this one on got the same.
    level = (supply - (np.cumsum(rising) - rising)) / others
    shares: NDArray[np.float64] = np.minimum(wanted, level[np.argmax(level <= rising)])
    return shares


def main() -> None:
    """Simulate clusters of both kinds of nodes and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000_000)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 8, 32, 128, 512])
    parser.add_argument("--gpu-rate", type=float, default=2000.0, help="Assumed images per second.")
    parser.add_argument(
        "--bandwidth", type=float, default=10e9, help="Bytes per second of the storage."
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    kinds = {"64 cores": Node(64), "16 cores, GPU": Node(16, arguments.gpu_rate)}
    columns = ["nodes", "node", "embedding, h", "merge, h", "utilization", "failures", "bottleneck"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for kind, node in kinds.items():
        for nodes in arguments.nodes:
            cluster = Cluster(nodes, node, arguments.bandwidth)
            tasks = max(100, 8 * nodes)
            outcome = simulate(arguments.images, cluster, tasks=tasks, seed=arguments.seed)
            cells = [
                *(str(nodes), kind),
                *(f"{seconds / 3600:.1f}" for seconds in (outcome.seconds, outcome.merge_seconds)),
                *(f"{outcome.utilization:.0%}", str(outcome.failures), outcome.bottleneck),
            ]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
