from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score

from featurecache.audit.probe import cross_val_predict, grouped_folds
from featurecache.audit.shortcuts import Shortcuts, shortcut_probes
from featurecache.metrics.similarity import normalize_rows
from tests.audit.audit_caches import make_cache

N = 400


def columns(seed: int = 0) -> dict[str, list[str]]:
    """Two images per patient; view by image, sex and age by patient."""
    rng = np.random.default_rng(seed)
    sex, age = rng.choice(["F", "M"], N // 2), rng.integers(20, 80, N // 2)
    return {
        "patient": [f"p{row // 2}" for row in range(N)],
        "view": rng.choice(["AP", "PA"], N).tolist(),
        "sex": np.repeat(sex, 2).tolist(),
        "age": np.repeat(age, 2).astype(str).tolist(),
    }


def test_encoded_attribute_is_predicted_and_others_are_not(tmp_path: Path) -> None:
    metadata = columns()
    embedding = np.random.default_rng(1).normal(size=(N, 16))
    embedding[:, 0] += 6 * (np.array(metadata["view"]) == "AP")
    found = shortcut_probes(
        make_cache(tmp_path, ["train"] * N, embedding=embedding, **metadata), n_bootstrap=200
    )
    view, sex, age = found.view, found.sex, found.age
    assert view is not None
    assert sex is not None
    assert age is not None
    assert age.r2 is not None
    assert (view.n, view.n_patients) == (N, N // 2)
    assert list(view.values) == ["AP"]
    assert view.values["AP"].auroc > 0.98
    low, high = sex.values["F"].ci95
    assert low < 0.5 < high
    assert age.r2 < 0.05
    assert age.mae == pytest.approx(age.mae_of_median, rel=0.1)


def test_embeddings_that_identify_patients_do_not_predict_other_patients(tmp_path: Path) -> None:
    embedding = np.repeat(np.random.default_rng(2).normal(size=(N // 2, 300)), 2, axis=0)
    found = shortcut_probes(
        make_cache(tmp_path, ["train"] * N, embedding=embedding, **columns()), n_bootstrap=200
    )
    assert found.sex is not None
    low, high = found.sex.values["F"].ci95
    assert low < 0.5 < high


def test_scores_equal_scikit_learn_and_intervals_a_jackknife_by_hand(tmp_path: Path) -> None:
    metadata = columns()
    sex = (np.array(metadata["sex"]) == "F").astype(float)
    age = np.array(metadata["age"], dtype=float)
    embedding = np.random.default_rng(3).normal(size=(N, 8))
    embedding[:, 0] += sex
    embedding[:, 1] += age / 20
    cache = make_cache(tmp_path, ["train"] * N, embedding=embedding, **metadata)
    found = shortcut_probes(cache, n_bootstrap=200)
    assert found.sex is not None
    assert found.age is not None
    sex_score = found.sex.values["F"]
    gallery, patients = normalize_rows(cache.embedding), cache.patients
    scores = cross_val_predict(gallery, sex, grouped_folds(sex, patients, seed=0))
    years = cross_val_predict(gallery, age, grouped_folds(age, patients, seed=0))
    left_out = [np.flatnonzero(patients != patient) for patient in np.unique(patients)]
    factor = (N // 2 - 1) / (N // 2)
    for value, interval, metric, truth, predicted in (
        (sex_score.auroc, sex_score.ci95, roc_auc_score, sex, scores),
        (found.age.r2, found.age.ci95.r2, r2_score, age, years),
        (found.age.mae, found.age.ci95.mae, mean_absolute_error, age, years),
    ):
        assert value == pytest.approx(metric(truth, predicted))
        jackknife = np.array([metric(truth[rows], predicted[rows]) for rows in left_out])
        half = stats.t(N // 2 - 1).ppf(0.975) * np.sqrt(factor * ((jackknife - value) ** 2).sum())
        # The score interval of the AUROC is not symmetric.
        tolerance = 0.01 if metric is roc_auc_score else 1e-9
        assert interval == pytest.approx((value - half, value + half), abs=tolerance)


def test_a_perfect_probe_has_an_interval_below_1(tmp_path: Path) -> None:
    """Of a percentile bootstrap it would be [1, 1]."""
    metadata = columns()
    embedding = np.random.default_rng(1).normal(size=(N, 4), scale=0.1)
    embedding[:, 0] += np.where(np.array(metadata["view"]) == "AP", 1, -1)
    cache = make_cache(tmp_path, ["train"] * N, embedding=embedding, view=metadata["view"])
    probe = shortcut_probes(cache, n_bootstrap=20).view
    assert probe is not None
    assert probe.values["AP"].auroc == 1
    low, high = probe.values["AP"].ci95
    assert 0.9 < low < 0.995
    assert high == 1


def test_each_of_three_views_is_scored_against_the_others(tmp_path: Path) -> None:
    view = ["AP", "LATERAL", "PA", ""] * (N // 4)
    found = shortcut_probes(make_cache(tmp_path, ["train"] * N, view=view), n_bootstrap=0).view
    assert found is not None
    assert found.n == 3 * N // 4
    assert list(found.values) == ["AP", "LATERAL", "PA"]
    assert found.values["PA"].ci95 is None


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"view": ["PA"] * N, "sex": ["F"] * N, "age": ["40"] * N},
        {
            "view": ["AP"] * 19 + ["PA"] * (N - 19),
            "sex": ["M"] * 2 + [""] * (N - 2),
            "age": ["30", "50"] * 9 + [""] * (N - 18),
        },
    ],
    ids=["unknown", "all equal", "too few"],
)
def test_attribute_without_enough_values_is_undefined(
    tmp_path: Path, metadata: dict[str, list[str]]
) -> None:
    found = shortcut_probes(make_cache(tmp_path, ["train"] * N, **metadata), n_bootstrap=10)
    assert found == Shortcuts(view=None, sex=None, age=None)
