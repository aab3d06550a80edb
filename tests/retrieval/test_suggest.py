"""Images to label next; tests/cli/test_suggest_command.py has the way back into a cache."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy

import featurecache as fc
from featurecache.store.cache import Cache
from tests.audit.audit_caches import make_cache

N = 120


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Two labels that embeddings of 40 patients tell; those of 80 training images are unknown."""
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(N, 6))
    labels = (embedding[:, :2] + rng.normal(size=(N, 2)) > 0).astype(np.int8)
    labels[40:] = -1
    split = ["train"] * 20 + ["val"] * 10 + ["test"] * 10 + ["train"] * 70 + ["test"] * 10
    patient = [f"p{row % 40:02d}" if row >= 40 else f"q{row}" for row in range(N)]
    return make_cache(tmp_path, split, embedding=embedding, labels=labels, patient=patient)


def test_embeddings_alone_give_the_farthest_images_of_new_patients(cache: Cache) -> None:
    images = fc.suggest(cache, 50)
    unit = cache.embedding.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    before, used = list(unit[:40]), set()
    candidates = set(range(40, 110))
    for number, image in enumerate(images.itertuples(), start=1):
        free = {row for row in candidates if number > 40 or cache.patients[row] not in used}
        distance = {row: min(1 - unit[row] @ one for one in before) for row in free}
        row = int(image.id)
        assert image.rank == number
        assert image.distance == pytest.approx(distance[row], abs=1e-6)
        assert distance[row] == pytest.approx(max(distance.values()), abs=1e-6)
        before.append(unit[row])
        used.add(cache.patients[row])
        candidates.remove(row)
    assert images["patient"][:40].is_unique
    assert images["uncertainty"].isna().all()
    assert (images[["Mass", "Edema"]] == "").all(axis=None)
    assert (images["split"] == "train").all()


def test_a_run_limits_the_choice_to_uncertain_images(cache: Cache) -> None:
    run = fc.train_head(cache, "linear", controls=False, n_bootstrap=0)
    images = fc.suggest(cache, 3, run=run)
    table = run.predict(cache)
    bits = np.zeros(N)
    for label in ("Mass", "Edema"):
        p = table[f"{label} calibrated"].fillna(table[f"{label} probability"]).to_numpy()
        bits += entropy(np.stack([p, 1 - p]), base=2) / 2
    rows = np.arange(40, 110)
    best = pd.DataFrame({"row": rows, "patient": cache.patients[rows], "bits": bits[rows]})
    best = best.sort_values("bits", ascending=False).drop_duplicates("patient")[:30]
    assert set(images["id"].astype(int)) <= set(best["row"])
    assert images["uncertainty"].to_numpy() == pytest.approx(bits[images["id"].astype(int)])
    # 40 patients have one image each before one has a second, whatever their uncertainty.
    assert fc.suggest(cache, 40, run=run)["patient"].is_unique
    other = replace(cache, labels=replace(cache.labels, names=("Nodule", "Edema")))
    with pytest.raises(fc.FeaturecacheError, match="`run` predicts Mass, but the labels of"):
        fc.suggest(other, 3, run=run)


def test_nothing_labeled_starts_with_a_random_image(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, ["train"] * 30, labels=np.full((30, 1), -1))
    first = [fc.suggest(cache, 1, seed=seed)["id"][0] for seed in range(4)]
    assert len(set(first)) > 1
    pd.testing.assert_frame_equal(fc.suggest(cache, 9, seed=1), fc.suggest(cache, 9, seed=1))
    assert fc.suggest(cache, 2)["distance"].isna().tolist() == [True, False]
    assert len(fc.suggest(cache, 99)) == 30


def test_what_cannot_be_suggested_is_refused(cache: Cache) -> None:
    with pytest.raises(ValueError, match="`n` is 0"):
        fc.suggest(cache, 0)
    with pytest.raises(ValueError, match="has no val image whose labels are all unknown"):
        fc.suggest(cache, split="val")
    with pytest.raises(ValueError, match="unknown split 'foo': choose from test, train, val"):
        fc.suggest(cache, split="foo")
    assert set(fc.suggest(cache, 99, split="all")["split"]) == {"train", "test"}
    with pytest.raises(ValueError, match="about images"):
        fc.suggest(fc.open_cache(cache.path, level="study"))
