from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score

from featurecache.audit.probe import cross_val_predict, grouped_folds
from featurecache.audit.shortcuts import shortcut_probes
from featurecache.metrics.bootstrap import resample_patients
from featurecache.metrics.similarity import normalize_rows
from tests.audit.audit_caches import make

N = 400


def columns(seed: int = 0) -> dict[str, list[str]]:
    """Two images a patient; view by image, sex and age by patient."""
    rng = np.random.default_rng(seed)
    sex, age = rng.choice(["F", "M"], N // 2), rng.integers(20, 80, N // 2)
    return {
        "patient": [f"p{row // 2}" for row in range(N)],
        "view": rng.choice(["AP", "PA"], N).tolist(),
        "sex": np.repeat(sex, 2).tolist(),
        "age": np.repeat(age, 2).astype(str).tolist(),
    }


def test_what_is_in_the_embedding_is_read_and_what_is_not_is_not(tmp_path: Path) -> None:
    given = columns()
    embedding = np.random.default_rng(1).normal(size=(N, 16))
    embedding[:, 0] += 6 * (np.array(given["view"]) == "AP")
    found = shortcut_probes(
        make(tmp_path, ["train"] * N, embedding=embedding, **given), n_bootstrap=200
    )
    view, sex, age = found["view"], found["sex"], found["age"]
    assert (view["n"], view["n_patients"]) == (N, N // 2)
    assert list(view["values"]) == ["AP"]
    assert view["values"]["AP"]["auroc"] > 0.98
    low, high = sex["values"]["F"]["ci95"]
    assert low < 0.5 < high
    assert age["r2"] < 0.05
    assert age["mae"] == pytest.approx(age["mae_of_median"], rel=0.1)


def test_what_only_tells_patients_apart_reads_nothing_of_other_patients(tmp_path: Path) -> None:
    embedding = np.repeat(np.random.default_rng(2).normal(size=(N // 2, 300)), 2, axis=0)
    found = shortcut_probes(
        make(tmp_path, ["train"] * N, embedding=embedding, **columns()), n_bootstrap=200
    )
    low, high = found["sex"]["values"]["F"]["ci95"]
    assert low < 0.5 < high


def test_figures_and_intervals_are_those_of_scikit_learn_on_resampled_rows(tmp_path: Path) -> None:
    given = columns()
    sex = (np.array(given["sex"]) == "F").astype(float)
    age = np.array(given["age"], dtype=float)
    embedding = np.random.default_rng(3).normal(size=(N, 8))
    embedding[:, 0] += sex
    embedding[:, 1] += age / 20
    cache = make(tmp_path, ["train"] * N, embedding=embedding, **given)
    found = shortcut_probes(cache, n_bootstrap=50)
    gallery, patients = normalize_rows(cache.embedding), cache.patients
    scores = cross_val_predict(gallery, sex, grouped_folds(sex, patients, seed=0))
    years = cross_val_predict(gallery, age, grouped_folds(age, patients, seed=0))
    n_bootstrap = resample_patients(patients, n_bootstrap=50, seed=0).row_counts()
    samples = [np.repeat(np.arange(N), counts) for counts in n_bootstrap]
    for figure, interval, measure, truth, predicted in (
        (
            *(found["sex"]["values"]["F"][key] for key in ("auroc", "ci95")),
            roc_auc_score,
            sex,
            scores,
        ),
        (found["age"]["r2"], found["age"]["ci95"]["r2"], r2_score, age, years),
        (found["age"]["mae"], found["age"]["ci95"]["mae"], mean_absolute_error, age, years),
    ):
        assert figure == pytest.approx(measure(truth, predicted))
        drawn = [measure(truth[rows], predicted[rows]) for rows in samples]
        assert interval == pytest.approx(np.quantile(drawn, (0.025, 0.975)))


def test_each_of_three_views_is_read_against_the_others(tmp_path: Path) -> None:
    view = ["AP", "LATERAL", "PA", ""] * (N // 4)
    found = shortcut_probes(make(tmp_path, ["train"] * N, view=view), n_bootstrap=0)["view"]
    assert found["n"] == 3 * N // 4
    assert list(found["values"]) == ["AP", "LATERAL", "PA"]
    assert found["values"]["PA"]["ci95"] is None


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"view": ["PA"] * N, "sex": ["F"] * N, "age": ["40"] * N},
        {
            "view": ["AP"] * 19 + ["PA"] * (N - 19),
            "sex": ["M"] * 2 + [""] * (N - 2),
            "age": ["30", "50"] * 9 + [""] * (N - 18),
        },
    ],
    ids=["unknown", "all the same", "too few"],
)
def test_what_cannot_be_measured_is_undefined(tmp_path: Path, given: dict[str, list[str]]) -> None:
    found = shortcut_probes(make(tmp_path, ["train"] * N, **given), n_bootstrap=10)
    assert found == {"view": None, "sex": None, "age": None}
