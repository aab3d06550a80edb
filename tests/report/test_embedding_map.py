"""Embedding map, and the cache that it is made from."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from featurecache.errors import CacheError
from featurecache.evaluation.comparison import ScoredImages, scored_images
from featurecache.report.embedding_map import embedding_map, most_balanced_label
from featurecache.runs.run import load_run
from featurecache.store.reader import read_cache
from featurecache.store.records import Header, ImageTable, Labels, to_utf8
from featurecache.store.writer import write_cache
from tests.report.report_runs import write_run


def write_toy_cache(path, embedding, *, model="toy", dataset="toys"):
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
            sha256=to_utf8([f"{row:064x}" for row in range(n)]),
            perceptual_hash=np.zeros((n, 32), dtype=np.uint8),
            patient=to_utf8([f"p{row}" for row in range(n)]),
            split=np.full(n, b"test"),
            study=np.full(n, b""),
            view=np.full(n, b""),
            sex=np.full(n, b""),
            age=np.full(n, b""),
            path=np.full(n, b""),
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


def scored_with_ids(ids) -> ScoredImages:
    """Predictions of images whose files are those of the toy cache."""
    n = len(ids)
    files = [f"{int(image[:6]):064x}" if image[0] == "0" else "" for image in ids]
    return ScoredImages(
        name="run",
        split="test",
        ids=np.array(ids),
        patients=np.array(ids),
        studies=np.full(n, ""),
        splits=np.full(n, "test"),
        sha256=np.array(files),
        label_names=("Mass",),
        truth=np.zeros((n, 1), dtype=np.int8),
        probability=np.full((n, 1), 0.5),
        thresholds=np.array([0.5]),
    )


def test_points_are_principal_components(tmp_path):
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(50, 12)) * np.linspace(3, 0.1, 12)
    cache = write_toy_cache(tmp_path / "toy.h5", embedding)
    scored = scored_with_ids(cache.ids[10:40])
    result = embedding_map(cache, scored)
    rows = cache.embedding[10:40].astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    reference = PCA(2).fit(rows)
    expected = reference.transform(rows)
    np.testing.assert_allclose(np.abs(result.points), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(result.explained_variance, reference.explained_variance_ratio_)
    np.testing.assert_array_equal(result.rows, np.arange(30))


def test_map_of_many_images_is_a_seeded_sample(tmp_path):
    cache = write_toy_cache(tmp_path / "toy.h5", np.random.default_rng(1).normal(size=(2500, 4)))
    scored = scored_with_ids(cache.ids)
    first, same, other = (embedding_map(cache, scored, seed=seed) for seed in (0, 0, 1))
    assert (len(first.rows), first.n_images) == (2000, 2500)
    np.testing.assert_array_equal(first.points, same.points)
    assert not np.array_equal(first.rows, other.rows)


@pytest.mark.parametrize("embedding", [np.ones((5, 3)), np.eye(5)[:, :1] + 1])
def test_constant_or_one_dimensional_embeddings_have_a_map(tmp_path, embedding):
    cache = write_toy_cache(tmp_path / "toy.h5", embedding)
    result = embedding_map(cache, scored_with_ids(cache.ids))
    assert np.isfinite(result.points).all()
    assert result.explained_variance[1] == pytest.approx(0, abs=1e-9)


def test_other_files_under_the_ids_of_a_run_are_refused(tmp_path):
    cache = write_toy_cache(tmp_path / "toy.h5", np.eye(5))
    scored = scored_with_ids(cache.ids)
    scored.sha256[3] = "a" * 64
    with pytest.raises(CacheError, match=r"other files .* '000003\.png' the first"):
        embedding_map(cache, scored)


def test_fewer_than_three_images_are_refused(tmp_path):
    cache = write_toy_cache(tmp_path / "toy.h5", np.eye(5))
    with pytest.raises(CacheError, match="holds 2 of the 3 images"):
        embedding_map(cache, scored_with_ids(["000000.png", "000001.png", "zzz.png"]))


def test_most_balanced_label_has_two_large_classes(tmp_path):
    def edit_truth(truth):
        truth[:, 0] = 1
        truth[:, 1] = np.arange(len(truth)) % 2
        truth[:, 2] = np.arange(len(truth)) < 5

    run = write_run(tmp_path / "run", labels=("All", "Half", "Few"), edit_truth=edit_truth)
    assert most_balanced_label(scored_images(load_run(run))) == 1
