"""Studies as units: heads that are trained, scored and compared on them."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

import featurecache as fc
from featurecache.store.cache import Cache

from .conftest import NAMES, aligned_texts, write_toy

WAYS = {
    "scores-mean": {"study_scores": "mean"},
    "scores-max": {"study_scores": "max"},
    "features-mean": {"study_features": "mean"},
    "side-by-side": {"study_features": "frontal+lateral"},
}


SCORES: dict[str, Callable[[Cache], fc.Run]] = {
    "prototype": lambda cache: fc.train_head(cache, "prototype", n_bootstrap=20),
    "baseline": lambda cache: fc.train_head(
        cache, "baseline", seeds=2, controls=False, epochs=1, n_bootstrap=0
    ),
    "zero-shot": lambda cache: fc.zero_shot(cache, n_bootstrap=20),
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, problem: dict[str, np.ndarray]) -> Cache:
    """Return the problem with a study for each image, named in another order than the images."""
    arrays = {name: problem[name] for name in ("embedding", "labels", "split", "patient", "view")}
    study = np.array([f"study {7 * row % 300:03d}" for row in range(300)])
    texts = (aligned_texts(problem),)
    return write_toy(tmp_path_factory.mktemp("a"), **arrays, names=NAMES, texts=texts, study=study)


@pytest.fixture(scope="module")
def of_images(alone: Cache) -> dict[str, fc.Run]:
    return {name: score(alone) for name, score in SCORES.items()}


@pytest.mark.parametrize("way", [way for way in WAYS if way != "side-by-side"])
def test_studies_of_one_image_score_exactly_like_images(
    alone: Cache, of_images: dict[str, fc.Run], way: str
) -> None:
    studies = fc.open_cache(alone, level="study", **WAYS[way])
    assert sorted(studies.ids) != studies.ids.tolist()
    for name, score in SCORES.items():
        run = score(studies)
        image, study = of_images[name].metrics.to_json(), run.metrics.to_json()
        assert (image.pop("level"), study.pop("level")) == ("image", "study")
        assert study == image
        if run.model is not None:
            of_cache = run.model.predict(studies)["Mass probability"]
            assert (
                of_cache.tolist()
                == of_images[name].model.predict(alone)["Mass probability"].tolist()
            )


@pytest.fixture(scope="module")
def two_views(tmp_path_factory) -> Cache:
    """Return studies of a frontal and a lateral image, on which alone Effusion can be seen.

    Mass can be seen on the frontal image alone. Every seventh study has no lateral image.
    """
    rng = np.random.default_rng(5)
    labels = (rng.random((240, 2)) < 0.4).astype(np.int8)
    embedding = rng.normal(size=(480, 8))
    embedding[0::2, 0] += 4 * labels[:, 0]
    embedding[1::2, 1] += 4 * labels[:, 1]
    embedding[1::2, 7] += 4  # laterals differ from frontals
    study = np.repeat([f"s{number:03d}" for number in range(240)], 2)
    kept = np.flatnonzero((np.arange(480) % 2 == 0) | (np.arange(480) // 2 % 7 != 0))
    return write_toy(
        tmp_path_factory.mktemp("two"),
        embedding=embedding[kept],
        labels=np.repeat(labels, 2, axis=0)[kept],
        split=np.repeat(["train", "val", "test"], [240, 120, 120])[kept],
        patient=np.array([f"p{number // 4}" for number in range(480)])[kept],
        view=np.tile(["PA", "LATERAL"], 240)[kept],
        study=study[kept],
        names=("Mass", "Effusion"),
    )


@pytest.fixture(scope="module")
def train(two_views: Cache) -> Callable[..., fc.Run]:
    """Return a function that trains a head once on each kind of units."""

    @cache
    def train(**units: str) -> fc.Run:
        opened = fc.open_cache(two_views, **units)
        return fc.train_head(opened, "linear", controls=False, n_bootstrap=0)

    return train


@pytest.mark.parametrize("how", ["mean", "max"])
def test_joined_scores_are_those_of_sklearn(two_views: Cache, train, how: str) -> None:
    of_images, run = train(), train(level="study", study_scores=how)
    images = two_views.to_pandas()[["study", "split", *run.scored.label_names]]
    probability = of_images.model.probabilities(two_views.embedding)
    for c, label in enumerate(run.scored.label_names):
        images["score"] = probability[:, c]
        groups = images.groupby("study")
        frame = groups.agg(score=("score", how), truth=(label, "max"), split=("split", "first"))
        val, test = (frame[frame["split"] == split] for split in ("val", "test"))
        scores = run.metrics.per_label[label]
        assert scores.auroc == pytest.approx(roc_auc_score(test["truth"], test["score"]), abs=1e-12)
        best = max(f1_score(val["truth"], val["score"] >= at) for at in val["score"])
        assert f1_score(val["truth"], val["score"] >= scores.threshold) == pytest.approx(best)
        assert scores.f1 == pytest.approx(
            f1_score(test["truth"], test["score"] >= scores.threshold), abs=1e-12
        )
    assert run.metrics.n == 60
    assert run.metrics.n_patients == 30
    assert run.predictions["id"].str.match(r"s\d{3}$").all()
    assert run.units.to_config() == {"level": "study", "views": "all", "study_scores": how}


def test_studies_reach_what_images_cannot(train) -> None:
    images, frontal = train(), train(level="study", views="frontal")
    for way in ("features-mean", "side-by-side"):
        studies = train(level="study", **WAYS[way])
        gain = fc.compare([frontal, studies]).comparisons[0].per_label["Effusion"]["auroc"]
        assert gain.first < 0.6
        assert gain.ci95[0] > 0.1
        # Paired by patient: half of the images cannot be told, while most studies can.
        assert np.quantile(paired_differences(images, studies, column=1), 0.025) > 0
        assert studies.metrics.per_label["Mass"].auroc > 0.95


def paired_differences(images: fc.Run, studies: fc.Run, *, column: int) -> np.ndarray:
    """Return the differences in AUROC of bootstrap samples of patients."""
    rng = np.random.default_rng(0)
    tables = []
    for run in (images, studies):
        rows = run.scored.splits == "test"
        tables.append(
            [
                array[rows]
                for array in (
                    run.scored.patients,
                    run.scored.truth[:, column],
                    run.scored.probability[:, column],
                )
            ]
        )
    patients = np.unique(tables[0][0])
    differences = []
    for _ in range(50):
        sample = rng.choice(patients, len(patients))
        of_images, of_studies = (
            roc_auc_score(truth[rows], score[rows])
            for patient, truth, score in tables
            for rows in [np.concatenate([np.flatnonzero(patient == name) for name in sample])]
        )
        differences.append(of_studies - of_images)
    return np.array(differences)


def test_runs_of_other_units_are_refused(two_views: Cache, train, tmp_path) -> None:
    run = fc.load_run(replace(train(level="study", **WAYS["side-by-side"])).save(tmp_path / "s"))
    image = train()
    with pytest.raises(fc.FeaturecacheError, match=r"`level` is 'study' for .* and 'image' for"):
        run.evaluate(two_views)
    other = fc.open_cache(two_views, level="study", study_features="mean")
    with pytest.raises(fc.FeaturecacheError, match=r"`study_features` is 'frontal\+lateral' for"):
        run.evaluate(other)
    for refuse in (fc.compare, fc.table):
        with pytest.raises(fc.FeaturecacheError, match=r"`level` is 'image' for .* and 'study'"):
            refuse([image, run])
        with pytest.raises(fc.FeaturecacheError, match=r"`views` is 'all' for .* and 'lateral'"):
            refuse([image, train(views="lateral")])
    # A path is opened as the run's units.
    again = run.evaluate(two_views.path, n_bootstrap=0)
    assert again.metrics.per_label["Mass"].auroc == run.metrics.per_label["Mass"].auroc
    assert again.units == run.units
    assert run.predict(two_views.path)["study"].nunique() == 240
    assert asdict(run.units)["study_features"] == "frontal+lateral"


def test_compare_joins_the_scores_of_images(train, tmp_path) -> None:
    joined = train(level="study", study_scores="max")
    saved = fc.load_run(replace(train()).save(tmp_path / "image"))
    comparison = fc.compare([saved, joined], level="study", study_scores="max")
    assert (comparison.n, comparison.level) == (60, "study")
    for metrics in comparison.comparisons[0].per_label.values():
        assert metrics["auroc"].difference == 0
        assert metrics["f1"].difference == 0
