"""The heads that are fitted without epochs, against scikit-learn and against their formulas."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from featurecache.errors import UsageError
from featurecache.heads.config import HeadConfig
from featurecache.heads.logistic import Weights, fit_logistic
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.training import predict_probabilities, train_head
from featurecache.heads.types import HeadData
from featurecache.losses import masked_bce
from featurecache.metrics.ranking import auroc
from tests.heads.head_names import ALIGNED_HEADS

DIM, LABELS = 12, 3


@pytest.fixture
def aligned(problem, data) -> HeadData:
    """The problem with texts that point to its findings, and away from them."""
    rng = np.random.default_rng(8)
    ways = [
        sign * problem["directions"].T + 0.2 * rng.normal(size=(LABELS, DIM)) for sign in (1, -1)
    ]
    positive, negative = (unit(way).astype(np.float32) for way in ways)
    return dataclasses.replace(data, text=LabelTexts(positive, negative, scale=7.0, aligned=True))


def trained(data, head, **settings):
    return train_head(data, HeadConfig(head=head, **settings))


def unit(embedding):
    exact = embedding.astype(np.float64)
    return exact / np.linalg.norm(exact, axis=1, keepdims=True)


def standardised(data):
    x = unit(data.embedding)
    return (x - x[data.train].mean(axis=0)) / x[data.train].std(axis=0)


def scores(head, data):
    """What the head computes before Platt's slope and intercept."""
    with torch.no_grad():
        return head.module.scores(torch.from_numpy(unit(data.embedding)).float()).numpy()


def macro(data, of, found):
    truth = data.labels[of]
    return np.nanmean([auroc(truth[:, c], found[of][:, c]) for c in range(LABELS)])


def test_linear_is_sklearns_logistic_regression_at_the_chosen_strength(data):
    head = trained(data, "linear")
    found = predict_probabilities(head.module, data.embedding)
    x = standardised(data)
    for c in range(LABELS):
        tried = [one for one in head.history if one.label == str(c)]
        losses = {}
        for one in tried:
            strength = float(one.setting.removeprefix("C="))
            known = data.train[data.labels[data.train, c] >= 0]
            model = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000)
            p = model.fit(x[known], data.labels[known, c]).predict_proba(x)[:, 1]
            val = data.val[data.labels[data.val, c] >= 0]
            truth = data.labels[val, c]
            losses[strength] = -np.mean(np.log(np.where(truth == 1, p[val], 1 - p[val])))
            assert one.validation == pytest.approx(losses[strength], abs=1e-4)
            if one.chosen:
                np.testing.assert_allclose(found[:, c], p, atol=1e-3)
        (chosen,) = [one for one in tried if one.chosen]
        assert chosen.validation == min(one.validation for one in tried)


def test_fitted_weights_are_the_least_of_the_documented_sum():
    rng = np.random.default_rng(0)
    x, truth = rng.normal(size=(80, 5)), rng.integers(-1, 2, size=(80, 2))
    center = Weights(rng.normal(size=(2, 5)), np.zeros(2))
    penalty = np.array([0.03, 0.4])
    found = fit_logistic(
        torch.from_numpy(x).float(), torch.from_numpy(truth).float(), penalty, center=center
    )
    for c in range(2):
        known = truth[:, c] >= 0
        p = 1 / (1 + np.exp(-(x[known] @ found.weight[c] + found.intercept[c])))
        off = (p - truth[known, c]) / known.sum()
        gradient = off @ x[known] + 2 * penalty[c] * (found.weight[c] - center.weight[c])
        assert np.abs([*gradient, off.sum()]).max() < 1e-5
    # The penalty counts: without any of it the gradient of the loss would be 0.
    assert np.abs(2 * penalty[0] * (found.weight[0] - center.weight[0])).max() > 1e-3


def test_a_label_of_which_nothing_is_known_keeps_its_center():
    truth = torch.full((20, 1), -1.0)
    center = Weights(np.array([[1.0, 2.0]]), np.array([3.0]))
    found = fit_logistic(torch.randn(20, 2), truth, np.ones(1), center=center)
    np.testing.assert_allclose(found.weight, center.weight)
    np.testing.assert_allclose(found.intercept, center.intercept)


def test_knn_is_sklearns_with_cosines(data):
    known = dataclasses.replace(data, labels=np.abs(data.labels))
    head = trained(known, "knn")
    (chosen,) = [one for one in head.history if one.chosen]
    areas = {}
    x = unit(data.embedding)
    for one in head.history:
        k = int(one.setting.removeprefix("k="))
        model = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
        model.fit(x[data.train], known.labels[data.train])
        shares = np.stack([p[:, 1] for p in model.predict_proba(x)], axis=1)
        areas[one.setting] = macro(known, data.val, shares)
        assert one.validation == pytest.approx(areas[one.setting], abs=1e-6)
        if one.chosen:
            np.testing.assert_allclose(scores(head, data), shares, atol=1e-6)
    assert areas[chosen.setting] == max(areas.values())


def test_neighbours_of_unknown_label_take_no_part(data):
    head = trained(data, "knn")
    (chosen,) = [one for one in head.history if one.chosen]
    k = int(chosen.setting.removeprefix("k="))
    x = unit(data.embedding)
    labels = data.labels[data.train]
    assert (labels < 0).any()
    for row, found in zip(data.val, scores(head, data)[data.val], strict=True):
        nearest = labels[np.argsort(-(x[data.train] @ x[row]))[:k]]
        for c in range(LABELS):
            near = nearest[:, c][nearest[:, c] >= 0]
            among = near if len(near) else labels[:, c][labels[:, c] >= 0]
            assert found[c] == pytest.approx((among == 1).mean(), abs=1e-6)


def test_prototypes_are_class_means(data):
    x, labels = unit(data.embedding), data.labels[data.train]
    means = [
        np.stack([x[data.train][labels[:, c] == value].mean(axis=0) for c in range(LABELS)])
        for value in (1, 0)
    ]
    positive, negative = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in means)
    head = trained(data, "prototype")
    np.testing.assert_allclose(scores(head, data), x @ (positive - negative).T, atol=1e-5)
    assert head.history == ()


def test_svm_is_sklearns_at_the_strength_with_the_best_macro_auroc(data):
    head = trained(data, "svm")
    x = standardised(data).astype(np.float32)
    best = {}
    for one in head.history:
        strength = float(one.setting.removeprefix("C="))
        found = np.zeros((len(x), LABELS))
        for c in range(LABELS):
            known = data.train[data.labels[data.train, c] >= 0]
            model = LinearSVC(C=strength, dual="auto", max_iter=10_000, random_state=0)
            found[:, c] = model.fit(x[known], data.labels[known, c]).decision_function(x)
        best[one.setting] = macro(data, data.val, found)
        if one.chosen:
            np.testing.assert_allclose(scores(head, data), found, atol=0.02)
            chosen = one.setting
    assert best[chosen] == pytest.approx(max(best.values()), abs=0.002)


def test_tip_adapter_is_its_formula_at_the_chosen_settings(aligned):
    head = trained(aligned, "tip_adapter")
    x, texts = unit(aligned.embedding), aligned.text
    positive = aligned.labels[aligned.train] == 1
    text = 7.0 * x @ (texts.positive - texts.negative).astype(np.float64).T
    areas = {}
    for one in head.history:
        alpha, beta = (float(part.split("=")[1]) for part in one.setting.split())
        affinity = np.exp(-beta * (1 - x @ x[aligned.train].T))
        found = text + alpha * affinity @ positive / positive.sum(axis=0)
        areas[one.setting] = macro(aligned, aligned.val, found)
        if one.chosen:
            chosen = one.setting
            np.testing.assert_allclose(scores(head, aligned), found, rtol=0.02, atol=0.02)
    assert areas[chosen] == pytest.approx(max(areas.values()), abs=0.002)


def test_clap_is_the_least_of_its_sum(aligned):
    head = trained(aligned, "clap")
    x, texts, scale = unit(aligned.embedding)[aligned.train], aligned.text, 7.0
    t = (texts.positive - texts.negative).astype(np.float64)
    weight = head.module.output.weight.detach().numpy().astype(np.float64) / scale
    bias = head.module.output.bias.detach().numpy().astype(np.float64)
    for c in range(LABELS):
        truth = aligned.labels[aligned.train, c]
        zero_shot = 1 / (1 + np.exp(-scale * x @ t[c]))
        held = zero_shot[truth == 1].mean()
        known = truth >= 0
        p = 1 / (1 + np.exp(-(scale * x[known] @ weight[c] + bias[c])))
        off = (p - truth[known]) / known.sum()
        gradient = scale * off @ x[known] + 2 * held * (weight[c] - t[c])
        assert np.abs([*gradient, off.sum()]).max() < 1e-3
    assert np.abs(weight - t).max() > 0.01


def test_clap_looks_at_no_validation_image(aligned):
    other = aligned.labels.copy()
    other[aligned.val] = 1 - np.abs(other[aligned.val])
    one = trained(aligned, "clap")
    two = trained(dataclasses.replace(aligned, labels=other), "clap")
    assert torch.equal(one.module.output.weight, two.module.output.weight)


def test_lp_plus_plus_starts_where_it_says_and_never_overshoots(aligned):
    module = trained(aligned, "lp_plus_plus").module
    x = torch.from_numpy(unit(aligned.embedding)[aligned.train]).float()
    y = torch.from_numpy(aligned.labels[aligned.train].astype(np.float32))
    lengths = module._begin(x, y)
    labels = aligned.labels[aligned.train]
    means = [
        np.stack([x.numpy()[labels[:, c] == value].mean(axis=0) for c in range(LABELS)])
        for value in (1, 0)
    ]
    np.testing.assert_allclose(
        module.output.weight.detach().numpy(), means[0] - means[1], atol=1e-5
    )
    with torch.no_grad():
        module.blend.fill_(7.0)
    losses = []
    for _ in range(50):
        with torch.no_grad():
            losses.append(masked_bce(module._logits(x), y).item())
        module._step(x, y, lengths)
    assert all(after <= before + 1e-7 for before, after in pairwise(losses))
    assert losses[-1] < 0.95 * losses[0]


def test_lp_plus_plus_takes_the_steps_with_the_least_validation_loss(aligned):
    head = trained(aligned, "lp_plus_plus")
    (chosen,) = [one for one in head.history if one.chosen]
    assert chosen.validation == min(one.validation for one in head.history)
    p = predict_probabilities(head.module, aligned.embedding[aligned.val])
    truth = aligned.labels[aligned.val]
    known = truth >= 0
    loss = -np.log(np.where(truth == 1, p, 1 - p))[known].mean()
    assert loss == pytest.approx(chosen.validation, abs=1e-5)


@pytest.mark.parametrize("head", ["knn", "prototype", "svm", "tip_adapter"])
def test_probabilities_are_platts_of_the_scores_on_validation(aligned, head):
    found = trained(aligned, head)
    raw = scores(found, aligned)
    p = predict_probabilities(found.module, aligned.embedding)
    for c in range(LABELS):
        slope, intercept = (float(t[c]) for t in (found.module.slope, found.module.intercept))
        expected = 1 / (1 + np.exp(-(slope * raw[:, c] + intercept)))
        np.testing.assert_allclose(p[:, c], expected, atol=1e-5)
        val = aligned.val[aligned.labels[aligned.val, c] >= 0]
        y = aligned.labels[val, c]
        if (slope, intercept) == (1, 0):
            # Left as they are where they rank validation the wrong way round.
            assert auroc(y, raw[val, c]) < 0.55
            continue
        # At the least log loss on soft targets, probabilities and targets have the same sum.
        n1, n0 = (y == 1).sum(), (y == 0).sum()
        target = np.where(y == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
        assert (p[val, c] - target).sum() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("head", ALIGNED_HEADS)
def test_unaligned_texts_are_refused(data, head):
    with pytest.raises(UsageError, match=f"head '{head}' compares images with texts"):
        trained(data, head)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dropout": 0.5}, "head 'linear' has no --dropout: leave it out"),
        ({"epochs": 5}, "head 'linear' has no --epochs"),
        ({"hidden": (8,)}, "head 'linear' has no --hidden"),
        ({"loss": "asymmetric"}, "head 'linear' has no --loss"),
        ({"resample": "weighted"}, "looks at every image once"),
        ({"text_ablation": "zero"}, "uses no text"),
    ],
)
def test_settings_that_would_change_nothing_are_refused(data, settings, said):
    with pytest.raises(UsageError, match=said):
        trained(data, "linear", **settings)


@pytest.mark.parametrize("head", ["linear", "knn", "prototype", "svm", *ALIGNED_HEADS])
def test_a_label_without_positives_stops_no_head(aligned, head):
    labels = aligned.labels.copy()
    labels[:, 1] = 0
    labels[:, 2] = -1
    found = trained(dataclasses.replace(aligned, labels=labels), head)
    p = predict_probabilities(found.module, aligned.embedding)
    assert np.isfinite(p).all()
    truth = labels[aligned.val, 0]
    assert auroc(truth, p[aligned.val, 0]) > 0.7
