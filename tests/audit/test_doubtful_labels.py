"""Doubtful labels; tests/docs/test_doubtful_labels.py has the precision on phantom."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

import featurecache as fc
from featurecache.audit.contact_sheet import MAX_DOUBTFUL, doubtful_images, save_doubtful_sheet
from featurecache.audit.doubtful_labels import STRENGTHS, DoubtfulCell, doubtful_labels
from featurecache.audit.probe import grouped_folds
from featurecache.metrics.similarity import normalize_rows
from featurecache.store.cache import Cache
from tests.audit.audit_caches import make_cache

N = 240


def cache_of_pairs(folder: Path) -> tuple[Cache, np.ndarray]:
    """Return a cache with two images per patient, and which labels of Mass are wrong.

    Of Mass, the embedding tells the truth, but 12 labels are flipped and 20 unknown. Edema has too
    few positives.
    """
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(N, 6), scale=0.3)
    truth = rng.random(N) < 0.3
    embedding[:, 0] += np.where(truth, 1, -1)
    order = rng.permutation(N)
    flipped = np.zeros(N, dtype=bool)
    flipped[order[:12]] = True
    labels = np.zeros((N, 2), dtype=np.int8)
    labels[:, 0] = truth ^ flipped
    labels[order[12:32], 0] = -1
    labels[:19, 1] = 1
    patient = [f"p{row // 2:03d}" for row in range(N)]
    return (
        make_cache(folder, ["train"] * N, embedding=embedding, labels=labels, patient=patient),
        flipped,
    )


def test_flipped_labels_are_the_most_doubtful(tmp_path: Path) -> None:
    cache, flipped = cache_of_pairs(tmp_path)
    result = doubtful_labels(cache, n_bootstrap=200)
    found = [cell.image for cell in result.cells]
    assert set(found[:11]) <= set(cache.ids[flipped].tolist())
    mass, edema = result.labels["Mass"], result.labels["Edema"]
    assert mass.n == 220
    assert mass.doubtful == len(found)
    assert mass.ci95 is not None
    assert mass.ci95[0] < 12 / 220 < mass.ci95[1]
    reason = "only 10 patients have a positive image, and at least 20 are needed"
    assert (edema.auroc, edema.doubtful, edema.wrong_share, edema.ci95) == (None,) * 4
    assert (edema.n, edema.reason) == (N, reason)
    unknown = cache.ids[cache.labels.values[:, 0] < 0]
    assert not set(found) & set(unknown.tolist())


def test_probabilities_are_of_models_that_saw_no_image_of_the_patient(tmp_path: Path) -> None:
    cache, _ = cache_of_pairs(tmp_path)
    rows = np.flatnonzero(cache.labels.values[:, 0] >= 0)
    truth, patients = cache.labels.values[rows, 0], cache.patients[rows]
    features = StandardScaler().fit_transform(normalize_rows(cache.embedding))[rows]
    fold = grouped_folds(truth.astype(float), patients, seed=3)
    for number in range(5):
        assert not set(patients[fold == number]) & set(patients[fold != number])
    by_strength = {}
    for strength in STRENGTHS:
        predicted = np.empty(len(rows))
        for number in range(5):
            model = LogisticRegression(C=strength, max_iter=1000)
            model.fit(features[fold != number], truth[fold != number])
            predicted[fold == number] = model.predict_proba(features[fold == number])[:, 1]
        by_strength[log_loss(truth, predicted)] = predicted
    expected = dict(zip(cache.ids[rows].tolist(), by_strength[min(by_strength)], strict=True))
    result = doubtful_labels(cache, n_bootstrap=0, seed=3)
    assert result == doubtful_labels(cache, n_bootstrap=0, seed=3)
    assert result.labels["Mass"].ci95 is None
    for cell in result.cells:
        assert cell.probability == pytest.approx(expected[cell.image])
    confidence = [c.probability if c.value else 1 - c.probability for c in result.cells]
    assert confidence == sorted(confidence)


def test_share_of_zero_has_an_interval(tmp_path: Path) -> None:
    label = np.arange(N) % 2
    embedding = np.stack([label * 2.0 - 1, np.ones(N)], axis=1)
    cache = make_cache(tmp_path, ["train"] * N, embedding=embedding, labels=label[:, np.newaxis])
    doubt = doubtful_labels(cache, n_bootstrap=50).labels["Mass"]
    assert doubt.wrong_share == 0
    assert doubt.ci95 is not None
    assert doubt.ci95[0] == 0
    assert 0.01 < doubt.ci95[1] < 0.03


def test_audit_looks_for_doubtful_labels_on_request(tmp_path: Path) -> None:
    cache, _ = cache_of_pairs(tmp_path)
    assert fc.audit(cache, n_bootstrap=0).doubtful_labels is None
    result = fc.audit(cache, labels=True, n_bootstrap=0)
    assert result.doubtful_labels == doubtful_labels(cache, n_bootstrap=0)
    assert f"doubtful labels: {len(result.doubtful_labels.cells)}" in repr(result)
    result.doubtful_labels.save(tmp_path / "doubtful.csv")
    table = pd.read_csv(tmp_path / "doubtful.csv")
    first = result.doubtful_labels.cells[0]
    assert table.iloc[0, :-1].tolist() == [
        *(1, int(first.image), first.patient, "train", "Mass", first.value),
        pytest.approx(first.probability),
    ]
    assert table["corrected"].isna().all()
    unlabeled = make_cache(tmp_path, ["train"] * 2, labels=np.full((2, 1), -1))
    with pytest.raises(ValueError, match="has no labels"):
        fc.audit(unlabeled, labels=True)


def test_sheet_shows_the_images_of_the_most_doubtful_labels(tmp_path: Path) -> None:
    cells = [
        DoubtfulCell(f"i{number % 70}", "p", "train", "Mass", number % 2, 0.5)
        for number in range(100)
    ]
    captions = doubtful_images(cells)
    assert list(captions) == [f"i{number}" for number in range(MAX_DOUBTFUL)]
    assert captions["i1"] == ["2: Mass positive, p 0.500", "72: Mass positive, p 0.500"]
    Image.new("L", (16, 16), 99).save(tmp_path / "image.png")
    sheet = tmp_path / "sheet.png"
    save_doubtful_sheet(sheet, cells[:6], dict.fromkeys(captions, tmp_path / "image.png"))
    with Image.open(sheet) as picture:
        assert picture.width > 5 * 192
        assert picture.height > 2 * 192
