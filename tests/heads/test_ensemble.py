"""Ensembles of several seeds, against single heads that are trained with each seed."""

import json

import numpy as np
import pytest

from featurecache.errors import RunError, UsageError
from featurecache.heads.train import train_head
from featurecache.metrics.conformal import fit_conformal
from featurecache.metrics.platt_scaling import fit_platt_where_it_helps, log_odds
from featurecache.metrics.thresholds import OperatingPoint, choose_thresholds
from featurecache.runs.run import load_run
from featurecache.store.concat import concat_caches
from featurecache.store.grouped import with_units
from featurecache.units import Units
from tests.heads.conftest import NAMES, write_toy

QUICK = {"hidden": (8,), "epochs": 3, "batch_size": 32, "learning_rate": 1e-2}
POINT = "sensitivity=0.8"


def train(cache, head="baseline", **arguments):
    settings = {"n_bootstrap": 0, "controls": False, "operating_point": POINT}
    return train_head(cache, head, **{**settings, **QUICK, **arguments})


@pytest.fixture(scope="module")
def members(cache):
    """Probabilities of heads that were trained with one seed each, (3, N, C)."""
    return np.stack(
        [train(cache, seed=seed).model.probabilities(cache.embedding) for seed in (5, 6, 7)]
    )


@pytest.fixture(scope="module")
def run(cache):
    return train(cache, ensemble=3, seed=5, n_bootstrap=20, coverage=0.8)


def test_probabilities_are_the_mean_of_the_seeds(run, cache, members):
    np.testing.assert_allclose(
        run.model.probabilities(cache.embedding), members.mean(axis=0), rtol=1e-5
    )
    assert run.metrics.seeds is None
    assert (run.config["ensemble"], run.config["seeds"]) == (3, 1)
    assert {line["seed"] for line in run.history} == {5, 6, 7}


def test_thresholds_and_answers_are_those_of_the_mean_on_validation(run, cache, members):
    val, mean = cache.rows("val"), members.mean(axis=0)
    truth = cache.labels.values[val]
    chosen = choose_thresholds(truth, mean[val], OperatingPoint.parse(POINT))
    np.testing.assert_allclose(run.model.thresholds, chosen.values, rtol=1e-5)
    learned = np.ones(3, dtype=np.bool_)
    limits = fit_conformal(truth, mean[val], cache.patients[val], coverage=0.8, learned=learned)
    np.testing.assert_allclose(run.model.limits.positive, limits.positive, rtol=1e-5)
    scores = log_odds(mean[val])
    platt = fit_platt_where_it_helps(truth, scores, cache.patients[val], learned=learned)
    np.testing.assert_allclose(run.model.calibration.slope, platt.slope, rtol=1e-4)
    assert np.isfinite(platt.slope).any()


def test_prediction_has_the_standard_deviation_of_the_saved_members(run, cache, members, tmp_path):
    loaded = load_run(run.save(tmp_path / "run"))
    table = loaded.predict(cache)
    expected = members.std(axis=0, ddof=1)
    assert expected.min() > 0
    np.testing.assert_allclose(table[[f"{name} sd" for name in NAMES]], expected, rtol=1e-3)
    probabilities = run.model.probabilities(cache.embedding)
    assert np.array_equal(loaded.model.probabilities(cache.embedding), probabilities)
    assert loaded.evaluate(cache).metrics.macro.auroc == run.metrics.macro.auroc
    single = train(cache).predict(cache)
    assert not [column for column in single.columns if column.endswith(" sd")]


def test_a_study_has_the_standard_deviation_of_the_members_scores(problem, tmp_path):
    arrays = {name: problem[name] for name in ("embedding", "labels", "split", "patient")}
    images = write_toy(tmp_path, **arrays, names=NAMES, study=problem["patient"])
    cache = with_units(images, Units(level="study", study_scores="max"))
    run = train(cache, ensemble=2)
    of_images = run.model.member_probabilities(images.embedding)
    studies = of_images.reshape(150, 2, 2, 3).max(axis=1)
    table = run.predict(cache).set_index("study").loc[problem["patient"][::2]]
    np.testing.assert_allclose(
        table[[f"{name} sd" for name in NAMES]], studies.std(axis=1, ddof=1), rtol=1e-5
    )


def test_late_fusion_and_buffers_of_the_members_are_saved(cache, problem, tmp_path):
    """Each member of k-NN holds its own half of the training images, and two encoders."""
    arrays = {name: problem[name] for name in ("labels", "split", "patient")}
    other = write_toy(tmp_path, embedding=-problem["embedding"], names=NAMES, **arrays)
    joined = concat_caches([cache, other])
    run = train_head(
        joined, "knn", fusion="late", ensemble=2, train_size=80, n_bootstrap=0, controls=False
    )
    loaded = load_run(run.save(tmp_path / "run"))
    expected = run.model.member_probabilities(joined.embedding)
    assert (expected[:, 0] != expected[:, 1]).any()
    assert np.array_equal(loaded.model.member_probabilities(joined.embedding), expected)
    assert 80 < run.config["n_train"] <= 160  # the images of either member


def test_members_that_do_not_differ_are_a_warning(cache, run):
    alike = train_head(cache, "prototype", ensemble=2, n_bootstrap=0, controls=False)
    assert [
        text for text in alike.warnings if "all 2 members of the ensemble predict the same" in text
    ]
    assert not [text for text in run.warnings if "of the ensemble predict the same" in text]


def test_text_gain_compares_ensembles(cache):
    run = train(cache, "concat", ensemble=2, controls=True, epochs=1)
    assert run.metrics.text_gain.pairs == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ensemble": 0}, "`ensemble` is 0"),
        ({"ensemble": 2, "seeds": 2}, "Leave one of them out"),
    ],
)
def test_impossible_arguments_are_refused(cache, arguments, message):
    with pytest.raises(UsageError, match=message):
        train(cache, **arguments)


@pytest.mark.parametrize("number", [0, 2, 10**9])
def test_a_config_with_another_number_of_members_is_refused(run, tmp_path, number):
    folder = run.save(tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "ensemble": number}))
    with pytest.raises(RunError, match="has the weights of 3"):
        load_run(folder).model  # noqa: B018
