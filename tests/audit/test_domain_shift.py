"""Domain shift, against embeddings whose shift is known."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

import featurecache as fc
from featurecache.audit.domain_shift import domain_shift
from featurecache.errors import RunError, UsageError
from featurecache.metrics.familiarity import fit_familiarity
from tests.audit.audit_caches import make_cache

N = 300
SHIFT = 1.2


@pytest.fixture
def caches(tmp_path):
    """Two images each of 150 patients; the second cache is shifted along one axis of six."""

    def write(name: str, shift: float, foreign: Sequence[int] = ()) -> fc.Cache:
        rng = np.random.default_rng(len(name))
        embedding = rng.normal(size=(N, 6)) * 0.1
        embedding[:, 0] += 1  # so that the direction holds the others
        embedding[:, 1] += 0.1 * shift
        embedding[list(foreign)] = np.eye(6)[5:1:-1][: len(foreign)]
        folder = tmp_path / name
        folder.mkdir()
        patient = [f"{name}{row // 2}" for row in range(N)]
        return make_cache(folder, ["train"] * N, embedding=embedding, patient=patient)

    return write("ward", SHIFT, [7, 11]), write("training", 0)


def test_the_auroc_is_that_of_two_normal_distributions(caches):
    ward, training = caches
    shift = domain_shift(ward, training, n_bootstrap=200)
    assert (shift.n, shift.n_against) == (N // 2, N // 2)
    low, high = shift.ci95
    assert low < norm.cdf(SHIFT / np.sqrt(2)) < high
    assert domain_shift(ward, training, n_bootstrap=0).ci95 is None


def test_patients_of_one_collection_are_not_unseen_in_the_other_cache(caches):
    """Of a cache and itself, each image is classified without its copy: with chance."""
    ward, _ = caches
    assert domain_shift(ward, ward, n_bootstrap=0).auroc == pytest.approx(0.5)


def test_the_most_foreign_images_come_first(caches):
    ward, training = caches
    shift = domain_shift(ward, training, n_bootstrap=0)
    assert {image.image for image in shift.foreign[:2]} == {"0007", "0011"}
    assert len(shift.to_pandas()) == 100
    familiarity = fit_familiarity(training.embedding, np.arange(N), training.patients)
    percentiles = familiarity.percentiles(ward.embedding)
    first = shift.foreign[0]
    assert (first.knn, first.mahalanobis) == tuple(percentiles[int(first.image)])
    assert (shift.knn, shift.mahalanobis) == pytest.approx(tuple(np.median(percentiles, axis=0)))


def test_other_encoders_and_few_patients_are_refused(caches):
    ward, training = caches
    other = replace(training.header, encoder_spec={"model": "n"})
    with pytest.raises(RunError, match="another encoder"):
        domain_shift(ward, replace(training, header=other))
    with pytest.raises(UsageError, match="at least 20"):
        domain_shift(ward, replace(training, images=training.images.take(np.arange(30))))


def test_audit_includes_it(caches):
    ward, training = caches
    result = fc.audit(ward, against=training, n_bootstrap=20)
    assert result.domain_shift == domain_shift(ward, training, n_bootstrap=20)
    assert result.to_json()["domain_shift"]["dataset"] == "set"
    assert "distinguished from set: AUROC 0." in repr(result)
