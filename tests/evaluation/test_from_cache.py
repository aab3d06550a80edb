"""Zero-shot scores of a whole cache, against plain formulas on what was written to it."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import sklearn.metrics as reference

from featurecache.errors import CacheError, UnknownNameError, UsageError
from featurecache.evaluation.from_cache import (
    cache_caveats,
    predictions_of,
    save_zero_shot,
    zero_shot,
)
from featurecache.store.cache import Cache
from featurecache.store.records import Labels, TextEmbeddings, TextSet
from tests.evaluation.toy_caches import write_toy_cache

DIM = 16
NAMES = ("Mass", "Effusion", "Nodule")
SCALE, BIAS = 20.0, -4.0


def texts(vectors: np.ndarray) -> TextEmbeddings:
    prompts = tuple((f"prompt {row}",) for row in range(len(vectors)))
    vectors = vectors.astype(np.float32)
    return TextEmbeddings(prompts, vectors[:, np.newaxis], vectors)


@pytest.fixture
def toy() -> dict[str, np.ndarray]:
    """Images that lie towards the texts of their findings, of any length."""
    rng = np.random.default_rng(2)
    labels = (rng.random((200, 3)) < [0.5, 0.3, 0.4]).astype(np.int8)
    axes = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    positive, negative = axes[:3], axes[3:6]
    noise = 0.05 * rng.normal(size=(200, DIM))
    images = (2 * labels - 1) @ positive - (2 * labels - 1) @ negative + noise
    lengths = rng.uniform(0.5, 5, size=(200, 1))
    return {
        "images": images * lengths,
        "labels": labels,
        "positive": positive,
        "negative": negative,
    }


def prompt_set(toy, *, negative=True, aligned=True, scale=SCALE, bias=None, rows=slice(None)):
    return TextSet(
        name="signs",
        fingerprint="of the prompts",
        templates=("signs of {}",),
        labels=NAMES[rows],
        positive=texts(toy["positive"][rows]),
        negative=texts(toy["negative"][rows]) if negative else None,
        aligned=aligned,
        scale=scale,
        bias=bias,
    )


@pytest.fixture
def cache(toy, tmp_path) -> Cache:
    return write_toy_cache(
        tmp_path / "toy.h5", toy["images"], toy["labels"], prompt_set(toy), names=NAMES
    )


def with_text(cache, text):
    return dataclasses.replace(cache, texts={text.name: text})


def cosines(cache, vectors):
    x, t = cache.embedding.astype(np.float64), vectors.astype(np.float32).astype(np.float64)
    return (x @ t.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(t, axis=1))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_planted_findings_are_told_without_fault(cache):
    found = zero_shot(cache, n_bootstrap=50)
    assert found.scoring == "pair"
    assert (found.metrics["split"], found.metrics["n"]) == ("test", 50)
    for name in NAMES:
        assert found.metrics["per_label"][name]["auroc"] == 1
        assert found.metrics["per_label"][name]["auprc"] == 1
    assert found.metrics["macro"]["auroc"] == found.metrics["micro"]["auroc"] == 1
    assert found.metrics["macro"]["f1"] > 0.95
    assert found.metrics["warnings"] == []
    assert found.metrics["controls"]["view_only"] is None
    for control in ("shuffled_labels", "random_features", "permuted_texts"):
        low, high = found.metrics["controls"][control]["ci95"]["macro"]["auroc"]
        assert low < 0.6
        assert high > 0.4
        assert found.metrics["controls"][control]["macro"]["auroc"] < 0.7
    json.dumps(found.metrics, allow_nan=False)


def test_pair_scores_are_sigmoids_of_the_difference_of_cosines(cache, toy):
    found = zero_shot(cache, scoring="pair", n_bootstrap=0).scores
    difference = cosines(cache, toy["positive"]) - cosines(cache, toy["negative"])
    np.testing.assert_allclose(found.logits, SCALE * difference)
    np.testing.assert_allclose(found.probabilities, sigmoid(SCALE * difference))


@pytest.mark.parametrize("bias", [None, BIAS])
def test_sigmoid_scores_have_the_models_scale_and_bias(cache, toy, bias):
    text = prompt_set(toy, bias=bias)
    found = zero_shot(with_text(cache, text), scoring="sigmoid", n_bootstrap=0).scores
    expected = sigmoid(SCALE * cosines(cache, toy["positive"]) + (bias or 0))
    np.testing.assert_allclose(found.probabilities, expected)


def test_softmax_scores_compete_with_each_other(cache, toy):
    found = zero_shot(cache, scoring="softmax", n_bootstrap=0).scores
    powers = np.exp(SCALE * cosines(cache, toy["positive"]))
    np.testing.assert_allclose(found.probabilities, powers / powers.sum(axis=1, keepdims=True))


def test_softmax_of_a_single_label_is_against_its_negative(toy, tmp_path):
    text = prompt_set(toy, rows=slice(1))
    cache = write_toy_cache(
        tmp_path / "one.h5", toy["images"], toy["labels"][:, :1], text, names=("Mass",)
    )
    found = zero_shot(cache, scoring="softmax", n_bootstrap=0).scores
    up, down = (np.exp(SCALE * cosines(cache, toy[side][:1])) for side in ("positive", "negative"))
    np.testing.assert_allclose(found.probabilities, up / (up + down))


def test_a_text_without_a_scale_is_scored_by_its_cosines(cache, toy):
    found = zero_shot(
        with_text(cache, prompt_set(toy, scale=None)), scoring="sigmoid", n_bootstrap=0
    )
    np.testing.assert_allclose(found.scores.logits, cosines(cache, toy["positive"]))


def test_prompts_are_matched_to_labels_by_name(cache, toy):
    order = [2, 0, 1]
    shuffled = dataclasses.replace(
        prompt_set(toy),
        labels=tuple(NAMES[row] for row in order),
        positive=texts(toy["positive"][order]),
        negative=texts(toy["negative"][order]),
    )
    found = zero_shot(with_text(cache, shuffled), n_bootstrap=0)
    assert np.array_equal(found.scores.logits, zero_shot(cache, n_bootstrap=0).scores.logits)


def test_saturated_probabilities_do_not_tie_in_the_ranking(cache, toy):
    found = zero_shot(with_text(cache, prompt_set(toy, scale=500.0)), n_bootstrap=0)
    test = cache.rows("test")
    p = found.scores.probabilities[test]
    assert (p == 1).mean() > 0.3
    # A scale keeps the order: the figures are those of the unsaturated scores.
    gentle = zero_shot(with_text(cache, prompt_set(toy, scale=1.0)), n_bootstrap=0)
    assert found.metrics["micro"]["auroc"] == gentle.metrics["micro"]["auroc"]
    # Against other labels the order within the saturated ones shows.
    values = cache.labels.values.copy()
    values[test] = np.random.default_rng(0).integers(0, 2, (len(test), 3))
    other = dataclasses.replace(cache, labels=Labels(NAMES, values))
    logits = gentle.scores.logits[test]
    areas = [reference.roc_auc_score(values[test, c], logits[:, c]) for c in range(3)]
    tied = [reference.roc_auc_score(values[test, c], p[:, c]) for c in range(3)]
    found = zero_shot(with_text(other, prompt_set(toy, scale=500.0)), n_bootstrap=0)
    assert found.metrics["macro"]["auroc"] == pytest.approx(np.mean(areas))
    assert found.metrics["macro"]["auroc"] != pytest.approx(np.mean(tied))


def test_thresholds_come_from_validation(cache):
    values = cache.labels.values.copy()
    values[cache.rows("test")] = 1 - values[cache.rows("test")]
    other = dataclasses.replace(cache, labels=Labels(NAMES, values))
    before, after = (zero_shot(c, n_bootstrap=0).metrics["per_label"] for c in (cache, other))
    for name in NAMES:
        assert before[name]["threshold"] == after[name]["threshold"] != 0.5
        assert before[name]["threshold_source"] == "validation"


def test_unaligned_encoders_are_refused_with_the_reason(cache, toy):
    unaligned = prompt_set(toy, aligned=False)
    with pytest.raises(
        UsageError, match="two encoders were never trained together: make an alignment"
    ):
        zero_shot(with_text(cache, unaligned))


def test_what_a_scoring_needs_and_the_prompts_lack_is_said(cache, toy):
    plain = with_text(cache, prompt_set(toy, negative=False))
    with pytest.raises(UsageError, match="the prompts have none: add negative templates"):
        zero_shot(plain, scoring="pair")
    with pytest.raises(UnknownNameError, match="unknown scoring 'sofmax': did you mean softmax"):
        zero_shot(plain, scoring="sofmax")


def test_a_cache_without_text_or_labels_is_refused(cache):
    with pytest.raises(CacheError, match="holds no text embeddings"):
        zero_shot(dataclasses.replace(cache, texts={}))
    unknown = Labels(NAMES, np.full_like(cache.labels.values, -1))
    with pytest.raises(CacheError, match=r"toy\.h5 holds no labels to score against"):
        zero_shot(dataclasses.replace(cache, labels=unknown))


def test_auto_takes_labels_for_exclusive_only_when_exactly_one_holds_for_each_image(cache, toy):
    plain = with_text(cache, prompt_set(toy, negative=False))

    def chosen(values):
        labelled = dataclasses.replace(plain, labels=Labels(NAMES, values))
        return zero_shot(labelled, n_bootstrap=0).scoring

    one = np.eye(3, dtype=np.int8)[np.arange(200) % 3]
    assert chosen(one) == "softmax"
    two = one.copy()
    two[7] = [1, 1, 0]
    assert chosen(two) == "sigmoid"
    # Two that hold and one unknown come to a sum of one.
    two[7] = [1, 1, -1]
    assert chosen(two) == "sigmoid"


def test_without_test_images_validation_is_scored_and_it_is_said(toy, tmp_path):
    split = np.repeat(["train", "val"], 100)
    cache = write_toy_cache(
        tmp_path / "no-test.h5",
        toy["images"],
        toy["labels"],
        prompt_set(toy),
        names=NAMES,
        split=split,
    )
    found = zero_shot(cache, n_bootstrap=0)
    assert (found.metrics["split"], found.metrics["n"]) == ("val", 100)
    assert found.metrics["warnings"] == cache_caveats(cache)
    assert "there are no test images" in found.metrics["warnings"][0]


def test_a_cache_of_training_images_only_is_refused(toy, tmp_path):
    cache = write_toy_cache(
        tmp_path / "train.h5",
        toy["images"],
        toy["labels"],
        prompt_set(toy),
        names=NAMES,
        split=np.full(200, "train"),
    )
    with pytest.raises(UsageError, match="neither test nor validation images"):
        zero_shot(cache)


def test_a_split_by_image_is_warned_of(toy, tmp_path):
    cache = write_toy_cache(
        tmp_path / "by-image.h5",
        toy["images"],
        toy["labels"],
        prompt_set(toy),
        names=NAMES,
        by_image=True,
    )
    (warning,) = zero_shot(cache, n_bootstrap=0).metrics["warnings"]
    assert "the split is by image" in warning


@pytest.mark.parametrize("exposed", [True, False])
def test_an_encoder_that_may_have_seen_the_films_is_warned_of(cache, exposed):
    header = dataclasses.replace(cache.header, dataset="nih", exposed=exposed)
    warnings = cache_caveats(dataclasses.replace(cache, header=header))
    assert any("possible NIH exposure" in text for text in warnings) == exposed


def test_predicted_rows_are_validation_then_test(cache):
    probability = np.arange(600, dtype=np.float64).reshape(200, 3)
    rows = predictions_of(cache, probability)
    assert rows["splits"].tolist() == ["val"] * 50 + ["test"] * 50
    assert rows["ids"].tolist() == [f"{row:04d}.png" for row in range(100, 200)]
    assert np.array_equal(rows["probability"], probability[100:])
    assert np.array_equal(rows["truth"], cache.labels.values[100:])


def test_a_saved_run_holds_the_scores(cache, tmp_path):
    found = zero_shot(cache, n_bootstrap=50)
    save_zero_shot(tmp_path / "runs" / "one", cache, found)
    folder = tmp_path / "runs" / "one"
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "metrics.json",
        "predictions.csv",
    }
    assert json.loads((folder / "metrics.json").read_text()) == found.metrics
    config = json.loads((folder / "config.json").read_text())
    assert (config["kind"], config["scoring"]) == ("zero-shot", "pair")
    assert config["labels"] == list(NAMES)
    assert config["prompts"] == {"name": "signs", "fingerprint": "of the prompts"}
    assert config["cache"] == {
        "path": str(cache.path),
        "dataset": "toy",
        "model": "toy-encoder",
        "fingerprint": cache.fingerprint,
        "spec": {"checkpoint": "0123"},
        "dim": DIM,
    }
    with (folder / "predictions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    p = [float(line["Effusion probability"]) for line in lines]
    assert p == found.scores.probabilities[100:, 1].tolist()


def test_a_saved_run_is_never_written_over(cache, tmp_path):
    found = zero_shot(cache, n_bootstrap=0)
    save_zero_shot(tmp_path / "one", cache, found)
    with pytest.raises(UsageError, match="is there already"):
        save_zero_shot(tmp_path / "one", cache, found)


def test_an_encoder_that_was_trained_on_the_training_images_is_told(cache):
    known = frozenset([*cache.ids[cache.rows("train")][:7].tolist(), "another.png"])
    header = dataclasses.replace(cache.header, trained_on={cache.header.collection: known})
    (warning,) = [
        text
        for text in cache_caveats(dataclasses.replace(cache, header=header))
        if "itself" in text
    ]
    learned = len(cache.rows("train")) + len(cache.rows("val"))
    assert f"was trained on 7 of the {learned} training and validation images" in warning
    elsewhere = dataclasses.replace(cache.header, trained_on={"others": known})
    assert not [
        w for w in cache_caveats(dataclasses.replace(cache, header=elsewhere)) if "itself" in w
    ]
