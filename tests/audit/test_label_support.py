from pathlib import Path

import numpy as np
import pytest

from featurecache.audit.label_support import (
    PatientCounts,
    ViewSupport,
    expected_width,
    label_support,
)
from tests.audit.audit_caches import make_cache


@pytest.mark.parametrize(("positive", "negative"), [(20, 200), (200, 20), (60, 60)])
def test_expected_width_equals_that_of_simulated_scores(positive: int, negative: int) -> None:
    rng = np.random.default_rng(0)
    # The formula is exact for exponential scores, where AUROC = 4 / (4 + 1).
    aurocs = [
        (rng.exponential(4, positive)[:, None] > rng.exponential(1, negative)).mean()
        for _ in range(4000)
    ]
    assert expected_width(positive, negative) == pytest.approx(3.92 * np.std(aurocs), rel=0.05)


def test_expected_width_needs_positives_and_negatives() -> None:
    assert expected_width(0, 10) is None
    assert expected_width(10, 0) is None


def test_support_is_counted_by_split_and_view(tmp_path: Path) -> None:
    n = 300
    labels = np.zeros((n, 4), dtype=np.int8)
    labels[::2, 0] = 1
    labels[:3, 1] = 1
    labels[100:, 2] = -1
    labels[:, 3] = -1
    split = ["train"] * 100 + ["val"] * 100 + ["test"] * 100
    support = label_support(
        make_cache(
            tmp_path,
            split,
            labels=labels,
            label_names=("Even", "Rare", "Lost", "None"),
            view=["AP", "PA"] * (n // 2),
            patient=["p"] * 4 + [f"p{row}" for row in range(n - 4)],
        )
    )
    assert list(support["Even"].splits) == ["train", "val", "test"]
    states = {
        name: [split.state for split in label.splits.values()] for name, label in support.items()
    }
    assert states == {
        "Even": ["enough"] * 3,
        "Rare": ["too few", "constant", "constant"],
        "Lost": ["constant", "unknown", "unknown"],
        "None": ["unknown"] * 3,
    }
    rare = support["Rare"].splits["train"]
    assert (rare.positive, rare.negative, rare.unknown) == (3, 97, 0)
    # Three positives and one negative belong to one patient.
    assert rare.patients == PatientCounts(positive=1, negative=97)
    assert rare.prevalence == 0.03
    # As wide as before, an interval needs at least five patients of both kinds.
    assert rare.expected_width == pytest.approx(expected_width(1, 97))
    assert support["Even"].views == {"AP": ViewSupport(150, 1.0), "PA": ViewSupport(150, 0.0)}
    assert support["None"].splits["test"].prevalence is None
    assert support["None"].views["AP"] == ViewSupport(known=0, prevalence=None)
