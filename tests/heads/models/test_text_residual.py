"""The text-residual head: its formula, labels it never saw, and whether text helps when it can."""

import numpy as np
import pytest
import torch

from featurecache.heads.config import HeadConfig
from featurecache.heads.registry import head_spec
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.training import predict_probabilities, train_head
from featurecache.heads.types import HeadData
from featurecache.metrics.bootstrap import bootstrap_metrics, interval, resample_patients
from featurecache.metrics.ranking import auroc

DIM = 24


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def texts_of(directions, *, scale=10.0):
    directions = unit(directions).astype(np.float32)
    return LabelTexts(directions, -directions, scale=scale, aligned=True)


def problem(*, labels, informative, train=120, seed=0):
    """Findings that lie in known directions of the embedding, or in others than their texts say."""
    rng = np.random.default_rng(seed)
    directions = unit(rng.normal(size=(labels, DIM)))
    sizes = (train, 100, 1500)
    x = unit(rng.normal(size=(sum(sizes), DIM)))
    logits = 12 * x @ directions.T - 1
    truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    said = directions + 0.05 * rng.normal(size=directions.shape)
    if not informative:
        said = rng.normal(size=directions.shape)
    train_rows, val, test = np.split(np.arange(len(x)), np.cumsum(sizes)[:2])
    data = HeadData(x.astype(np.float32), truth, train_rows, val, texts_of(said))
    return data, test, directions


def gain(data, test, ours, other):
    """The interval of the difference in macro AUROC of two trainings, paired over patients."""
    n_bootstrap = resample_patients(
        np.array([f"p{row // 2}" for row in test]), n_bootstrap=500, seed=0
    )
    truth = data.labels[test]

    def drawn(config):
        p = predict_probabilities(train_head(data, config).module, data.embedding[test])
        return bootstrap_metrics(truth, p >= 0.5, p, n_bootstrap).macro["auroc"]

    return interval(drawn(ours) - drawn(other))


def test_where_texts_know_their_finding_it_beats_the_baseline_and_permuted_texts():
    data, test, _ = problem(labels=6, informative=True)
    ours = HeadConfig(head="text_residual")
    assert gain(data, test, ours, HeadConfig(head="baseline"))[0] > 0.01
    permuted = HeadConfig(head="text_residual", text_ablation="permuted")
    assert gain(data, test, ours, permuted)[0] > 0.01


def test_where_texts_know_nothing_they_bring_nothing():
    data, test, _ = problem(labels=6, informative=False)
    ours = HeadConfig(head="text_residual")
    low, high = gain(data, test, ours, HeadConfig(head="text_residual", text_ablation="permuted"))
    assert low < 0 < high or high < 0
    assert gain(data, test, ours, HeadConfig(head="baseline"))[0] < 0.01


def test_it_scores_labels_that_it_was_not_trained_on():
    data, test, directions = problem(labels=12, informative=True, train=400)
    kept, left = np.arange(9), np.arange(9, 12)
    known = HeadData(
        data.embedding, data.labels[:, kept], data.train, data.val, texts_of(directions[kept])
    )
    head = train_head(known, HeadConfig(head="text_residual")).module
    other = head.for_texts(texts_of(directions[left]))
    p = predict_probabilities(other, data.embedding[test])
    assert p.shape == (len(test), 3)
    for column, label in enumerate(left):
        assert auroc(data.labels[test, label], p[:, column]) > 0.8
    # By its text, not by its place: others' texts give others' scores.
    swapped = head.for_texts(texts_of(directions[left[::-1]]))
    q = predict_probabilities(swapped, data.embedding[test])
    np.testing.assert_allclose(q[:, ::-1], p, rtol=1e-5)


def test_before_training_it_is_the_zero_shot_score_and_the_labels_frequency():
    data, _, _ = problem(labels=3, informative=True)
    config = HeadConfig(head="text_residual", epochs=1, learning_rate=1e-12, hidden=(8,), noise=0.0)
    p = predict_probabilities(train_head(data, config).module, data.embedding)
    share = data.labels[data.train].mean(axis=0)
    x = data.embedding.astype(np.float64)
    logits = 10 * x @ data.text.contrast().astype(np.float64).T + np.log(share / (1 - share))
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-logits)), atol=1e-4)


@pytest.mark.parametrize("hidden", [(5,), (6, 4)])
def test_the_logits_are_those_of_the_formula(hidden):
    rng = np.random.default_rng(2)
    texts = texts_of(rng.normal(size=(3, DIM)))
    torch.manual_seed(0)
    config = HeadConfig(head="text_residual", hidden=hidden)
    module = head_spec("text_residual").build(DIM, 3, texts, config).double().eval()
    for name, tensor in module.state_dict().items():
        if name not in ("positive", "contrast"):
            tensor.uniform_(0.5, 2) if name.endswith("deviation") else tensor.normal_()
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    x = unit(rng.normal(size=(7, DIM)))
    scaled = (x - state["scaling.mean"]) / state["scaling.deviation"]
    expected = np.empty((7, 3))
    for c, (text, contrast) in enumerate(
        zip(texts.positive.astype(float), texts.contrast().astype(float), strict=True)
    ):
        h = scaled * text * DIM**0.5 @ state["first.weight"].T + state["first.bias"]
        h = np.maximum(h, 0)
        if len(hidden) == 2:
            h = np.maximum(h @ state["hidden.2.weight"].T + state["hidden.2.bias"], 0)
        gamma = state["gamma"] + state["gamma_of_label"][c]
        bias = state["bias"] + state["bias_of_label"][c]
        expected[:, c] = (h @ state["output.weight"].T)[:, 0] + gamma * 10 * x @ contrast + bias
    found = module(torch.from_numpy(3 * x)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
