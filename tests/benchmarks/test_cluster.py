"""The simulated cluster against sums that a hand can do."""

import numpy as np
import pytest
from cluster import FILM_BYTES, MERGE_SECONDS, Cluster, Node, closed_form, fair_shares, simulate

IMAGES = 1_000_000
SOUND = {"hours_between_failures": np.inf, "slow_share": 0.0}


@pytest.mark.parametrize("tasks", [1, 7])
@pytest.mark.parametrize("node", [Node(64), Node(16, 2000.0), Node(64, 2000.0)])
@pytest.mark.parametrize("bandwidth", [1e8, 1e12])
def test_one_sound_node_takes_what_the_closed_form_says(tasks, node, bandwidth):
    cluster = Cluster(1, node, bandwidth, **SOUND)
    found = simulate(IMAGES, cluster, tasks=tasks)
    assert found.seconds == pytest.approx(closed_form(IMAGES, cluster, tasks=tasks), rel=1e-9)
    assert found.failures == 0


def test_the_closed_form_is_images_over_rate():
    # 64 cores that take 0.06 s to encode a film and 0.0186 s to decode it.
    assert closed_form(IMAGES, Cluster(1, Node(64)), tasks=1) == pytest.approx(
        60 + IMAGES * 0.0786 / 64
    )


def test_many_nodes_take_what_the_storage_takes():
    cluster = Cluster(100, Node(64), 1e9, **SOUND)
    found = simulate(IMAGES, cluster, tasks=100)
    assert found.seconds == pytest.approx(60 + IMAGES * FILM_BYTES / 1e9, rel=1e-9)
    assert found.bottleneck == "storage"


@pytest.mark.parametrize(
    ("node", "bottleneck"),
    [
        (Node(64), "encoding"),
        (Node(16, 2000.0), "decoding"),
        (Node(64, 200.0), "encoding"),
    ],
)
def test_a_node_waits_for_its_scarcest_resource(node, bottleneck):
    assert simulate(IMAGES, Cluster(1, node), tasks=1).bottleneck == bottleneck


def test_failures_cost_their_restarts_and_little_else():
    cluster = Cluster(1, Node(64), hours_between_failures=0.1, slow_share=0.0)
    runs = [simulate(IMAGES, cluster, tasks=1, seed=seed) for seed in range(20)]
    for run in runs:
        sound = closed_form(IMAGES, cluster, tasks=1)
        # A restart takes a minute at the most, for the node may fail again meanwhile.
        most = run.failures * (cluster.start_seconds + cluster.flush_seconds())
        assert 0 < run.seconds - sound < most
    # One for every six minutes of the run.
    expected = sum(run.seconds for run in runs) / 360
    assert sum(run.failures for run in runs) == pytest.approx(expected, rel=0.2)


def test_slow_nodes_hold_up_the_end_less_when_tasks_are_small():
    cluster = Cluster(16, Node(64), 1e12, hours_between_failures=np.inf, slow_share=0.2)
    few, many = (simulate(IMAGES, cluster, tasks=tasks, seed=1) for tasks in (16, 160))
    # With one task each, the slow ones take twice the time that the others do.
    assert few.seconds == pytest.approx(60 + 2 * IMAGES / 16 / Node(64).rate(), rel=1e-9)
    assert many.seconds - 10 * 60 < few.seconds - 60


def test_a_seed_decides_the_run():
    cluster = Cluster(8, Node(64), hours_between_failures=0.5)
    assert simulate(IMAGES, cluster, tasks=32, seed=3) == simulate(
        IMAGES, cluster, tasks=32, seed=3
    )
    assert simulate(IMAGES, cluster, tasks=32, seed=3) != simulate(
        IMAGES, cluster, tasks=32, seed=4
    )


def test_merging_takes_its_time_for_each_image():
    assert simulate(IMAGES, Cluster(4, Node(64)), tasks=4).merge_seconds == IMAGES * MERGE_SECONDS


@pytest.mark.parametrize(
    ("wanted", "supply", "given"),
    [
        ([1, 2, 3], 6, [1, 2, 3]),
        ([3, 1, 2], 5, [2, 1, 2]),
        ([4, 4, 0], 4, [2, 2, 0]),
        ([1, 9, 5], 7, [1, 3, 3]),
    ],
)
def test_what_little_there_is_is_shared_fairly(wanted, supply, given):
    assert fair_shares(np.array(wanted, float), supply).tolist() == given
