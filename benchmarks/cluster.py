"""How long a cluster would take to embed very many films: a simulation, no cluster was run.

    python benchmarks/cluster.py [--images 100000000] [--nodes 1 8 32 128 512] [--gpu-rate 2000]

Nodes take tasks, one shard of films each, from a queue: eight for each node, at least 100. A node
embeds as fast as its cores, its GPU or its share of the storage's bandwidth allow. Some nodes are
slow; each fails now and then, loses what was in no part yet, and starts its task again. At the end
one node merges all shards. Two kinds of nodes are run: 64 cores, and 16 cores with a GPU.

What a film costs was measured, on one core of an AMD EPYC, with a ViT-B/32 in bf16 and PNGs of
1024 px (the sums of benchmarks/extraction.py's bound); so were merging and flushing. The cluster,
which is bandwidth, failures, slow nodes and the GPU's rate, is assumed: give your own.
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
FILM_BYTES: Final = 415_500
MERGE_SECONDS: Final = 6.4e-6
"""Of one core, for an image of 768 dimensions and 14 labels; storage that keeps up is assumed."""


@dataclass(frozen=True)
class Node:
    """One machine; without a GPU (a rate of 0) its cores decode and encode."""

    cores: int
    gpu_rate: float = 0.0

    def limits(self) -> dict[str, float]:
        """Images a second that each of its resources allows."""
        if self.gpu_rate:
            return {"encoding": self.gpu_rate, "decoding": self.cores / DECODE_SECONDS}
        return {"encoding": self.cores / (DECODE_SECONDS + FORWARD_SECONDS)}

    def rate(self) -> float:
        """Images a second when storage is never waited for."""
        return min(self.limits().values())


@dataclass(frozen=True)
class Cluster:
    """Equal nodes on one storage.

    Attributes:
        nodes: how many.
        node: what each is.
        bandwidth: of the storage, for all nodes together, bytes a second.
        start_seconds: from a task's start, or its restart, to its first film.
        hours_between_failures: of one node, on average.
        slow_share: of the nodes.
        slow_speed: theirs, where the others' is 1.
    """

    nodes: int
    node: Node
    bandwidth: float = 10e9
    start_seconds: float = 60.0
    hours_between_failures: float = 1000.0
    slow_share: float = 0.05
    slow_speed: float = 0.5

    def flush_seconds(self) -> float:
        """Between two parts of a task: the most that a failure costs beside the restart."""
        return min(FLUSH_SECONDS, CHUNK_ROWS / self.node.rate())


@dataclass(frozen=True)
class Outcome:
    """How a run went.

    Attributes:
        seconds: until the last film was embedded.
        merge_seconds: thereafter.
        utilisation: of what the nodes could have embedded in that time, the part that they did.
        failures: how many there were.
        bottleneck: what most node-seconds waited for; merging, where that took longer.
    """

    seconds: float
    merge_seconds: float
    utilisation: float
    failures: int
    bottleneck: str


def closed_form(images: int, cluster: Cluster, *, tasks: int) -> float:
    """Seconds that a cluster of one sound node takes, without the merge."""
    rate = min(cluster.node.rate(), cluster.bandwidth / FILM_BYTES)
    return tasks * cluster.start_seconds + images / rate


def simulate(images: int, cluster: Cluster, *, tasks: int, seed: int = 0) -> Outcome:
    """Run the tasks from event to event; between two of them all rates are constant."""
    rng = np.random.default_rng(seed)
    nodes = cluster.nodes
    slow = rng.random(nodes) < cluster.slow_share
    rate = cluster.node.rate() * np.where(slow, cluster.slow_speed, 1.0)
    between = cluster.hours_between_failures * 3600
    left = np.zeros(nodes)  # films of each node's task
    ready = np.zeros(nodes)  # when it comes to its next film
    fails = rng.exponential(between, nodes)
    waited = dict.fromkeys((*cluster.node.limits(), "storage", "starting", "the last tasks"), 0.0)
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
        given = fair_shares(wanted, cluster.bandwidth / FILM_BYTES)
        done = np.full(nodes, np.inf)
        done[working] = left[working] / given[working]
        next_event = np.minimum(fails - now, np.where(working, done, ready - now))
        step = max(float(next_event[busy].min()), 0.0)
        short = given < wanted
        waited["storage"] += step * int(short.sum())
        waited[binding] += step * int((working & ~short).sum())
        waited["starting"] += step * int((busy & ~working).sum())
        waited["the last tasks"] += step * int((~busy).sum())
        now += step
        left = np.where(done <= step, 0.0, left - given * step)
        # Clocks are sums of steps: what is due now may be due a rounding later.
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
        utilisation=images / (cluster.node.rate() * nodes * now),
        failures=failures,
        bottleneck="merging" if merge > now else max(waited, key=lambda what: waited[what]),
    )


def fair_shares(wanted: NDArray[np.float64], supply: float) -> NDArray[np.float64]:
    """What each gets of a supply: what it wants, or as much as any other that gets less."""
    if wanted.sum() <= supply:
        return wanted
    rising = np.sort(wanted)
    others = np.arange(len(rising), 0, -1)
    # Were all from here on given the same, it would be this much.
    level = (supply - (np.cumsum(rising) - rising)) / others
    shares: NDArray[np.float64] = np.minimum(wanted, level[np.argmax(level <= rising)])
    return shares


def main() -> None:
    """Simulate clusters of both kinds of nodes, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000_000)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 8, 32, 128, 512])
    parser.add_argument("--gpu-rate", type=float, default=2000.0, help="Images/s, assumed.")
    parser.add_argument("--bandwidth", type=float, default=10e9, help="Bytes/s of the storage.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    kinds = {"64 cores": Node(64), "16 cores, GPU": Node(16, arguments.gpu_rate)}
    columns = ["nodes", "each", "embedding, h", "merge, h", "utilisation", "failures", "bottleneck"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for kind, node in kinds.items():
        for nodes in arguments.nodes:
            cluster = Cluster(nodes, node, arguments.bandwidth)
            tasks = max(100, 8 * nodes)
            found = simulate(arguments.images, cluster, tasks=tasks, seed=arguments.seed)
            cells = [
                *(str(nodes), kind),
                *(f"{seconds / 3600:.1f}" for seconds in (found.seconds, found.merge_seconds)),
                *(f"{found.utilisation:.0%}", str(found.failures), found.bottleneck),
            ]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
