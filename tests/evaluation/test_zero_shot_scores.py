"""Zero-shot scores against cases computed with plain Python floats."""

from math import exp, log, sqrt

import numpy as np
import pytest

from featurecache.errors import UnknownNameError, UsageError
from featurecache.evaluation import zero_shot_scores as zero_shot
from featurecache.evaluation.zero_shot_scores import (
    choose_scoring,
    pair_scores,
    sigmoid_scores,
    softmax_scores,
)

# Cosines by hand: image 1 is (0.6, 0.8) and image 2 is (1, 0) at unit length.
IMAGES = np.array([[3.0, 4.0], [2.0, 0.0]], dtype=np.float16)
TEXTS = np.array([[1.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
NEGATIVES = np.array([[0.0, 1.0], [-1.0, 0.0], [0.0, 2.0]])
COSINES = [[0.6, 0.8, 1.4 / sqrt(2)], [1.0, 0.0, 1 / sqrt(2)]]
NEGATIVE_COSINES = [[0.8, -0.6, 0.8], [0.0, -1.0, 0.0]]


def sigmoid(z):
    return 1 / (1 + exp(-z))


def test_sigmoid_scores_by_hand():
    scores = sigmoid_scores(IMAGES, TEXTS, scale=4.0, bias=-2.0)
    expected = [[4 * cos - 2 for cos in row] for row in COSINES]
    np.testing.assert_allclose(scores.logits, expected, atol=1e-12)
    np.testing.assert_allclose(
        scores.probabilities, [[sigmoid(z) for z in row] for row in expected], atol=1e-12
    )
    unbiased = sigmoid_scores(IMAGES, TEXTS, scale=4.0, bias=None)
    np.testing.assert_allclose(unbiased.logits, scores.logits + 2)


def test_softmax_scores_by_hand():
    scores = softmax_scores(IMAGES, TEXTS, scale=3.0)
    for i, row in enumerate(COSINES):
        weights = [exp(3 * cos) for cos in row]
        for c, weight in enumerate(weights):
            share = weight / sum(weights)
            assert scores.probabilities[i, c] == pytest.approx(share, abs=1e-12)
            assert scores.logits[i, c] == pytest.approx(log(share / (1 - share)), abs=1e-12)


def test_softmax_of_one_label_is_over_its_negative():
    scores = pair_scores(IMAGES, TEXTS[:1], NEGATIVES[:1], scale=3.0)
    for i in range(2):
        label, negative = exp(3 * COSINES[i][0]), exp(3 * NEGATIVE_COSINES[i][0])
        assert scores.probabilities[i, 0] == pytest.approx(label / (label + negative), abs=1e-12)


def test_pair_scores_by_hand():
    scores = pair_scores(IMAGES, TEXTS, NEGATIVES, scale=2.5)
    for i in range(2):
        for c in range(3):
            logit = 2.5 * (COSINES[i][c] - NEGATIVE_COSINES[i][c])
            assert scores.logits[i, c] == pytest.approx(logit, abs=1e-12)
            assert scores.probabilities[i, c] == pytest.approx(sigmoid(logit), abs=1e-12)


def test_norms_of_embeddings_do_not_matter():
    rng = np.random.default_rng(0)
    images, texts, negatives = (rng.normal(size=(n, 8)) for n in (20, 4, 4))
    longer = rng.uniform(0.1, 50, size=(20, 1))
    for score in (
        lambda x, k: sigmoid_scores(x, k * texts, scale=10.0, bias=-1.0),
        lambda x, k: softmax_scores(x, k * texts, scale=10.0),
        lambda x, k: pair_scores(x, k * texts, negatives / k, scale=10.0),
    ):
        np.testing.assert_allclose(
            score(images * longer, 7.0).logits, score(images, 1.0).logits, atol=1e-12
        )


def test_logits_still_rank_where_probabilities_saturate():
    images = np.array([[1.0, 0.0], [1.0, 0.02]])
    scores = softmax_scores(images, np.array([[1.0, 0.0], [-1.0, 0.0]]), scale=1000.0)
    assert (scores.probabilities[:, 0] == 1).all()
    assert scores.logits[0, 0] == pytest.approx(2000)
    assert scores.logits[1, 0] == pytest.approx(2000 / sqrt(1 + 0.02**2))
    assert (scores.probabilities[:, 1] == 0).all()


def test_chunks_of_images_give_the_same_scores(monkeypatch):
    images = np.random.default_rng(1).normal(size=(11, 2))
    whole = sigmoid_scores(images, TEXTS, scale=1.0, bias=None).logits
    monkeypatch.setattr(zero_shot, "_ROWS_AT_ONCE", 4)
    chunked = sigmoid_scores(images, TEXTS, scale=1.0, bias=None).logits
    np.testing.assert_allclose(chunked, whole, atol=1e-15)


def test_zero_and_non_finite_embeddings_are_refused(monkeypatch):
    monkeypatch.setattr(zero_shot, "_ROWS_AT_ONCE", 2)
    for broken in (0.0, np.nan, np.inf):
        images = np.ones((5, 2))
        images[3] = broken
        with pytest.raises(ValueError, match="image embedding 3 has norm"):
            sigmoid_scores(images, TEXTS, scale=1.0, bias=None)
    with pytest.raises(ValueError, match="text embedding 0 has norm"):
        sigmoid_scores(IMAGES, np.zeros((1, 2)), scale=1.0, bias=None)


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="of one D"):
        sigmoid_scores(IMAGES, np.ones((3, 5)), scale=1.0, bias=None)
    with pytest.raises(ValueError, match="negatives"):
        pair_scores(IMAGES, TEXTS, NEGATIVES[:2], scale=1.0)
    with pytest.raises(ValueError, match="softmax needs several labels"):
        softmax_scores(IMAGES, TEXTS[:1], scale=1.0)


def choice(requested="auto", **facts):
    usual = {"aligned": True, "bias": None, "has_negatives": False, "n_labels": 14}
    return choose_scoring(requested, **{**usual, "exclusive": False, **facts})


@pytest.mark.parametrize(
    ("facts", "scoring"),
    [
        ({"has_negatives": True, "bias": -10.0, "exclusive": True}, "pair"),
        ({"bias": -10.0, "exclusive": True}, "sigmoid"),
        ({"bias": 0.0, "exclusive": True}, "sigmoid"),
        ({"exclusive": True}, "softmax"),
        ({"exclusive": True, "n_labels": 1}, "sigmoid"),
        ({}, "sigmoid"),
    ],
)
def test_auto_chooses_what_the_model_and_prompts_allow(facts, scoring):
    assert choice(**facts) == scoring


def test_a_requested_scoring_is_used():
    assert choice("softmax", bias=-10.0) == "softmax"
    assert choice("softmax", n_labels=1, has_negatives=True) == "softmax"
    assert choice("sigmoid", has_negatives=True) == "sigmoid"
    assert choice("pair", has_negatives=True) == "pair"


def test_an_impossible_scoring_is_refused():
    with pytest.raises(UsageError, match="the prompts have none"):
        choice("pair")
    with pytest.raises(UsageError, match="softmax over a single label"):
        choice("softmax", n_labels=1)
    for requested in ("auto", "pair", "sigmoid", "softmax"):
        with pytest.raises(UsageError, match="never trained together"):
            choice(requested, aligned=False, has_negatives=True)
    with pytest.raises(UnknownNameError, match="did you mean softmax"):
        choice("sotfmax")
