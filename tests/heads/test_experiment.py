"""A head trained from a cache and measured: against scikit-learn and plain counting."""

import dataclasses
import json

import numpy as np
import pytest
import sklearn.metrics as reference

from featurecache.errors import CacheError, UnknownNameError, UsageError
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import run_experiment
from featurecache.heads.fit import predict_probabilities
from featurecache.store.records import Labels

CONFIG = HeadConfig(head="baseline", hidden=(8,), epochs=6, batch_size=32, learning_rate=1e-2)
DRAWS = 50


def run(cache, *, seeds=1, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return run_experiment(cache, config, seeds=seeds, n_bootstrap=DRAWS, controls=False)


def relabelled(cache, values, names=None):
    return dataclasses.replace(cache, labels=Labels(names or cache.labels.names, values))


def auroc(truth, score):
    known = truth >= 0
    return reference.roc_auc_score(truth[known], score[known])


@pytest.fixture
def without_training_positives(cache):
    """Nobody in training has Nodule; some in validation and test do."""
    values = cache.labels.values.copy()
    values[cache.rows("train"), 2] = 0
    return relabelled(cache, values)


def test_the_document_has_the_keys_of_the_contract(cache):
    metrics = run(cache, seeds=2).metrics
    averages = {"precision", "recall", "f1", "auroc", "auprc"}
    assert set(metrics) >= {
        *("macro", "micro", "exact_match", "hamming_loss", "per_label", "ci95", "n"),
        *("n_patients", "split", "at_half", "controls", "seeds", "warnings"),
    }
    assert set(metrics["macro"]) >= averages
    assert set(metrics["micro"]) >= averages
    for figures in metrics["per_label"].values():
        assert set(figures) >= averages | {"n_positive", "threshold", "confusion"}
    assert list(metrics["per_label"]) == list(cache.labels.names)
    assert (metrics["n"], metrics["n_patients"], metrics["split"]) == (80, 40, "test")
    json.dumps(metrics, allow_nan=False)


def test_the_figures_are_scikit_learns_of_the_test_rows(cache):
    found = run(cache)
    rows = cache.rows("test")
    truth, p = cache.labels.values[rows], found.probability[rows]
    areas = [auroc(truth[:, c], p[:, c]) for c in range(3)]
    for c, (name, figures) in enumerate(found.metrics["per_label"].items()):
        known = truth[:, c] >= 0
        y, decided = truth[known, c], p[known, c] >= figures["threshold"]
        assert figures["auroc"] == pytest.approx(areas[c]), name
        assert figures["f1"] == pytest.approx(reference.f1_score(y, decided))
        assert figures["confusion"] == reference.confusion_matrix(y, decided).tolist()
        assert figures["n_positive"] == y.sum()
    assert found.metrics["macro"]["auroc"] == pytest.approx(np.mean(areas))


def test_the_probabilities_are_those_of_the_head_that_is_given_back(cache):
    found = run(cache)
    again = predict_probabilities(found.head.module, cache.embedding)
    assert np.array_equal(found.probability, again)
    assert found.probability.shape == (300, 3)


def test_thresholds_are_the_best_of_validation(cache):
    found = run(cache)
    rows = cache.rows("val")
    for c, figures in enumerate(found.metrics["per_label"].values()):
        known = cache.labels.values[rows, c] >= 0
        truth, p = cache.labels.values[rows, c][known], found.probability[rows, c][known]
        best = max(reference.f1_score(truth, p >= cut) for cut in p)
        assert reference.f1_score(truth, p >= figures["threshold"]) == pytest.approx(best)
        assert figures["threshold_source"] == "validation"


def test_test_labels_decide_neither_head_nor_thresholds(cache):
    values = cache.labels.values.copy()
    test = cache.rows("test")
    values[test] = np.random.default_rng(0).integers(0, 2, (len(test), 3))
    one, other = run(cache), run(relabelled(cache, values))
    assert np.array_equal(one.probability, other.probability)
    thresholds = [
        [figures["threshold"] for figures in found.metrics["per_label"].values()]
        for found in (one, other)
    ]
    assert thresholds[0] == thresholds[1]
    assert one.metrics["macro"]["auroc"] != other.metrics["macro"]["auroc"]


def test_validation_labels_do_decide_thresholds(cache):
    values = cache.labels.values.copy()
    val = cache.rows("val")
    values[val] = np.where(values[val] >= 0, 1 - values[val], -1)
    one, other = run(cache, epochs=1), run(relabelled(cache, values), epochs=1)
    assert np.array_equal(one.probability, other.probability)
    for name in cache.labels.names:
        first, second = (found.metrics["per_label"][name]["threshold"] for found in (one, other))
        assert first != second


def test_spread_over_seeds_is_that_of_the_separate_runs(cache):
    together = run(cache, seeds=3, seed=5, train_size=60).metrics
    alone = [run(cache, seed=seed, train_size=60).metrics for seed in (5, 6, 7)]
    spread = together["seeds"]
    assert spread["seeds"] == [5, 6, 7]
    for group in ("macro", "micro"):
        assert set(spread[group]) == set(together[group])
        for name, found in spread[group].items():
            values = [metrics[group][name] for metrics in alone]
            assert found["values"] == values
            assert found["mean"] == pytest.approx(np.mean(values))
            assert found["sd"] == pytest.approx(np.std(values, ddof=1))
    for name in ("exact_match", "hamming_loss"):
        assert spread[name]["values"] == [metrics[name] for metrics in alone]
    assert len(set(spread["macro"]["auroc"]["values"])) == 3
    # The figures themselves are those of the first seed.
    assert together["per_label"] == alone[0]["per_label"]
    assert together["ci95"] == alone[0]["ci95"]


def test_where_a_seeds_figure_is_undefined_so_is_the_spread(cache):
    values = cache.labels.values.copy()
    # Every test image lacks every finding.
    values[cache.rows("test")] = 0
    spread = run(relabelled(cache, values), seeds=2).metrics["seeds"]["macro"]["auroc"]
    assert spread == {"mean": None, "sd": None, "values": [None, None]}


def test_no_seeds_are_refused(cache):
    with pytest.raises(UsageError, match="--seeds 0: must be at least 1"):
        run(cache, seeds=0)


def test_every_epoch_of_every_seed_is_told(cache):
    heard = []
    config = dataclasses.replace(CONFIG, epochs=2)
    run_experiment(
        cache,
        config,
        seeds=2,
        n_bootstrap=0,
        on_epoch=lambda seed, epoch: heard.append((seed, epoch)),
    )
    assert [(seed, epoch.epoch) for seed, epoch in heard] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_a_label_without_training_positives_has_no_figures(without_training_positives):
    cache = without_training_positives
    found = run(cache)
    figures = found.metrics["per_label"]["Nodule"]
    truth = cache.labels.values[cache.rows("test"), 2]
    assert figures["n_positive"] == (truth == 1).sum() > 0
    assert figures["n_known"] == (truth >= 0).sum()
    for name in ("precision", "recall", "f1", "auroc", "auprc", "accuracy", "confusion"):
        assert figures[name] is None
        if name != "confusion":
            assert found.metrics["ci95"]["per_label"]["Nodule"][name] is None
    assert found.metrics["at_half"]["per_label"]["Nodule"]["f1"] is None
    assert "Nodule has no positives in training: its figures are null" in found.warnings
    assert found.metrics["warnings"] == list(found.warnings)
    assert list(found.metrics["per_label"]) == ["Mass", "Effusion", "Nodule"]


def test_no_average_counts_a_label_that_could_not_be_learned(without_training_positives):
    cache = without_training_positives
    found = run(cache)
    rows = cache.rows("test")
    truth, p = cache.labels.values[rows, :2], found.probability[rows, :2]
    thresholds = [found.metrics["per_label"][name]["threshold"] for name in ("Mass", "Effusion")]
    decided = p >= thresholds
    areas = [auroc(truth[:, c], p[:, c]) for c in range(2)]
    assert found.metrics["macro"]["auroc"] == pytest.approx(np.mean(areas))
    assert found.metrics["micro"]["auroc"] == pytest.approx(auroc(truth.ravel(), p.ravel()))
    whole = (truth >= 0).all(axis=1)
    assert found.metrics["exact_match"] == pytest.approx(
        (truth[whole] == decided[whole]).all(axis=1).mean()
    )
    wrong = (truth != decided)[truth >= 0]
    assert found.metrics["hamming_loss"] == pytest.approx(wrong.mean())


def test_a_label_that_is_always_there_in_training_has_no_figures_either(cache):
    values = cache.labels.values.copy()
    values[cache.rows("train"), 0] = 1
    found = run(relabelled(cache, values))
    assert found.metrics["per_label"]["Mass"]["auroc"] is None
    assert "Mass has no negatives in training: its figures are null" in found.warnings


def test_a_seed_that_met_no_positives_is_named(cache):
    values = cache.labels.values.copy()
    train = cache.rows("train")
    values[train, 2] = 0
    values[train[:12], 2] = 1  # few enough to be missed by some choices of 10 images
    found = run(relabelled(cache, values), seeds=6, train_size=10)
    missed = [seed for seed in range(6) if not (values[_drawn(train, 10, seed), 2] == 1).any()]
    assert 0 < len(missed) < 6
    expected = f"no positives in training with seed {', '.join(map(str, missed))}: its figures"
    assert any(f"Nodule has {expected}" in warning for warning in found.warnings)


def _drawn(rows, size, seed):
    return np.random.default_rng(seed).choice(rows, size=size, replace=False)


def test_labels_of_which_none_can_be_learned_are_refused(cache):
    values = cache.labels.values.copy()
    values[cache.rows("train")] = 0
    with pytest.raises(UsageError, match="no label has both positives and negatives"):
        run(relabelled(cache, values))


def test_a_test_label_of_one_class_is_undefined_and_the_rest_is_not(cache):
    values = cache.labels.values.copy()
    values[cache.rows("test"), 0] = 0
    metrics = run(relabelled(cache, values)).metrics
    assert metrics["per_label"]["Mass"]["auroc"] is None
    assert metrics["per_label"]["Mass"]["recall"] is None
    assert metrics["per_label"]["Mass"]["confusion"][1] == [0, 0]
    others = [metrics["per_label"][name]["auroc"] for name in ("Effusion", "Nodule")]
    assert metrics["macro"]["auroc"] == pytest.approx(np.mean(others))


def test_without_test_images_validation_is_measured_at_a_half(write, problem):
    split = np.where(problem["split"] == "test", "train", problem["split"])
    cache = write(
        problem["embedding"],
        problem["labels"],
        split,
        names=("Mass", "Effusion", "Nodule"),
        patient=problem["patient"],
    )
    found = run(cache)
    assert (found.metrics["split"], found.metrics["n"]) == ("val", 60)
    for figures in found.metrics["per_label"].values():
        assert (figures["threshold"], figures["threshold_source"]) == (0.5, "0.5")
    val = cache.rows("val")
    areas = [auroc(cache.labels.values[val, c], found.probability[val, c]) for c in range(3)]
    assert found.metrics["macro"]["auroc"] == pytest.approx(np.mean(areas))
    assert any("there are no test images" in warning for warning in found.warnings)


def test_a_split_by_image_is_warned_of(write, problem, cache):
    by_image = write(
        problem["embedding"],
        problem["labels"],
        problem["split"],
        names=("Mass", "Effusion", "Nodule"),
        image_level_split=True,
        file="by-image.h5",
    )
    assert any("the split is by image" in warning for warning in run(by_image).warnings)
    assert not any("the split is by image" in warning for warning in run(cache).warnings)


def test_a_training_that_was_cut_off_is_warned_of(cache):
    cut, whole = run(cache, epochs=1), run(cache, epochs=40, patience=3, learning_rate=0.05)
    assert any("still falling at the last epoch (1): give" in warning for warning in cut.warnings)
    assert whole.head.best_epoch < 40
    assert whole.warnings == ()


def test_a_cache_without_labels_is_refused(cache, write, problem):
    unknown = relabelled(cache, np.full_like(cache.labels.values, -1))
    with pytest.raises(CacheError, match=r"toy\.h5 holds no labels to train on"):
        run(unknown)
    nameless = write(problem["embedding"], np.empty((300, 0)), problem["split"], names=())
    with pytest.raises(CacheError, match="holds no labels to train on"):
        run(nameless)


def test_text_is_needed_by_the_heads_that_use_it_only(cache):
    textless = dataclasses.replace(cache, texts={})
    found = run(textless)
    assert found.text is None
    for head in ("concat", "weighted_sum"):
        with pytest.raises(CacheError, match="holds no text embeddings"):
            run(textless, head=head)
        assert run(cache, head=head).text.name == "toy"


def test_the_prompt_set_is_the_one_that_was_named(cache):
    other = dataclasses.replace(cache.texts["toy"], name="other")
    both = dataclasses.replace(cache, texts={**cache.texts, "other": other})
    assert run(both, head="concat", prompts="other").text.name == "other"
    with pytest.raises(CacheError, match=r"several prompt sets \(other, toy\)"):
        run(both, head="concat")
    with pytest.raises(UnknownNameError, match="did you mean other"):
        run(both, head="concat", prompts="othr")


def test_the_view_control_learns_from_the_rows_that_the_head_learned_from(cache):
    found = run(cache, train_size=50)
    train, test = found.head.train_rows, cache.rows("test")
    truth, view = cache.labels.values, cache.views
    p = np.empty((len(test), 3))
    for c in range(3):
        for name in ("AP", "PA"):
            seen = truth[train, c][(view[train] == name) & (truth[train, c] >= 0)]
            p[view[test] == name, c] = seen.mean()
    control = found.metrics["controls"]["view_only"]
    areas = [auroc(truth[test, c], p[:, c]) for c in range(3)]
    assert control["macro"]["auroc"] == pytest.approx(np.mean(areas))
    assert control["micro"]["auroc"] == pytest.approx(auroc(truth[test].ravel(), p.ravel()))


def test_nothing_is_learned_from_other_images_labels_or_from_random_features(cache):
    found = run_experiment(cache, CONFIG, n_bootstrap=100)
    assert found.metrics["macro"]["auroc"] > 0.62
    for control in ("shuffled_labels", "random_features"):
        figures = found.metrics["controls"][control]
        assert abs(figures["macro"]["auroc"] - 0.5) < 0.1
        low, high = figures["ci95"]["macro"]["auroc"]
        assert low < 0.55
        assert high > 0.45
    without = run_experiment(cache, CONFIG, n_bootstrap=0, controls=False)
    assert set(without.metrics["controls"]) == {"view_only"}


def test_what_the_texts_bring_is_measured_against_permuted_ones(aligned_cache):
    config = HeadConfig(head="text_residual", epochs=4, hidden=(4,))
    found = run_experiment(aligned_cache, config, seeds=2, n_bootstrap=30)
    gain = found.metrics["text_gain"]
    assert (gain["against"], gain["pairs"]) == ("permuted", 2)
    alone = [
        run_experiment(
            aligned_cache,
            dataclasses.replace(config, seed=seed, text_ablation=control),
            n_bootstrap=0,
            controls=False,
        ).metrics["macro"]["auroc"]
        for seed in (0, 1)
        for control in ("none", "permuted")
    ]
    difference = (alone[0] - alone[1] + alone[2] - alone[3]) / 2
    assert gain["macro"]["auroc"]["difference"] == pytest.approx(difference)
    assert difference > 0.02
    low, high = gain["macro"]["auroc"]["ci95"]
    assert low < difference < high


@pytest.mark.parametrize(
    "settings", [{"head": "baseline"}, {"head": "concat", "text_ablation": "zero"}]
)
def test_without_real_texts_there_is_no_gain_to_measure(aligned_cache, settings):
    config = HeadConfig(**settings, epochs=2, hidden=(4,))
    assert run_experiment(aligned_cache, config, n_bootstrap=10).metrics["text_gain"] is None
