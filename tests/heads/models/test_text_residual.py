"""The text-residual head: its formula, unseen labels, and the contribution of text."""

import numpy as np
import pytest
import torch

from featurecache.heads.config import HeadConfig
from featurecache.heads.fit import fit_head, predict_probabilities
from featurecache.heads.registry import head_spec
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import TrainingData
from featurecache.metrics.bootstrap import bootstrap_metrics, interval, resample_patients
from featurecache.metrics.ranking import auroc

DIM = 24


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def texts_of(directions, *, scale=10.0):
    directions = unit(directions).astype(np.float32)
    return LabelTexts(directions, -directions, scale=scale, aligned=True)


def problem(*, labels, informative, train=120, seed=0):
    """Return findings along directions of the embedding, which their texts state or not."""
    rng = np.random.default_rng(seed)
    directions = unit(rng.normal(size=(labels, DIM)))
    sizes = (train, 100, 1500)
    x = unit(rng.normal(size=(sum(sizes), DIM)))
    logits = 12 * x @ directions.T - 1
    truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    stated = directions + 0.05 * rng.normal(size=directions.shape)
    if not informative:
        stated = rng.normal(size=directions.shape)
    train_rows, val, test = np.split(np.arange(len(x)), np.cumsum(sizes)[:2])
    data = TrainingData(x.astype(np.float32), truth, train_rows, val, texts_of(stated))
    return data, test, directions


def gain_interval(data, test, config, reference):
    """Return the interval of the paired difference in macro AUROC of two trainings."""
    resamples = resample_patients(
        np.array([f"p{row // 2}" for row in test]), n_bootstrap=500, seed=0
    )
    truth = data.labels[test]

    def bootstrap_auroc(config):
        p = predict_probabilities(fit_head(data, config).module, data.embedding[test])
        return bootstrap_metrics(truth, p >= 0.5, p, resamples).macro["auroc"]

    return interval(bootstrap_auroc(config) - bootstrap_auroc(reference))


def test_informative_texts_beat_the_baseline_and_permuted_texts():
    data, test, _ = problem(labels=6, informative=True)
    config = HeadConfig(head="text_residual")
    assert gain_interval(data, test, config, HeadConfig(head="baseline"))[0] > 0.01
    permuted = HeadConfig(head="text_residual", text_ablation="permuted")
    assert gain_interval(data, test, config, permuted)[0] > 0.01


def test_uninformative_texts_bring_no_gain():
    data, test, _ = problem(labels=6, informative=False)
    config = HeadConfig(head="text_residual")
    low, high = gain_interval(
        data, test, config, HeadConfig(head="text_residual", text_ablation="permuted")
    )
    assert low < 0 < high or high < 0
    assert gain_interval(data, test, config, HeadConfig(head="baseline"))[0] < 0.01


def test_labels_without_training_are_scored_by_their_texts():
    data, test, directions = problem(labels=12, informative=True, train=400)
    kept, left = np.arange(9), np.arange(9, 12)
    known = TrainingData(
        data.embedding, data.labels[:, kept], data.train, data.val, texts_of(directions[kept])
    )
    head = fit_head(known, HeadConfig(head="text_residual")).module
    other = head.for_texts(texts_of(directions[left]))
    p = predict_probabilities(other, data.embedding[test])
    assert p.shape == (len(test), 3)
    for column, label in enumerate(left):
        assert auroc(data.labels[test, label], p[:, column]) > 0.8
    # A label is scored by its text, not by its position.
    swapped = head.for_texts(texts_of(directions[left[::-1]]))
    q = predict_probabilities(swapped, data.embedding[test])
    np.testing.assert_allclose(q[:, ::-1], p, rtol=1e-5)


def test_initial_logits_are_zero_shot_scores_plus_label_frequency():
    data, _, _ = problem(labels=3, informative=True)
    config = HeadConfig(head="text_residual", epochs=1, learning_rate=1e-12, hidden=(8,), noise=0.0)
    p = predict_probabilities(fit_head(data, config).module, data.embedding)
    frequency = data.labels[data.train].mean(axis=0)
    x = data.embedding.astype(np.float64)
    logits = 10 * x @ data.texts.contrast().astype(np.float64).T + np.log(
        frequency / (1 - frequency)
    )
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-logits)), atol=1e-4)


@pytest.mark.parametrize("hidden", [(5,), (6, 4)])
def test_logits_follow_the_formula(hidden):
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
    logits = module(torch.from_numpy(3 * x)).detach().numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
