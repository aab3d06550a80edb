"""What averaging views changed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurecache.audit.audit import audit
from featurecache.audit.view_change import ViewChange, view_change
from tests.audit.audit_caches import make_cache

SPLIT = ["train"] * 6
PLAIN = np.random.default_rng(1).normal(size=(6, 8))
VIEWS = {"views": 4, "view_changes": {"seed": 0}}


def views_cache(folder: Path, **columns: Any) -> Any:
    averaged = PLAIN.copy()
    averaged[0] += 2 * PLAIN[5]  # whose nearest image it becomes
    columns = {"embedding": averaged, "spec": VIEWS, **columns}
    return make_cache(folder, SPLIT, file="m.views-4.h5", **columns)


def test_embeddings_are_compared_with_those_of_the_images_alone(tmp_path: Path) -> None:
    cache = views_cache(tmp_path)
    alone = make_cache(tmp_path, SPLIT, file="m.h5", embedding=PLAIN, spec={"precision": "bf16"})
    change = view_change(cache)
    a, b = (one.embedding.astype(np.float64) for one in (cache, alone))
    a, b = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (a, b))
    assert (change.views, change.plain, change.n) == (4, str(alone.path), 6)
    assert change.cosine == pytest.approx((a * b).sum(axis=1).mean(), abs=1e-6)
    others = [np.where(np.eye(6), -np.inf, one @ one.T) for one in (a, b)]
    assert change.nearest_cosine == pytest.approx(others[1].max(axis=1).mean(), abs=1e-6)
    same = [one.argmax(axis=1) for one in others]
    assert change.same_nearest == pytest.approx((same[0] == same[1]).mean())
    assert change.same_nearest < 1
    assert audit(cache, n_bootstrap=0).view_change == change
    assert view_change(alone) is None


@pytest.mark.parametrize(
    "columns",
    [
        None,
        {"spec": {"resize": "pad"}},
        {"sha256": [f"{row:064d}" for row in range(10, 16)]},
    ],
)
def test_other_caches_are_not_compared(tmp_path: Path, columns: dict[str, Any] | None) -> None:
    cache = views_cache(tmp_path)
    if columns is not None:
        make_cache(tmp_path, SPLIT, file="m.h5", embedding=PLAIN, **columns)
    assert view_change(cache) == ViewChange(4, str(tmp_path / "m.h5"))
