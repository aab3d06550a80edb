from pathlib import Path

import numpy as np
import pytest

from featurecache.audit.label_support import expected_width, label_support
from tests.audit.audit_caches import make


@pytest.mark.parametrize(("positive", "negative"), [(20, 200), (200, 20), (60, 60)])
def test_the_expected_width_is_that_of_simulated_scores(positive: int, negative: int) -> None:
    rng = np.random.default_rng(0)
    # Exponential scores, for which the formula is exact: P(X > Y) is their scale's share.
    areas = [
        (rng.exponential(4, positive)[:, None] > rng.exponential(1, negative)).mean()
        for _ in range(4000)
    ]
    assert expected_width(positive, negative) == pytest.approx(3.92 * np.std(areas), rel=0.05)


def test_without_positives_or_negatives_there_is_no_width() -> None:
    assert expected_width(0, 10) is None
    assert expected_width(10, 0) is None


def test_labels_are_told_by_split_and_view(tmp_path: Path) -> None:
    n = 300
    labels = np.zeros((n, 4), dtype=np.int8)
    labels[::2, 0] = 1
    labels[:3, 1] = 1
    labels[100:, 2] = -1
    labels[:, 3] = -1
    split = ["train"] * 100 + ["val"] * 100 + ["test"] * 100
    found = label_support(
        make(
            tmp_path,
            split,
            labels=labels,
            label_names=("Even", "Rare", "Lost", "None"),
            view=["AP", "PA"] * (n // 2),
            patient=["p"] * 4 + [f"p{row}" for row in range(n - 4)],
        )
    )
    assert list(found["Even"]["splits"]) == ["train", "val", "test"]
    states = {
        name: [of["state"] for of in label["splits"].values()] for name, label in found.items()
    }
    assert states == {
        "Even": ["enough"] * 3,
        "Rare": ["too few", "constant", "constant"],
        "Lost": ["constant", "unknown", "unknown"],
        "None": ["unknown"] * 3,
    }
    rare = found["Rare"]["splits"]["train"]
    assert (rare["positive"], rare["negative"], rare["unknown"]) == (3, 97, 0)
    # Three positives and a negative are of one patient.
    assert rare["patients"] == {"positive": 1, "negative": 97}
    assert rare["prevalence"] == 0.03
    assert found["Even"]["views"] == {
        "AP": {"known": 150, "prevalence": 1.0},
        "PA": {"known": 150, "prevalence": 0.0},
    }
    assert found["None"]["splits"]["test"]["prevalence"] is None
    assert found["None"]["views"]["AP"] == {"known": 0, "prevalence": None}
