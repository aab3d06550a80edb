"""Search and its metrics: a case counted by hand, scikit-learn, and a plain sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from featurecache.errors import CacheError, UsageError
from featurecache.metrics.similarity import batch_nearest, nearest, normalize_rows
from featurecache.retrieval.metrics import measure_retrieval, rank_queries
from featurecache.store.records import TextEmbeddings, TextSet
from tests.evaluation.toy_caches import write_toy_cache

NAN = float("nan")


@pytest.mark.parametrize("at_once", [1, 999, 2**24])
def test_the_nearest_of_each_are_what_nearest_finds_for_one(monkeypatch, at_once):
    monkeypatch.setattr("featurecache.metrics.similarity._COSINES_PER_CHUNK", at_once)
    rng = np.random.default_rng(0)
    gallery = normalize_rows(rng.normal(size=(300, 6)))
    queries = normalize_rows(rng.normal(size=(50, 6)))
    for top in (1, 7, 300, 400):
        rows, cosines = batch_nearest(queries, gallery, top=top)
        for query, found, values in zip(queries, rows, cosines, strict=True):
            expected, level = nearest(query, gallery, top=top)
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_allclose(values, level, atol=1e-6)


def test_the_nearest_of_nothing_cannot_be_found():
    with pytest.raises(ValueError, match="the 3 nearest of 0 rows"):
        batch_nearest(np.eye(2, dtype=np.float32), np.empty((0, 2), np.float32), top=3)


def test_nearest_is_what_a_plain_sort_finds():
    rng = np.random.default_rng(0)
    embedding = (rng.normal(size=(500, 16)) * rng.uniform(0.1, 300, size=(500, 1))).astype("f2")
    gallery = normalize_rows(embedding)
    exact = embedding.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    for query in range(20):
        rows, cosines = nearest(gallery[query], gallery, top=7)
        want = np.argsort(-(exact @ exact[query]), kind="stable")[:7]
        assert rows.tolist() == want.tolist()
        assert cosines == pytest.approx(exact[want] @ exact[query], abs=1e-6)
        assert rows[0] == query


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30),
    st.integers(1, 35),
)
def test_equal_rows_come_in_the_order_of_their_numbers(levels, top):
    angles = np.array(levels) * 0.3
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    rows, _ = nearest(np.array([1.0, 0.0], dtype=np.float32), gallery, top=top)
    want = sorted(range(len(levels)), key=lambda row: (levels[row], row))
    assert rows.tolist() == want[:top]


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(ValueError, match="image embedding 1 has norm 0"):
        normalize_rows(np.array([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="1 or more, not 0"):
        nearest(np.ones(2, dtype=np.float32), np.eye(2, dtype=np.float32), top=0)


def test_a_ranking_counted_by_hand():
    cosines = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]], dtype=np.float32)
    relevant = np.array([[1, 0, -1, 1, 0, 1]])
    ranked = rank_queries(relevant, cosines, at=3)
    # Without the unknown third: 1 0 1 0 1. Three relevant of five, two of them among the first 3.
    assert ranked.precision == pytest.approx([2 / 3])
    assert ranked.recall == pytest.approx([2 / 3])
    assert ranked.average_precision == pytest.approx([(1 / 1 + 2 / 3 + 3 / 5) / 3])
    assert ranked.chance == pytest.approx([3 / 5])


@pytest.mark.parametrize(
    ("relevant", "precision", "recall"),
    [
        ([0, 0, 0], 0.0, NAN),
        ([1, -1, -1], NAN, NAN),
        ([-1, -1, -1], NAN, NAN),
        ([1, 1, 1], 1.0, 2 / 3),
    ],
)
def test_what_is_undefined_is_nan(relevant, precision, recall):
    cosines = np.array([[0.3, 0.2, 0.1]], dtype=np.float32)
    ranked = rank_queries(np.array([relevant]), cosines, at=2)
    assert ranked.precision == pytest.approx([precision], nan_ok=True)
    assert ranked.recall == pytest.approx([recall], nan_ok=True)
    assert np.isnan(ranked.average_precision).all()


def test_average_precision_is_scikit_learns():
    rng = np.random.default_rng(1)
    cosines = rng.integers(0, 12, size=(30, 40)).astype(np.float32) / 12  # with many ties
    relevant = (rng.random((30, 40)) < 0.3).astype(np.int8)
    ranked = rank_queries(relevant, cosines, at=5)
    want = [average_precision_score(t, s) for t, s in zip(relevant, cosines, strict=True)]
    assert ranked.average_precision == pytest.approx(want)


def text_of(ensemble: np.ndarray, names, *, aligned: bool = True) -> TextSet:
    half = ensemble.astype(np.float32)
    prompts = tuple((f"signs of {name}",) for name in names)
    return TextSet(
        name="signs",
        fingerprint="00",
        templates=("signs of {pathology}",),
        labels=tuple(names),
        positive=TextEmbeddings(prompts, half[:, np.newaxis], half),
        negative=None,
        aligned=aligned,
        scale=10.0 if aligned else None,
        bias=None,
    )


@pytest.fixture
def cache(tmp_path):
    rng = np.random.default_rng(2)
    names = ("A", "B", "C")
    labels = rng.choice([-1, 0, 1], p=[0.1, 0.5, 0.4], size=(120, 3)).astype(np.int8)
    text = rng.normal(size=(3, 8))
    embedding = rng.normal(size=(120, 8)) + np.maximum(labels, 0) @ text
    return write_toy_cache(
        tmp_path / "toy.h5", embedding, labels, text_of(text, names), names=names
    )


def test_a_caches_figures_follow_from_its_embeddings(cache):
    document = measure_retrieval(cache, at=4, n_bootstrap=40)
    rows = cache.rows("test")
    truth, patient = cache.labels.values[rows], cache.patients[rows]
    images = cache.embedding[rows].astype(np.float64)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    text = cache.text().positive.ensemble.astype(np.float64)
    cosines = images @ (text / np.linalg.norm(text, axis=1, keepdims=True)).T

    of_label = []
    for c in range(3):
        known = truth[:, c] >= 0
        hit = truth[known, c][np.argsort(-cosines[known, c])]
        average = average_precision_score(truth[known, c], cosines[known, c])
        of_label.append((hit[:4].mean(), hit[:4].sum() / hit.sum(), average))
    found = document["text_to_image"]
    got = [found[name] for name in ("precision", "recall", "average_precision")]
    assert got == pytest.approx(np.mean(of_label, axis=0))
    assert found["per_label"]["B"]["average_precision"] == pytest.approx(of_label[1][2])

    averages = []
    for i in range(len(rows)):
        mine = truth[i] == 1
        relevant, score = [], []
        for j in range(len(rows)):
            if not mine.any() or patient[i] == patient[j]:
                continue
            shared = (truth[j][mine] == 1).any()
            if not shared and (truth[j][mine] < 0).any():
                continue
            relevant.append(int(shared))
            score.append(images[i] @ images[j])
        if 0 < sum(relevant) < len(relevant):
            averages.append(average_precision_score(relevant, score))
    found = document["image_to_image"]
    assert found["average_precision"] == pytest.approx(np.mean(averages), abs=1e-6)
    assert found["n_queries"] == int((truth == 1).any(axis=1).sum())
    for direction in ("text_to_image", "image_to_text", "image_to_image"):
        for name, (low, high) in (
            (name, bounds) for name, bounds in document[direction]["ci95"].items() if bounds
        ):
            assert 0 <= low <= high <= 1
            assert low - 0.1 <= document[direction][name] <= high + 0.1


def test_draws_of_precision_equal_those_of_repeated_rows():
    from featurecache.retrieval.metrics import _drawn_at

    rng = np.random.default_rng(3)
    truth = rng.choice([-1, 0, 1], size=50)
    cosines = rng.normal(size=50).astype(np.float32)
    counts = rng.multinomial(50, np.full(50, 1 / 50), size=20).astype(np.int32)
    precision, recall = _drawn_at(truth, cosines, counts, 6)
    for draw, count in enumerate(counts):
        repeated = np.repeat(np.arange(50), count)
        repeated = repeated[truth[repeated] >= 0]
        ordered = truth[repeated][np.argsort(-cosines[repeated], kind="stable")]
        assert precision[draw] == pytest.approx(ordered[:6].mean())
        assert recall[draw] == pytest.approx(ordered[:6].sum() / ordered.sum())


def test_unaligned_texts_retrieve_nothing_and_images_still_do(tmp_path):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, size=(40, 2))
    text = text_of(rng.normal(size=(2, 8)), ("A", "B"), aligned=False)
    embedding = rng.normal(size=(40, 8))
    cache = write_toy_cache(tmp_path / "toy.h5", embedding, labels, text, names=("A", "B"))
    document = measure_retrieval(cache, at=2, n_bootstrap=10)
    assert document["text_to_image"] is None
    assert document["image_to_text"] is None
    assert document["image_to_image"]["average_precision"] > 0


def test_one_label_alone_is_no_gallery(tmp_path):
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, size=(40, 1))
    text = text_of(rng.normal(size=(1, 8)), ("A",))
    cache = write_toy_cache(
        tmp_path / "toy.h5", rng.normal(size=(40, 8)), labels, text, names=("A",)
    )
    document = measure_retrieval(cache, at=2, n_bootstrap=10)
    assert document["image_to_text"] is None
    assert document["text_to_image"]["n_queries"] == 1


def test_what_cannot_be_measured_is_refused(cache):
    with pytest.raises(UsageError, match="1 or more"):
        measure_retrieval(cache, at=0)
    with pytest.raises(CacheError, match="no labelled images of the split 'elsewhere'"):
        measure_retrieval(cache, split="elsewhere")
