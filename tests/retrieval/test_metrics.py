"""Retrieval metrics, compared with hand-computed cases, scikit-learn and a plain loop."""

import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from featurecache.errors import UnknownNameError, UsageError
from featurecache.metrics.similarity import normalize_rows
from featurecache.retrieval.metrics import RetrievalIntervals, measure_retrieval, rank_queries
from featurecache.store.records import TextEmbeddings, TextSet
from tests.evaluation.toy_caches import write_toy_cache

NAN = float("nan")


def test_metrics_of_a_hand_computed_ranking():
    cosines = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]], dtype=np.float32)
    relevant = np.array([[1, 0, -1, 1, 0, 1]])
    ranked = rank_queries(relevant, cosines, k=3)
    # Without the unknown third entry: 1 0 1 0 1. Two of the three relevant ones are in the top 3.
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
def test_undefined_metrics_are_nan(relevant, precision, recall):
    cosines = np.array([[0.3, 0.2, 0.1]], dtype=np.float32)
    ranked = rank_queries(np.array([relevant]), cosines, k=2)
    assert ranked.precision == pytest.approx([precision], nan_ok=True)
    assert ranked.recall == pytest.approx([recall], nan_ok=True)
    assert np.isnan(ranked.average_precision).all()


def test_average_precision_equals_scikit_learn():
    rng = np.random.default_rng(1)
    cosines = rng.integers(0, 12, size=(30, 40)).astype(np.float32) / 12  # with many ties
    relevant = (rng.random((30, 40)) < 0.3).astype(np.int8)
    ranked = rank_queries(relevant, cosines, k=5)
    expected = [average_precision_score(t, s) for t, s in zip(relevant, cosines, strict=True)]
    assert ranked.average_precision == pytest.approx(expected)


def prompt_set(ensemble: np.ndarray, names, *, aligned: bool = True) -> TextSet:
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
        tmp_path / "toy.h5", embedding, labels, prompt_set(text, names), names=names
    )


def test_metrics_of_a_cache_follow_from_its_embeddings(cache):
    metrics = measure_retrieval(str(cache.path), k=4, n_bootstrap=40)
    rows = cache.rows("test")
    truth, patient = cache.labels.values[rows], cache.patients[rows]
    images = cache.embedding[rows].astype(np.float64)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    text = cache.text().positive.ensemble.astype(np.float64)
    cosines = images @ (text / np.linalg.norm(text, axis=1, keepdims=True)).T

    per_label = []
    for c in range(3):
        valid = truth[:, c] >= 0
        hit = truth[valid, c][np.argsort(-cosines[valid, c])]
        average = average_precision_score(truth[valid, c], cosines[valid, c])
        per_label.append((hit[:4].mean(), hit[:4].sum() / hit.sum(), average))
    scores = metrics.text_to_image
    values = (scores.precision, scores.recall, scores.average_precision)
    assert values == pytest.approx(np.mean(per_label, axis=0))
    assert scores.per_label["B"].average_precision == pytest.approx(per_label[1][2])

    averages = []
    for i in range(len(rows)):
        query_labels = truth[i] == 1
        relevant, score = [], []
        for j in range(len(rows)):
            if not query_labels.any() or patient[i] == patient[j]:
                continue
            shared = (truth[j][query_labels] == 1).any()
            if not shared and (truth[j][query_labels] < 0).any():
                continue
            relevant.append(int(shared))
            score.append(images[i] @ images[j])
        if 0 < sum(relevant) < len(relevant):
            averages.append(average_precision_score(relevant, score))
    assert metrics.image_to_image.average_precision == pytest.approx(np.mean(averages), abs=1e-6)
    assert metrics.image_to_image.n_queries == int((truth == 1).any(axis=1).sum())
    for scores in (metrics.text_to_image, metrics.image_to_text, metrics.image_to_image):
        for name in ("precision", "recall", "average_precision"):
            if (bounds := getattr(scores.ci95, name)) is not None:
                low, high = bounds
                assert 0 <= low <= high <= 1
                assert low - 0.1 <= getattr(scores, name) <= high + 0.1
    document = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    assert document["text_to_image"]["ci95"]["precision"] == list(
        metrics.text_to_image.ci95.precision
    )
    assert "text_to_image: precision" in str(metrics)


def test_of_many_images_a_sample_are_queries_and_the_gallery_stays_whole(cache, monkeypatch):
    whole = measure_retrieval(cache, k=2, n_bootstrap=0)
    n_queries = whole.image_to_image.n_queries
    assert not any("sample" in warning for warning in whole.warnings)
    monkeypatch.setattr("featurecache.retrieval.metrics.MAX_COMPARISONS", 11 * whole.n - 1)
    monkeypatch.setattr("featurecache.retrieval.metrics._BLOCK", 3)
    done = []
    samples = [
        measure_retrieval(
            cache, k=2, n_bootstrap=0, seed=seed, progress=lambda *counts: done.append(counts)
        )
        for seed in [*range(40), 0]
    ]
    assert samples[0] == samples[-1] != samples[1]
    assert done[:5] == [(0, 10), (3, 10), (6, 10), (9, 10), (10, 10)]
    (note,) = [warning for warning in samples[7].warnings if "sample" in warning]
    assert f"of {n_queries} images with a positive label, a random sample of 10 (seed 7)" in note
    assert samples[0].text_to_image == whole.text_to_image
    for direction in ("image_to_text", "image_to_image"):
        scores = [getattr(metrics, direction) for metrics in samples[:-1]]
        assert {score.n_queries for score in scores} == {10}
        for name in ("precision", "average_precision", "chance"):
            values = [getattr(score, name) for score in scores]
            expected = getattr(getattr(whole, direction), name)
            error = np.std(values, ddof=1) / len(values) ** 0.5
            assert abs(np.mean(values) - expected) <= 4 * error + 1e-9


@pytest.fixture
def gallery(tmp_path):
    """300 images, two of each patient, of one label with some unknown values."""
    rng = np.random.default_rng(3)
    labels = rng.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=(300, 1)).astype(np.int8)
    embedding = rng.normal(size=(300, 8)) + np.array([1.5, *[0] * 7]) * np.maximum(labels, 0)
    text = prompt_set(np.eye(8)[:1], ("A",))
    split = np.full(300, "test")
    return write_toy_cache(
        tmp_path / "gallery.h5", embedding, labels, text, names=("A",), split=split
    )


def test_precision_and_recall_at_k_have_score_intervals(gallery):
    scores = measure_retrieval(gallery, k=20, n_bootstrap=500).text_to_image
    n_relevant = int((gallery.labels.values == 1).sum())
    hits = round(20 * scores.precision)
    for name, n in (("precision", 20), ("recall", n_relevant)):
        wilson = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert getattr(scores.ci95, name) == pytest.approx((wilson.low, wilson.high), abs=0.03)
    low, high = scores.ci95.average_precision
    assert low < scores.average_precision < high


def test_means_over_query_images_vary_by_patient(gallery):
    """Against the variance of a mean over clusters (Cochran 1977)."""
    metrics = measure_retrieval(gallery, k=5, n_bootstrap=2000).image_to_image
    truth, images = gallery.labels.values[:, 0], normalize_rows(gallery.embedding)
    patient = np.arange(300) // 2
    values, patients = [], []
    for query in np.flatnonzero(truth == 1):
        others = np.flatnonzero((patient != patient[query]) & (truth >= 0))
        first = others[np.argsort(-images[others] @ images[query], kind="stable")[:5]]
        values.append((truth[first] == 1).mean())
        patients.append(patient[query])
    mean = np.mean(values)
    assert metrics.precision == pytest.approx(mean)
    residuals = np.bincount(patients, np.array(values) - mean)
    half = 1.96 * np.sqrt((residuals**2).sum()) / len(values)
    assert metrics.ci95.precision == pytest.approx((mean - half, mean + half), abs=0.006)


def test_four_patients_are_too_few_for_an_interval(tmp_path):
    rng = np.random.default_rng(6)
    labels = np.repeat([[1], [0]], [8, 32], axis=0).astype(np.int8)  # two images of each patient
    text, split = prompt_set(rng.normal(size=(1, 8)), ("A",)), np.full(40, "test")
    embedding = rng.normal(size=(40, 8))
    cache = write_toy_cache(tmp_path / "few.h5", embedding, labels, text, names=("A",), split=split)
    metrics = measure_retrieval(cache, k=5, n_bootstrap=50)
    for scores in (metrics.text_to_image, metrics.image_to_image):
        assert scores.precision is not None
        assert scores.ci95 == RetrievalIntervals(None, None, None)


def test_unaligned_cache_has_image_to_image_metrics_only(tmp_path):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, size=(40, 2))
    text = prompt_set(rng.normal(size=(2, 8)), ("A", "B"), aligned=False)
    embedding = rng.normal(size=(40, 8))
    cache = write_toy_cache(tmp_path / "toy.h5", embedding, labels, text, names=("A", "B"))
    metrics = measure_retrieval(cache, k=2, n_bootstrap=10)
    assert metrics.text_to_image is None
    assert metrics.image_to_text is None
    assert metrics.image_to_image.average_precision > 0


def test_single_label_has_no_image_to_text_metrics(tmp_path):
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, size=(40, 1))
    text = prompt_set(rng.normal(size=(1, 8)), ("A",))
    cache = write_toy_cache(
        tmp_path / "toy.h5", rng.normal(size=(40, 8)), labels, text, names=("A",)
    )
    metrics = measure_retrieval(cache, k=2, n_bootstrap=10)
    assert metrics.image_to_text is None
    assert metrics.text_to_image.n_queries == 1


def test_invalid_input_is_refused(cache):
    with pytest.raises(UsageError, match="1 or more"):
        measure_retrieval(cache, k=0)
    with pytest.raises(UnknownNameError, match="unknown split 'elsewhere'"):
        measure_retrieval(cache, split="elsewhere")
