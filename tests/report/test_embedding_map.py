"""The map, against scikit-learn; and whose cache it is drawn from."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from featurecache.errors import CacheError
from featurecache.evaluation.comparison import Scored, read_scored
from featurecache.report.embedding_map import embedding_map, find_cache, most_separating_label
from featurecache.store.reader import read_cache
from featurecache.store.records import Header, ImageTable, Labels, to_utf8
from featurecache.store.writer import write_cache
from tests.report.report_runs import write_run


def cache_of(path, embedding, *, model="toy", dataset="toys"):
    n = len(embedding)
    half = embedding.astype(np.float16)
    write_cache(
        path,
        header=Header(
            model=model,
            dataset=dataset,
            notes=(),
            image_level_split=False,
            exposed=False,
            encoder_spec={"checkpoint": model},
            collection=dataset,
            trained_on={},
        ),
        images=ImageTable(
            id=to_utf8([f"{row:06d}.png" for row in range(n)]),
            sha256=np.full(n, b"00"),
            patient=to_utf8([f"p{row}" for row in range(n)]),
            split=np.full(n, b"test"),
            view=np.full(n, b""),
            sex=np.full(n, b""),
            age=np.full(n, b""),
            size=np.ones(n, dtype=np.int64),
            mtime_ns=np.ones(n, dtype=np.int64),
        ),
        dim=embedding.shape[1],
        embedding=lambda start, stop: half[start:stop],
        labels=Labels(("Mass",), np.zeros((n, 1), dtype=np.int8)),
        texts={},
        failures={},
    )
    return read_cache(path)


def scored_of(ids) -> Scored:
    n = len(ids)
    return Scored(
        run=None,
        split="test",
        ids=np.array(ids),
        patients=np.array(ids),
        label_names=("Mass",),
        truth=np.zeros((n, 1), dtype=np.int8),
        probability=np.full((n, 1), 0.5),
        thresholds=np.array([0.5]),
        learned=np.array([True]),
    )


def test_points_and_variance_are_scikit_learns(tmp_path):
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(50, 12)) * np.linspace(3, 0.1, 12)
    cache = cache_of(tmp_path / "toy.h5", embedding)
    scored = scored_of(cache.ids[10:40])
    found = embedding_map(cache, scored)
    rows = cache.embedding[10:40].astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    reference = PCA(2).fit(rows)
    expected = reference.transform(rows)
    np.testing.assert_allclose(np.abs(found.points), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(found.explained, reference.explained_variance_ratio_)
    np.testing.assert_array_equal(found.rows, np.arange(30))


def test_of_many_images_a_seed_chooses_two_thousand(tmp_path):
    cache = cache_of(tmp_path / "toy.h5", np.random.default_rng(1).normal(size=(2500, 4)))
    scored = scored_of(cache.ids)
    one, same, other = (embedding_map(cache, scored, seed=seed) for seed in (0, 0, 1))
    assert (len(one.rows), one.images) == (2000, 2500)
    np.testing.assert_array_equal(one.points, same.points)
    assert not np.array_equal(one.rows, other.rows)


@pytest.mark.parametrize("embedding", [np.ones((5, 3)), np.eye(5)[:, :1] + 1])
def test_embeddings_without_spread_or_second_dimension_have_a_map(tmp_path, embedding):
    cache = cache_of(tmp_path / "toy.h5", embedding)
    found = embedding_map(cache, scored_of(cache.ids))
    assert np.isfinite(found.points).all()
    assert found.explained[1] == pytest.approx(0, abs=1e-9)


def test_too_few_images_have_none(tmp_path):
    cache = cache_of(tmp_path / "toy.h5", np.eye(5))
    with pytest.raises(CacheError, match="holds 2 of the 3 images"):
        embedding_map(cache, scored_of(["000000.png", "000001.png", "zzz.png"]))


def test_a_cache_is_found_where_it_was_and_where_it_is_said_to_be(tmp_path):
    cache = cache_of(tmp_path / "toy.h5", np.eye(5))
    reference = {"path": str(cache.path), "fingerprint": cache.fingerprint, "dataset": "toys"}
    assert find_cache(reference).path == cache.path
    moved = cache.path.rename(tmp_path / "moved.h5")
    with pytest.raises(CacheError, match="--cache FILE"):
        find_cache(reference)
    assert find_cache(reference, [moved]).path == moved


@pytest.mark.parametrize("change", [{"model": "other"}, {"dataset": "others"}])
def test_another_cache_in_its_place_is_refused(tmp_path, change):
    cache = cache_of(tmp_path / "toy.h5", np.eye(5))
    reference = {"path": str(cache.path), "fingerprint": cache.fingerprint, "dataset": "toys"}
    cache.path.unlink()
    cache_of(cache.path, np.eye(5), **change)
    with pytest.raises(CacheError, match="another cache"):
        find_cache(reference)


def test_joined_caches_are_joined_again(tmp_path):
    caches = [cache_of(tmp_path / f"{m}.h5", np.eye(5), model=m) for m in ("one", "two")]
    joined = [
        {"path": str(c.path), "fingerprint": c.fingerprint, "dataset": "toys"} for c in caches
    ]
    assert find_cache({"joined": joined}).dim == 10


def test_the_telling_label_has_two_large_classes(tmp_path):
    def spoil(truth):
        truth[:, 0] = 1
        truth[:, 1] = np.arange(len(truth)) % 2
        truth[:, 2] = np.arange(len(truth)) < 5

    run = write_run(tmp_path / "run", labels=("All", "Half", "Few"), spoil=spoil)
    assert most_separating_label(read_scored(run)) == 1
