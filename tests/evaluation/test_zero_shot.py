"""Zero-shot scores of a cache, against plain formulas on the embeddings that were written to it."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import sklearn.metrics as reference

from featurecache.errors import CacheError, UnknownNameError, UsageError
from featurecache.evaluation.from_cache import cache_caveats, learning_caveats
from featurecache.evaluation.zero_shot import zero_shot
from featurecache.provenance.records import ImageRecords
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
    """Images that point towards the texts of their findings, with varying norms."""
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


def logit(p):
    return np.log(p / (1 - p))


SCORED = slice(100, 200)
"""The validation and test rows of a toy cache, which are what a run predicts."""


def probabilities(cache, **options):
    return zero_shot(cache, n_bootstrap=0, **options).scored.probability


def test_planted_findings_are_separated_perfectly(cache):
    run = zero_shot(cache, n_bootstrap=50)
    metrics = run.metrics
    assert run.config["scoring"] == "pair"
    assert (metrics.split, metrics.n) == ("test", 50)
    for name in NAMES:
        assert metrics.per_label[name].auroc == metrics.per_label[name].auprc == 1
    assert metrics.macro.auroc == metrics.micro.auroc == 1
    assert metrics.macro.f1 > 0.95
    assert run.warnings == ()
    assert metrics.controls["view_only"] is None
    for name in ("shuffled_labels", "random_features", "permuted_texts"):
        control = metrics.controls[name].macro
        low, high = control.auroc_ci
        assert low < 0.6
        assert high > 0.4
        assert control.auroc < 0.7
    json.dumps(metrics.to_json(), allow_nan=False)


def test_pair_scores_are_sigmoids_of_differences_of_cosines(cache, toy):
    difference = cosines(cache, toy["positive"]) - cosines(cache, toy["negative"])
    expected = sigmoid(SCALE * difference)[SCORED]
    np.testing.assert_allclose(probabilities(cache, scoring="pair"), expected)


@pytest.mark.parametrize("bias", [None, BIAS])
def test_sigmoid_scores_use_the_scale_and_bias_of_the_model(cache, toy, bias):
    found = probabilities(with_text(cache, prompt_set(toy, bias=bias)), scoring="sigmoid")
    expected = sigmoid(SCALE * cosines(cache, toy["positive"]) + (bias or 0))
    np.testing.assert_allclose(found, expected[SCORED])


def test_softmax_is_over_the_labels(cache, toy):
    powers = np.exp(SCALE * cosines(cache, toy["positive"]))
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities(cache, scoring="softmax"), expected[SCORED])


def test_softmax_of_a_single_label_is_over_its_negative(toy, tmp_path):
    text = prompt_set(toy, rows=slice(1))
    cache = write_toy_cache(
        tmp_path / "one.h5", toy["images"], toy["labels"][:, :1], text, names=("Mass",)
    )
    up, down = (np.exp(SCALE * cosines(cache, toy[side][:1])) for side in ("positive", "negative"))
    expected = (up / (up + down))[SCORED]
    np.testing.assert_allclose(probabilities(cache, scoring="softmax"), expected)


def test_a_text_without_a_scale_is_scored_by_its_cosine(cache, toy):
    found = probabilities(with_text(cache, prompt_set(toy, scale=None)), scoring="sigmoid")
    np.testing.assert_allclose(logit(found), cosines(cache, toy["positive"])[SCORED])


def test_prompts_are_matched_to_labels_by_name(cache, toy):
    order = [2, 0, 1]
    shuffled = dataclasses.replace(
        prompt_set(toy),
        labels=tuple(NAMES[row] for row in order),
        positive=texts(toy["positive"][order]),
        negative=texts(toy["negative"][order]),
    )
    assert np.array_equal(probabilities(with_text(cache, shuffled)), probabilities(cache))


def test_saturated_probabilities_do_not_tie_in_the_ranking(cache, toy):
    saturated = zero_shot(with_text(cache, prompt_set(toy, scale=500.0)), n_bootstrap=0)
    test = saturated.scored.splits == "test"
    p = saturated.scored.probability[test]
    assert (p == 1).mean() > 0.3
    # The scale does not change the order, so the ranking metrics are those without saturation.
    gentle = zero_shot(with_text(cache, prompt_set(toy, scale=1.0)), n_bootstrap=0)
    assert saturated.metrics.micro.auroc == gentle.metrics.micro.auroc
    # With random labels, the order among saturated probabilities matters.
    values, rows = cache.labels.values.copy(), cache.rows("test")
    values[rows] = np.random.default_rng(0).integers(0, 2, (len(rows), 3))
    other = dataclasses.replace(cache, labels=Labels(NAMES, values))
    order = gentle.scored.probability[test]
    auroc = [reference.roc_auc_score(values[rows, c], order[:, c]) for c in range(3)]
    tied = [reference.roc_auc_score(values[rows, c], p[:, c]) for c in range(3)]
    metrics = zero_shot(with_text(other, prompt_set(toy, scale=500.0)), n_bootstrap=0).metrics
    assert metrics.macro.auroc == pytest.approx(np.mean(auroc))
    assert metrics.macro.auroc != pytest.approx(np.mean(tied))


def test_thresholds_come_from_validation(cache):
    values = cache.labels.values.copy()
    values[cache.rows("test")] = 1 - values[cache.rows("test")]
    other = dataclasses.replace(cache, labels=Labels(NAMES, values))
    before, after = (zero_shot(c, n_bootstrap=0).metrics.per_label for c in (cache, other))
    for name in NAMES:
        assert before[name].threshold == after[name].threshold != 0.5
        assert before[name].threshold_source == "f1 on validation"


def test_unaligned_encoders_are_refused(cache, toy):
    unaligned = prompt_set(toy, aligned=False)
    with pytest.raises(
        UsageError, match="two encoders were never trained together: fit an `alignment`"
    ):
        zero_shot(with_text(cache, unaligned))


def test_scoring_that_the_prompts_do_not_allow_is_refused(cache, toy):
    plain = with_text(cache, prompt_set(toy, negative=False))
    with pytest.raises(UsageError, match="the prompts have none: add negative templates"):
        zero_shot(plain, scoring="pair")
    with pytest.raises(UnknownNameError, match="unknown scoring 'sofmax': did you mean softmax"):
        zero_shot(plain, scoring="sofmax")


def test_a_cache_without_text_or_labels_is_refused(cache):
    with pytest.raises(CacheError, match="holds no text embeddings"):
        zero_shot(dataclasses.replace(cache, texts={}))
    unknown = Labels(NAMES, np.full_like(cache.labels.values, -1))
    with pytest.raises(UsageError, match=r"toy\.h5 has no labels: extract the same images again"):
        zero_shot(dataclasses.replace(cache, labels=unknown))


def test_auto_uses_softmax_only_where_every_image_has_exactly_one_label(cache, toy):
    plain = with_text(cache, prompt_set(toy, negative=False))

    def chosen(values):
        labelled = dataclasses.replace(plain, labels=Labels(NAMES, values))
        return zero_shot(labelled, n_bootstrap=0).config["scoring"]

    one = np.eye(3, dtype=np.int8)[np.arange(200) % 3]
    assert chosen(one) == "softmax"
    two = one.copy()
    two[7] = [1, 1, 0]
    assert chosen(two) == "sigmoid"
    # Two positives and one unknown (-1) sum to one.
    two[7] = [1, 1, -1]
    assert chosen(two) == "sigmoid"


def test_validation_is_scored_with_a_warning_where_there_is_no_test_split(toy, tmp_path):
    split = np.repeat(["train", "val"], 100)
    cache = write_toy_cache(
        tmp_path / "no-test.h5",
        toy["images"],
        toy["labels"],
        prompt_set(toy),
        names=NAMES,
        split=split,
    )
    run = zero_shot(cache, n_bootstrap=0)
    assert (run.metrics.split, run.metrics.n) == ("val", 100)
    assert list(run.warnings) == cache_caveats(cache, cache.rows("val"))
    assert "there is no test split" in run.warnings[0]


def test_a_cache_with_only_training_images_is_refused(toy, tmp_path):
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


def test_an_image_level_split_gives_a_warning(toy, tmp_path):
    cache = write_toy_cache(
        tmp_path / "by-image.h5",
        toy["images"],
        toy["labels"],
        prompt_set(toy),
        names=NAMES,
        by_image=True,
    )
    (warning,) = zero_shot(cache, n_bootstrap=0).warnings
    assert "the split is by image" in warning


@pytest.mark.parametrize("exposed", [True, False])
def test_an_encoder_that_may_have_seen_the_images_gives_a_warning(cache, exposed):
    header = dataclasses.replace(cache.header, dataset="nih", exposed=exposed)
    exposed_cache = dataclasses.replace(cache, header=header)
    warnings = cache_caveats(exposed_cache, cache.rows("test"))
    assert any("possible NIH exposure" in text for text in warnings) == exposed


def test_a_saved_run_holds_metrics_config_and_probabilities(cache, tmp_path):
    run = zero_shot(cache, n_bootstrap=50)
    folder = run.save(tmp_path / "runs" / "one")
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "metrics.json",
        "predictions.csv",
    }
    assert json.loads((folder / "metrics.json").read_text()) == run.metrics.to_json()
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
        "excluded": {},
        "bit_depth": None,
        "collection": "toy",
        "extraction": {},
    }
    with (folder / "predictions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    p = [float(line["Effusion probability"]) for line in lines]
    assert p == run.scored.probability[:, 1].tolist()


def test_any_finding_is_the_mean_of_the_scores_of_all_labels(cache):
    run = zero_shot(cache, n_bootstrap=20)
    test = run.scored.splits == "test"
    truth, p = run.scored.truth[test], run.scored.probability[test]
    mean = np.log(p / (1 - p)).mean(axis=1)
    expected = np.mean([reference.roc_auc_score(truth[:, c], mean) for c in range(3)])
    control = run.metrics.controls["any_finding"]
    assert control.macro.auroc == pytest.approx(expected)
    assert control.gain.macro.auroc.difference == pytest.approx(
        run.metrics.supported.macro.auroc - control.supported.macro.auroc
    )


def test_a_saved_run_is_never_overwritten(cache, tmp_path):
    run = zero_shot(cache, n_bootstrap=0)
    run.save(tmp_path / "one")
    with pytest.raises(UsageError, match="one"):
        run.save(tmp_path / "one")


def test_an_encoder_that_was_trained_on_the_training_images_gives_a_warning(cache):
    ids = [*cache.ids[cache.rows("train")][:7].tolist(), "another.png"]

    def warnings(collection: str) -> list[str]:
        patients = [f"someone {number}" for number in range(len(ids))]
        trained_on = {collection: ImageRecords.of(collection, ids, patients=patients)}
        header = dataclasses.replace(cache.header, trained_on=trained_on)
        trained = dataclasses.replace(cache, header=header)
        unrecognized = collection != cache.header.collection  # there are no hashes
        assert len(cache_caveats(trained, cache.rows("test"))) == unrecognized
        return learning_caveats(trained)

    (warning,) = warnings(cache.header.collection)
    learned = len(cache.rows("train")) + len(cache.rows("val"))
    assert f"was trained on 7 of the {learned} training and validation images" in warning
    assert not warnings("others")
