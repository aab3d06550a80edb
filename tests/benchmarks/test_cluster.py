"""The simulated cluster against closed forms."""

import numpy as np
import pytest
from cluster import IMAGE_BYTES, MERGE_SECONDS, Cluster, Node, closed_form, fair_shares, simulate

IMAGES = 1_000_000
NO_FAILURES = {"hours_between_failures": np.inf, "slow_fraction": 0.0}


@pytest.mark.parametrize("tasks", [1, 7])
@pytest.mark.parametrize("node", [Node(64), Node(16, 2000.0), Node(64, 2000.0)])
@pytest.mark.parametrize("bandwidth", [1e8, 1e12])
def test_one_node_matches_closed_form(tasks, node, bandwidth):
    cluster = Cluster(1, node, bandwidth, **NO_FAILURES)
    outcome = simulate(IMAGES, cluster, tasks=tasks)
    assert outcome.seconds == pytest.approx(closed_form(IMAGES, cluster, tasks=tasks), rel=1e-9)
    assert outcome.failures == 0


def test_closed_form_is_images_over_rate():
    # 64 cores that take 0.06 s to encode an image and 0.0186 s to decode it.
    assert closed_form(IMAGES, Cluster(1, Node(64)), tasks=1) == pytest.approx(
        60 + IMAGES * 0.0786 / 64
    )


def test_many_nodes_are_limited_by_storage():
    cluster = Cluster(100, Node(64), 1e9, **NO_FAILURES)
    outcome = simulate(IMAGES, cluster, tasks=100)
    assert outcome.seconds == pytest.approx(60 + IMAGES * IMAGE_BYTES / 1e9, rel=1e-9)
    assert outcome.bottleneck == "storage"


@pytest.mark.parametrize(
    ("node", "bottleneck"),
    [
        (Node(64), "encoding"),
        (Node(16, 2000.0), "decoding"),
        (Node(64, 200.0), "encoding"),
    ],
)
def test_node_is_limited_by_its_slowest_resource(node, bottleneck):
    assert simulate(IMAGES, Cluster(1, node), tasks=1).bottleneck == bottleneck


def test_failures_cost_restarts_and_unflushed_images():
    cluster = Cluster(1, Node(64), hours_between_failures=0.1, slow_fraction=0.0)
    outcomes = [simulate(IMAGES, cluster, tasks=1, seed=seed) for seed in range(20)]
    for outcome in outcomes:
        without_failures = closed_form(IMAGES, cluster, tasks=1)
        # A restart takes a minute at most, as the node may fail again in the meantime.
        limit = outcome.failures * (cluster.start_seconds + cluster.flush_seconds())
        assert 0 < outcome.seconds - without_failures < limit
    # One every six minutes.
    expected = sum(outcome.seconds for outcome in outcomes) / 360
    assert sum(outcome.failures for outcome in outcomes) == pytest.approx(expected, rel=0.2)


def test_small_tasks_reduce_the_delay_by_slow_nodes():
    cluster = Cluster(16, Node(64), 1e12, hours_between_failures=np.inf, slow_fraction=0.2)
    few, many = (simulate(IMAGES, cluster, tasks=tasks, seed=1) for tasks in (16, 160))
    # With one task per node, slow nodes take twice as long as the others.
    assert few.seconds == pytest.approx(60 + 2 * IMAGES / 16 / Node(64).rate(), rel=1e-9)
    assert many.seconds - 10 * 60 < few.seconds - 60


def test_simulation_is_seeded():
    cluster = Cluster(8, Node(64), hours_between_failures=0.5)
    assert simulate(IMAGES, cluster, tasks=32, seed=3) == simulate(
        IMAGES, cluster, tasks=32, seed=3
    )
    assert simulate(IMAGES, cluster, tasks=32, seed=3) != simulate(
        IMAGES, cluster, tasks=32, seed=4
    )


def test_merge_time_is_proportional_to_images():
    assert simulate(IMAGES, Cluster(4, Node(64)), tasks=4).merge_seconds == IMAGES * MERGE_SECONDS


@pytest.mark.parametrize(
    ("wanted", "supply", "shares"),
    [
        ([1, 2, 3], 6, [1, 2, 3]),
        ([3, 1, 2], 5, [2, 1, 2]),
        ([4, 4, 0], 4, [2, 2, 0]),
        ([1, 9, 5], 7, [1, 3, 3]),
    ],
)
def test_scarce_supply_is_shared_fairly(wanted, supply, shares):
    assert fair_shares(np.array(wanted, float), supply).tolist() == shares
