"""train_head: metrics against scikit-learn, seeds, warnings, controls and errors."""

import dataclasses
import inspect

import numpy as np
import pytest
import sklearn.metrics as reference

from featurecache.errors import CacheError, UnknownNameError, UsageError
from featurecache.heads.config import HeadConfig
from featurecache.heads.fit import fit_head
from featurecache.heads.train import predict_on, train_head, training_data_from
from featurecache.metrics.thresholds import NOT_CHOSEN
from featurecache.store.records import Labels

SETTINGS = {"hidden": (8,), "epochs": 6, "batch_size": 32, "learning_rate": 1e-2}


def train(cache, head="baseline", **arguments):
    return train_head(cache, head, **{"n_bootstrap": 0, "controls": False, **SETTINGS, **arguments})


@pytest.fixture(scope="module")
def trained(cache):
    return train(cache)


def probabilities(run, cache):
    return run.model.probabilities(cache.embedding)


def relabeled(cache, values, names=None):
    return dataclasses.replace(cache, labels=Labels(names or cache.labels.names, values))


def auroc(truth, score):
    known = truth >= 0
    return reference.roc_auc_score(truth[known], score[known])


@pytest.fixture
def without_training_positives(cache):
    """Return a cache whose label Nodule has positives in validation and test only."""
    values = cache.labels.values.copy()
    values[cache.rows("train"), 2] = 0
    return relabeled(cache, values)


def test_metrics_are_those_of_scikit_learn_on_test_rows(cache, trained):
    run = trained
    rows = cache.rows("test")
    truth, p = cache.labels.values[rows], probabilities(run, cache)[rows]
    aurocs = [auroc(truth[:, c], p[:, c]) for c in range(3)]
    for c, (name, scores) in enumerate(run.metrics.per_label.items()):
        known = truth[:, c] >= 0
        y, decided = truth[known, c], p[known, c] >= scores.threshold
        assert scores.auroc == pytest.approx(aurocs[c]), name
        assert scores.f1 == pytest.approx(reference.f1_score(y, decided))
        assert scores.confusion == reference.confusion_matrix(y, decided).tolist()
        assert scores.n_positive == y.sum()
    assert run.metrics.macro.auroc == pytest.approx(np.mean(aurocs))
    assert list(run.metrics.per_label) == list(cache.labels.names)
    metrics = run.metrics
    assert (metrics.n, metrics.n_patients, metrics.split) == (80, 40, "test")


def test_only_images_that_are_chosen_or_scored_on_are_predicted(cache):
    config = HeadConfig(head="linear")
    data = training_data_from(cache, config)
    trial = predict_on(cache, fit_head(data, config), data)
    predicted = ~np.isnan(trial.score).all(axis=1)
    np.testing.assert_array_equal(predicted, cache.splits != "train")


def test_a_path_and_a_cache_give_the_same_run(cache, trained):
    by_path, by_cache = train(str(cache.path)), trained
    assert by_path.metrics == by_cache.metrics
    assert by_path.config["settings"]["hidden"] == (8,)


def test_signature_shows_every_setting():
    parameters = inspect.signature(train_head).parameters
    for field in dataclasses.fields(HeadConfig):
        assert field.name in parameters
        if field.name != "head":
            assert parameters[field.name].default == field.default
            assert f"{field.name}: {field.metadata['help']}" in train_head.__doc__
    assert parameters["head"].default == "weighted_sum"


def test_unknown_setting_is_refused(cache):
    with pytest.raises(UnknownNameError, match="unknown setting 'dropuot': did you mean dropout"):
        train_head(cache, "baseline", dropuot=0.1)


def test_thresholds_are_the_best_of_validation(cache, trained):
    run = trained
    rows = cache.rows("val")
    p_val = probabilities(run, cache)[rows]
    for c, scores in enumerate(run.metrics.per_label.values()):
        known = cache.labels.values[rows, c] >= 0
        truth, p = cache.labels.values[rows, c][known], p_val[known, c]
        best = max(reference.f1_score(truth, p >= cut) for cut in p)
        assert reference.f1_score(truth, p >= scores.threshold) == pytest.approx(best)
        assert scores.threshold_source == "f1 on validation"


def test_test_labels_affect_neither_head_nor_thresholds(cache, trained):
    values = cache.labels.values.copy()
    test = cache.rows("test")
    values[test] = np.random.default_rng(0).integers(0, 2, (len(test), 3))
    first, second = trained, train(relabeled(cache, values))
    assert np.array_equal(probabilities(first, cache), probabilities(second, cache))
    assert first.model.thresholds == second.model.thresholds
    assert first.metrics.macro.auroc != second.metrics.macro.auroc


def test_validation_labels_affect_thresholds(cache):
    values = cache.labels.values.copy()
    val = cache.rows("val")
    values[val] = np.where(values[val] >= 0, 1 - values[val], -1)
    first, second = train(cache, epochs=1), train(relabeled(cache, values), epochs=1)
    assert np.array_equal(probabilities(first, cache), probabilities(second, cache))
    for a, b in zip(first.model.thresholds, second.model.thresholds, strict=True):
        assert a != b


def test_spread_over_seeds_is_that_of_separate_trainings(cache):
    sizes = {"train_size": 60, "n_bootstrap": 50}
    together = train(cache, seeds=3, seed=5, **sizes).metrics
    alone = [train(cache, seed=seed, **sizes).metrics for seed in (5, 6, 7)]
    spread = together.seeds
    assert spread.seeds == [5, 6, 7]
    for group in ("macro", "micro"):
        for name, over_seeds in getattr(spread, group).items():
            values = [getattr(getattr(metrics, group), name) for metrics in alone]
            assert over_seeds.values == values
            assert over_seeds.mean == pytest.approx(np.mean(values))
            assert over_seeds.sd == pytest.approx(np.std(values, ddof=1))
    for name in ("exact_match", "hamming_loss"):
        assert getattr(spread, name).values == [getattr(metrics, name) for metrics in alone]
    assert len(set(spread.macro["auroc"].values)) == 3
    # The headline is the mean of the seeds, with an interval over patients and seeds.
    headline = together.headline
    assert (headline.n_seeds, headline.note) == (3, "mean of 3 seeds")
    assert headline.macro.auroc == spread.macro["auroc"].mean
    assert headline.exact_match == spread.exact_match.mean
    low, high = headline.macro.auroc_ci
    assert (low, high) == spread.macro["auroc"].ci95
    assert low < headline.macro.auroc < high
    assert f"mean of 3 seeds: AUROC {headline.macro.auroc:.3f} [{low:.3f}" in repr(together)
    assert alone[0].headline.macro == alone[0].macro
    assert alone[0].headline.note == ""
    # So is that over the labels with enough patients.
    supported = [metrics.supported.macro.auroc for metrics in alone]
    assert spread.supported["auroc"].values == supported
    assert headline.supported.auroc == pytest.approx(np.mean(supported))
    assert headline.supported.auroc_ci == spread.supported["auroc"].ci95
    # The metrics themselves are those of the first seed.
    assert together.per_label == alone[0].per_label
    assert together.ci95 == alone[0].ci95


def test_spread_is_undefined_where_a_seed_is(cache):
    values = cache.labels.values.copy()
    values[cache.rows("test")] = 0
    spread = train(relabeled(cache, values), seeds=2).metrics.seeds.macro["auroc"]
    assert (spread.mean, spread.sd, spread.values) == (None, None, [None, None])


def test_zero_seeds_are_refused(cache):
    with pytest.raises(UsageError, match="`seeds` is 0: must be at least 1"):
        train(cache, seeds=0)


def test_every_epoch_of_every_seed_is_reported(cache):
    epochs = []
    train(cache, epochs=2, seeds=2, on_epoch=lambda seed, epoch: epochs.append((seed, epoch.epoch)))
    assert epochs == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_every_control_is_reported(cache):
    controls = []
    options = {"head": "concat", "controls": True, "epochs": 1}
    train(cache, **options, on_control=lambda done, total: controls.append((done, total)))
    total = 1 + 5 + 1  # permuted texts, shuffled labels, random features
    assert controls == [(done, total) for done in range(total + 1)]


def test_label_without_training_positives_is_undefined(without_training_positives):
    cache = without_training_positives
    run = train(cache, n_bootstrap=50)
    scores = run.metrics.per_label["Nodule"]
    truth = cache.labels.values[cache.rows("test"), 2]
    assert scores.n_positive == (truth == 1).sum() > 0
    assert scores.n_known == (truth >= 0).sum()
    assert scores.confusion is None
    for name in ("precision", "recall", "f1", "auroc", "auprc", "accuracy"):
        assert getattr(scores, name) is None
        assert scores.interval(name) is None
    assert run.metrics.at_half.per_label["Nodule"].f1 is None
    assert "Nodule has no positives in training: its metrics are undefined" in run.warnings
    assert list(run.metrics.per_label) == ["Mass", "Effusion", "Nodule"]


def test_averages_ignore_labels_that_could_not_be_learned(without_training_positives):
    cache = without_training_positives
    run = train(cache)
    rows = cache.rows("test")
    truth, p = cache.labels.values[rows, :2], probabilities(run, cache)[rows, :2]
    decided = p >= run.model.thresholds[:2]
    aurocs = [auroc(truth[:, c], p[:, c]) for c in range(2)]
    assert run.metrics.macro.auroc == pytest.approx(np.mean(aurocs))
    assert run.metrics.micro.auroc == pytest.approx(auroc(truth.ravel(), p.ravel()))
    complete = (truth >= 0).all(axis=1)
    matches = (truth[complete] == decided[complete]).all(axis=1)
    assert run.metrics.exact_match == pytest.approx(matches.mean())
    wrong = (truth != decided)[truth >= 0]
    assert run.metrics.hamming_loss == pytest.approx(wrong.mean())


def test_label_without_training_negatives_is_undefined(cache):
    values = cache.labels.values.copy()
    values[cache.rows("train"), 0] = 1
    run = train(relabeled(cache, values))
    assert run.metrics.per_label["Mass"].auroc is None
    assert "Mass has no negatives in training: its metrics are undefined" in run.warnings


def test_labels_without_training_positives_share_a_warning(cache):
    values = cache.labels.values.copy()
    values[cache.rows("train"), 1:] = 0
    undefined = [w for w in train(relabeled(cache, values)).warnings if "undefined" in w]
    expected = "Effusion, Nodule have no positives in training: their metrics are undefined"
    assert undefined == [expected]


def test_seeds_without_positives_are_named_in_the_warning(cache):
    values = cache.labels.values.copy()
    train_rows = cache.rows("train")
    values[train_rows, 2] = 0
    values[train_rows[:12], 2] = 1  # few enough to be missing in some subsets of 10 images
    run = train(relabeled(cache, values), seeds=6, train_size=10)

    def subset(seed):
        return np.random.default_rng(seed).choice(train_rows, size=10, replace=False)

    missed = [seed for seed in range(6) if not (values[subset(seed), 2] == 1).any()]
    assert 0 < len(missed) < 6
    expected = f"no positives in training with seed {', '.join(map(str, missed))}: its metrics"
    assert any(f"Nodule has {expected}" in warning for warning in run.warnings)


@pytest.mark.parametrize("controls", [False, True])
@pytest.mark.parametrize("head", ["linear", "baseline"])
def test_labels_without_any_learnable_one_are_refused(cache, head, controls):
    values = cache.labels.values.copy()
    values[cache.rows("train")] = 0
    with pytest.raises(UsageError, match="no label has both positives and negatives"):
        train_head(relabeled(cache, values), head, controls=controls, n_bootstrap=0)


def test_training_images_that_are_all_copies_are_refused(cache):
    images = dataclasses.replace(cache.images, sha256=np.full(len(cache), b"f" * 64))
    with pytest.raises(UsageError, match=r"all \d+ training images of .* are copies"):
        train(dataclasses.replace(cache, images=images))


def test_test_label_of_one_class_is_undefined_alone(cache):
    values = cache.labels.values.copy()
    values[cache.rows("test"), 0] = 0
    metrics = train(relabeled(cache, values)).metrics
    assert metrics.per_label["Mass"].auroc is None
    assert metrics.per_label["Mass"].recall is None
    assert metrics.per_label["Mass"].confusion[1] == [0, 0]
    others = [metrics.per_label[name].auroc for name in ("Effusion", "Nodule")]
    assert metrics.macro.auroc == pytest.approx(np.mean(others))


def test_without_test_images_validation_is_scored_at_one_half(write, problem):
    split = np.where(problem["split"] == "test", "train", problem["split"])
    cache = write(
        problem["embedding"],
        problem["labels"],
        split,
        names=("Mass", "Effusion", "Nodule"),
        patient=problem["patient"],
    )
    run = train(cache)
    assert (run.metrics.split, run.metrics.n) == ("val", 60)
    for scores in run.metrics.per_label.values():
        assert (scores.threshold, scores.threshold_source) == (0.5, NOT_CHOSEN)
    val, p = cache.rows("val"), probabilities(run, cache)
    aurocs = [auroc(cache.labels.values[val, c], p[val, c]) for c in range(3)]
    assert run.metrics.macro.auroc == pytest.approx(np.mean(aurocs))
    assert any("no test split" in warning for warning in run.warnings)


def test_split_by_image_is_warned_of(write, problem, trained):
    by_image = write(
        problem["embedding"],
        problem["labels"],
        problem["split"],
        names=("Mass", "Effusion", "Nodule"),
        image_level_split=True,
        file="by-image.h5",
    )
    assert any("split is by image" in warning for warning in train(by_image).warnings)
    assert not any("split is by image" in warning for warning in trained.warnings)


def test_training_that_was_cut_off_is_warned_of(cache):
    cut, complete = train(cache, epochs=1), train(cache, epochs=40, patience=3, learning_rate=0.05)
    assert any("still falling at the last epoch (1)" in warning for warning in cut.warnings)
    assert complete.config["best_epoch"] < 40
    assert not any("still falling" in warning for warning in complete.warnings)


def test_fit_that_was_cut_off_is_warned_of(aligned_cache, monkeypatch):
    def warnings():
        run = train_head(aligned_cache, "lp_plus_plus", n_bootstrap=0, controls=False)
        return [warning for warning in run.warnings if "before its optimum" in warning]

    assert warnings() == []
    monkeypatch.setattr("featurecache.heads.models.lp_plus_plus.MAX_STEPS", 10)
    assert warnings() == ["the fit of lp_plus_plus stopped before its optimum"]


def test_cache_without_labels_is_refused(cache, write, problem):
    unknown = relabeled(cache, np.full_like(cache.labels.values, -1))
    with pytest.raises(UsageError, match=r"toy\.h5 has no labels: extract the same images again"):
        train(unknown)
    nameless = write(problem["embedding"], np.empty((300, 0)), problem["split"], names=())
    with pytest.raises(UsageError, match="has no labels"):
        train(nameless)


def test_only_heads_that_use_text_need_it(cache):
    textless = dataclasses.replace(cache, texts={})
    assert train(textless).config["prompts"] is None
    for head in ("concat", "weighted_sum"):
        with pytest.raises(CacheError, match="holds no text embeddings"):
            train(textless, head)
        assert train(cache, head, epochs=1).config["prompts"]["name"] == "toy"


def test_prompt_set_is_chosen_by_name(cache):
    other = dataclasses.replace(cache.texts["toy"], name="other")
    both = dataclasses.replace(cache, texts={**cache.texts, "other": other})
    assert train(both, "concat", prompts="other").config["prompts"]["name"] == "other"
    with pytest.raises(CacheError, match=r"several prompt sets \(other, toy\)"):
        train(both, "concat")
    with pytest.raises(UnknownNameError, match="did you mean other"):
        train(both, "concat", prompts="othr")


def test_view_control_uses_the_rows_of_the_training(cache):
    run = train(cache, train_size=50)
    chosen = np.random.default_rng(0).choice(cache.rows("train"), size=50, replace=False)
    test, truth, view = cache.rows("test"), cache.labels.values, cache.views
    p = np.empty((len(test), 3))
    for c in range(3):
        for name in ("AP", "PA"):
            labels = truth[chosen, c][(view[chosen] == name) & (truth[chosen, c] >= 0)]
            p[view[test] == name, c] = labels.mean()
    control = run.metrics.controls["view_only"]
    aurocs = [auroc(truth[test, c], p[:, c]) for c in range(3)]
    assert control.macro.auroc == pytest.approx(np.mean(aurocs))
    assert control.micro.auroc == pytest.approx(auroc(truth[test].ravel(), p.ravel()))


def test_negative_controls_score_at_chance(cache, trained):
    # Six epochs are too few to learn, and so to show that the controls do not.
    run = train(cache, n_bootstrap=100, controls=True, epochs=30)
    assert run.metrics.macro.auroc > 0.58
    for name in ("shuffled_labels", "random_features"):
        control = run.metrics.controls[name]
        assert abs(control.macro.auroc - 0.5) < 0.1
        low, high = control.macro.auroc_ci
        assert low < 0.55
        assert high > 0.45
    untrained = {"any_finding", "prevalence", "always_negative", "view_only"}
    assert set(trained.metrics.controls) == untrained


def test_a_head_is_compared_with_one_score_for_all_labels(cache, trained):
    metrics = train(cache, seeds=2).metrics
    control = metrics.controls["any_finding"]
    alone = trained, train(cache, seed=1)
    aurocs = [run.metrics.supported.macro.auroc for run in alone]
    assert control.gain.pairs == 2
    assert control.gain.macro.auroc.difference == pytest.approx(
        np.mean(aurocs) - control.supported.macro.auroc
    )


def test_text_gain_is_the_difference_to_permuted_texts(aligned_cache):
    settings = {"epochs": 4, "hidden": (4,), "batch_size": None, "learning_rate": None}
    run = train(aligned_cache, "text_residual", seeds=2, n_bootstrap=30, controls=True, **settings)
    gain = run.metrics.text_gain
    assert (gain.against, gain.pairs) == ("permuted", 2)
    alone = [
        train(
            aligned_cache,
            "text_residual",
            seed=seed,
            text_ablation=ablation,
            n_bootstrap=0,
            **settings,
        ).metrics.macro.auroc
        for seed in (0, 1)
        for ablation in ("none", "permuted")
    ]
    difference = (alone[0] - alone[1] + alone[2] - alone[3]) / 2
    assert gain.macro.auroc.difference == pytest.approx(difference)
    assert difference > 0.02
    low, high = gain.macro.auroc.ci95
    assert low < difference < high


@pytest.mark.parametrize(
    ("head", "settings"), [("baseline", {}), ("concat", {"text_ablation": "zero"})]
)
def test_text_gain_is_undefined_without_real_texts(aligned_cache, head, settings):
    run = train(aligned_cache, head, epochs=2, hidden=(4,), controls=True, **settings)
    assert run.metrics.text_gain is None


def test_list_of_heads_gives_list_of_runs(cache):
    runs = train_head(cache, ["prototype", "knn"], controls=False, n_bootstrap=0, seed=3)
    assert [run.config["settings"]["head"] for run in runs] == ["prototype", "knn"]
    alone = train_head(cache, "knn", controls=False, n_bootstrap=0, seed=3)
    assert runs[1].metrics == alone.metrics
    assert len(train_head(cache, ["knn"], controls=False, n_bootstrap=0)) == 1
    for heads in ([], ["knn", "knn"]):
        with pytest.raises(UsageError, match="each once"):
            train_head(cache, heads)


def test_the_run_says_how_its_settings_were_chosen(cache):
    chosen = {
        head: train_head(cache, head, controls=False, n_bootstrap=0).config["chosen"]
        for head in ("linear", "knn", "prototype")
    }
    assert chosen["linear"].endswith(" by cross-validation on training patients")
    assert chosen["knn"].endswith(" by validation")
    assert chosen["prototype"] == "only thresholds, by validation"
