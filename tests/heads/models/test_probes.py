"""Heads that are fitted without epochs, against scikit-learn and against their formulas."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from featurecache.errors import UsageError
from featurecache.heads import logistic
from featurecache.heads.config import HeadConfig
from featurecache.heads.fit import fit_head, predict_probabilities
from featurecache.heads.logistic import Weights, fit_logistic
from featurecache.heads.models import lp_plus_plus
from featurecache.heads.models.platt_scaled import PlattScaledHead
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import TrainingData
from featurecache.losses import masked_bce
from featurecache.metrics.ranking import auroc
from tests.heads.head_names import ALIGNED_HEADS

DIM, LABELS = 12, 3


@pytest.fixture
def aligned(problem, data) -> TrainingData:
    """The problem with texts that point towards and away from its findings."""
    rng = np.random.default_rng(8)
    directions = [
        sign * problem["directions"].T + 0.2 * rng.normal(size=(LABELS, DIM)) for sign in (1, -1)
    ]
    positive, negative = (unit(way).astype(np.float32) for way in directions)
    return dataclasses.replace(data, texts=LabelTexts(positive, negative, scale=7.0, aligned=True))


def trained(data, head, **settings):
    return fit_head(data, HeadConfig(head=head, **settings))


def unit(embedding):
    exact = embedding.astype(np.float64)
    return exact / np.linalg.norm(exact, axis=1, keepdims=True)


def standardized(data):
    x = unit(data.embedding)
    return (x - x[data.train].mean(axis=0)) / x[data.train].std(axis=0)


def scores(head, data):
    """Return the scores that Platt scaling turns into logits."""
    with torch.no_grad():
        return head.module.scores(torch.from_numpy(unit(data.embedding)).float()).numpy()


def macro(data, rows, scores):
    truth = data.labels[rows]
    return np.nanmean([auroc(truth[:, c], scores[rows][:, c]) for c in range(LABELS)])


@pytest.fixture
def rare() -> TrainingData:
    """400 images of 200 patients with a common finding, of which a rare one is a part."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, DIM))
    ill = rng.random(400) < 1 / (1 + np.exp(-2 * x[:, 0]))
    mild = ill & (rng.random(400) < 1 / (1 + np.exp(3 - x[:, 1])))
    labels = np.stack([ill, mild, ill & ~mild], axis=1).astype(np.int8)
    labels[rng.random(labels.shape) < 0.05] = -1
    train, val = np.arange(300), np.arange(300, 400)
    return TrainingData(x.astype(np.float32), labels, train, val, patient=np.arange(400) // 2)


def reference_fit(x, y, strength, center):
    """Fit a logistic regression that is penalized for its distance to a center, by SciPy's BFGS."""

    def loss(parameters):
        logits = x @ parameters[:-1] + parameters[-1]
        distance = parameters[:-1] - center
        total = np.mean(np.logaddexp(0, logits) - y * logits)
        return total + distance @ distance / (2 * strength * len(y))

    return minimize(loss, np.append(center, 0.0), method="BFGS", options={"gtol": 1e-7}).x


def chosen_strength(head, name):
    (chosen,) = [
        candidate.setting
        for candidate in head.history
        if candidate.chosen and candidate.setting.startswith(f"{name}=")
    ]
    return float(chosen.removeprefix(f"{name}="))


def test_linear_is_logistic_regression_centered_on_the_any_finding_direction(rare):
    head = trained(rare, "linear")
    x, labels = standardized(rare)[rare.train], rare.labels[rare.train]
    strength, any_strength = (chosen_strength(head, name) for name in ("C", "any-finding C"))
    known = (labels >= 0).any(axis=1)
    any_finding = (labels == 1).any(axis=1)
    model = LogisticRegression(C=any_strength, tol=1e-10, max_iter=10_000)
    v = model.fit(x[known], any_finding[known]).coef_[0]
    for c in range(LABELS):
        seen = labels[:, c] >= 0
        y = labels[seen, c]
        along = (x[seen] @ v)[:, np.newaxis]
        # The tiny penalty on the distance of the scale to 1 hardly matters here.
        scale = LogisticRegression(C=np.inf, tol=1e-10).fit(along, y).coef_[0, 0]
        expected = reference_fit(x[seen], y, strength, scale * v)
        np.testing.assert_allclose(
            head.module.output.weight[c].detach().numpy(), expected[:-1], atol=0.03
        )
        assert head.module.output.bias[c].item() == pytest.approx(expected[-1], abs=0.05)


def test_linear_chooses_one_strength_by_cross_validation_over_patients(rare):
    head = trained(rare, "linear", seed=3)
    x, labels = standardized(rare)[rare.train], rare.labels[rare.train]
    known = (labels >= 0).any(axis=1)
    any_finding = (labels == 1).any(axis=1)
    folds = GroupKFold(5, shuffle=True, random_state=3)
    candidates = [c for c in head.history if c.setting.startswith("any-finding C=")]
    for candidate in candidates:
        model = LogisticRegression(C=float(candidate.setting.partition("=")[2]), tol=1e-8)
        losses = []
        for train, test in folds.split(x, groups=rare.patient[rare.train]):
            model.fit(x[train][known[train]], any_finding[train][known[train]])
            p = model.predict_proba(x[test][known[test]])[:, 1]
            losses.extend(-np.log(np.where(any_finding[test][known[test]], p, 1 - p)))
        assert candidate.validation == pytest.approx(np.mean(losses), abs=1e-4)
    for name in ("any-finding C=", "C="):
        tried = [c for c in head.history if c.setting.startswith(name)]
        (chosen,) = [c.validation for c in tried if c.chosen]
        assert chosen == min(c.validation for c in tried)
        assert {c.label for c in tried} == {""}


def test_linear_does_not_learn_from_validation_images(rare):
    other = rare.labels.copy()
    other[rare.val] = 1 - np.abs(other[rare.val])
    first, second = (
        trained(dataclasses.replace(rare, labels=labels), "linear")
        for labels in (rare.labels, other)
    )
    assert torch.equal(first.module.output.weight, second.module.output.weight)


def test_rare_label_gains_from_the_common_one():
    # Both labels depend on one direction; the second has 12 positives among 400 images.
    gains = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(2400, 60))
        ill = rng.random(2400) < 1 / (1 + np.exp(-2 * x[:, 0]))
        rare = ill & (rng.random(2400) < 0.06)
        labels = np.stack([ill, rare], axis=1).astype(np.int8)
        train, val, test = np.arange(400), np.arange(400, 500), np.arange(500, 2400)
        aurocs = [
            auroc(
                labels[test, 1],
                predict_probabilities(
                    trained(TrainingData(x.astype(np.float32), kept, train, val), "linear").module,
                    x[test],
                )[:, -1],
            )
            for kept in (labels, labels[:, 1:])
        ]
        gains.append(aurocs[0] - aurocs[1])
    assert min(gains) > 0.05


def test_single_label_is_plain_logistic_regression(rare):
    # v and the label are the same, so that the strongest penalty on their difference is best.
    single = dataclasses.replace(rare, labels=rare.labels[:, :1])
    head = trained(single, "linear")
    seen = rare.train[single.labels[rare.train, 0] >= 0]
    x, y = standardized(single), single.labels[:, 0]
    model = LogisticRegression(C=chosen_strength(head, "any-finding C")).fit(x[seen], y[seen])
    ours = predict_probabilities(head.module, single.embedding)[:, 0]
    theirs = model.predict_proba(x)[:, 1]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999


@pytest.mark.parametrize("n_rows", [30, 6])
def test_fit_is_at_its_minimum_for_correlated_features(n_rows):
    # Unit vectors in a narrow cone, as embeddings of chest X-rays are.
    rng = np.random.default_rng(1)
    x = 1 + 0.05 * rng.normal(size=(n_rows, 8))
    y = rng.integers(0, 2, size=(n_rows, 1))
    y[:2, 0] = (0, 1)
    fitted = fit_logistic(
        torch.from_numpy(x),
        torch.from_numpy(y).float(),
        np.array([1e-4]),
        center=Weights(np.zeros((1, 8)), np.zeros(1)),
    )
    model = LogisticRegression(C=1 / (2 * n_rows * 1e-4), tol=1e-12, max_iter=100_000)
    model.fit(x, y[:, 0])
    np.testing.assert_allclose(fitted.weight, model.coef_, atol=2e-3)
    assert fitted.converged


def test_search_that_is_cut_short_is_reported(rare, monkeypatch):
    assert trained(rare, "linear").converged
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 1)
    assert not trained(rare, "linear").converged


def test_fit_logistic_finds_the_minimum():
    rng = np.random.default_rng(0)
    x, truth = rng.normal(size=(80, 5)), rng.integers(-1, 2, size=(80, 2))
    center = Weights(rng.normal(size=(2, 5)), np.zeros(2))
    penalty = np.array([0.03, 0.4])
    fitted = fit_logistic(
        torch.from_numpy(x).float(), torch.from_numpy(truth).float(), penalty, center=center
    )
    for c in range(2):
        known = truth[:, c] >= 0
        p = 1 / (1 + np.exp(-(x[known] @ fitted.weight[c] + fitted.intercept[c])))
        residual = (p - truth[known, c]) / known.sum()
        gradient = residual @ x[known] + 2 * penalty[c] * (fitted.weight[c] - center.weight[c])
        assert np.abs([*gradient, residual.sum()]).max() < 1e-5
    # The penalty has an effect: without it, the gradient of the loss would be 0.
    assert np.abs(2 * penalty[0] * (fitted.weight[0] - center.weight[0])).max() > 1e-3


def test_label_without_known_images_keeps_its_center():
    truth = torch.full((20, 1), -1.0)
    center = Weights(np.array([[1.0, 2.0]]), np.array([3.0]))
    fitted = fit_logistic(torch.randn(20, 2), truth, np.ones(1), center=center)
    np.testing.assert_allclose(fitted.weight, center.weight)
    np.testing.assert_allclose(fitted.intercept, center.intercept)


def test_knn_equals_sklearn_with_cosine_distance(data):
    known = dataclasses.replace(data, labels=np.abs(data.labels))
    head = trained(known, "knn")
    (chosen,) = [candidate for candidate in head.history if candidate.chosen]
    aurocs = {}
    x = unit(data.embedding)
    for candidate in head.history:
        k = int(candidate.setting.removeprefix("k="))
        model = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
        model.fit(x[data.train], known.labels[data.train])
        fractions = np.stack([p[:, 1] for p in model.predict_proba(x)], axis=1)
        aurocs[candidate.setting] = macro(known, data.val, fractions)
        assert candidate.validation == pytest.approx(aurocs[candidate.setting], abs=1e-6)
        if candidate.chosen:
            np.testing.assert_allclose(scores(head, data), fractions, atol=1e-6)
    assert aurocs[chosen.setting] == max(aurocs.values())


def test_neighbors_with_unknown_label_are_ignored(data):
    head = trained(data, "knn")
    (chosen,) = [candidate for candidate in head.history if candidate.chosen]
    k = int(chosen.setting.removeprefix("k="))
    x = unit(data.embedding)
    labels = data.labels[data.train]
    assert (labels < 0).any()
    for row, score in zip(data.val, scores(head, data)[data.val], strict=True):
        nearest = labels[np.argsort(-(x[data.train] @ x[row]))[:k]]
        for c in range(LABELS):
            near = nearest[:, c][nearest[:, c] >= 0]
            counted = near if len(near) else labels[:, c][labels[:, c] >= 0]
            assert score[c] == pytest.approx((counted == 1).mean(), abs=1e-6)


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


def test_svm_equals_sklearn_at_the_strength_of_best_cross_validated_auroc(data):
    patients = np.arange(len(data.labels)) // 2
    head = trained(dataclasses.replace(data, patient=patients), "svm")
    x = standardized(data).astype(np.float32)
    folds = GroupKFold(5, shuffle=True, random_state=0)

    def fit_and_score(rows, strength):
        score = np.zeros((len(x), LABELS))
        for c in range(LABELS):
            known = rows[data.labels[rows, c] >= 0]
            model = LinearSVC(C=strength, dual="auto", max_iter=10_000, random_state=0)
            score[:, c] = model.fit(x[known], data.labels[known, c]).decision_function(x)
        return score

    for candidate in head.history:
        strength = float(candidate.setting.removeprefix("C="))
        aurocs = [
            macro(data, data.train[out], fit_and_score(data.train[rest], strength))
            for rest, out in folds.split(data.train, groups=patients[data.train])
        ]
        assert candidate.validation == pytest.approx(np.mean(aurocs), abs=0.002)
        if candidate.chosen:
            expected = fit_and_score(data.train, strength)
            np.testing.assert_allclose(scores(head, data), expected, atol=0.02)
    best = max(head.history, key=lambda candidate: candidate.validation)
    assert [candidate for candidate in head.history if candidate.chosen] == [best]


def test_tip_adapter_follows_its_formula_at_the_chosen_settings(aligned):
    head = trained(aligned, "tip_adapter")
    x, texts = unit(aligned.embedding), aligned.texts
    positive = aligned.labels[aligned.train] == 1
    text = 7.0 * x @ (texts.positive - texts.negative).astype(np.float64).T
    aurocs = {}
    for candidate in head.history:
        alpha, beta = (float(pair.split("=")[1]) for pair in candidate.setting.split())
        affinity = np.exp(-beta * (1 - x @ x[aligned.train].T))
        expected = text + alpha * affinity @ positive / positive.sum(axis=0)
        aurocs[candidate.setting] = macro(aligned, aligned.val, expected)
        if candidate.chosen:
            chosen = candidate.setting
            np.testing.assert_allclose(scores(head, aligned), expected, rtol=0.02, atol=0.02)
    assert aurocs[chosen] == pytest.approx(max(aurocs.values()), abs=0.002)


def test_clap_finds_the_minimum(aligned):
    head = trained(aligned, "clap")
    x, texts, scale = unit(aligned.embedding)[aligned.train], aligned.texts, 7.0
    t = (texts.positive - texts.negative).astype(np.float64)
    weight = head.module.output.weight.detach().numpy().astype(np.float64) / scale
    bias = head.module.output.bias.detach().numpy().astype(np.float64)
    for c in range(LABELS):
        truth = aligned.labels[aligned.train, c]
        zero_shot = 1 / (1 + np.exp(-scale * x @ t[c]))
        penalty = zero_shot[truth == 1].mean()
        known = truth >= 0
        p = 1 / (1 + np.exp(-(scale * x[known] @ weight[c] + bias[c])))
        residual = (p - truth[known]) / known.sum()
        gradient = scale * residual @ x[known] + 2 * penalty * (weight[c] - t[c])
        assert np.abs([*gradient, residual.sum()]).max() < 1e-3
    assert np.abs(weight - t).max() > 0.01


def test_clap_does_not_use_validation_images(aligned):
    other = aligned.labels.copy()
    other[aligned.val] = 1 - np.abs(other[aligned.val])
    first = trained(aligned, "clap")
    second = trained(dataclasses.replace(aligned, labels=other), "clap")
    assert torch.equal(first.module.output.weight, second.module.output.weight)


def test_lp_plus_plus_starts_from_class_means_and_never_overshoots(aligned):
    module = trained(aligned, "lp_plus_plus").module
    x = torch.from_numpy(unit(aligned.embedding)[aligned.train]).float()
    y = torch.from_numpy(aligned.labels[aligned.train].astype(np.float32))
    step_sizes = module._initialize(x, y)
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
        module._step(x, y, step_sizes)
    assert all(after <= before + 1e-7 for before, after in pairwise(losses))
    assert losses[-1] < 0.95 * losses[0]


def test_lp_plus_plus_keeps_the_step_of_lowest_validation_loss(aligned):
    head = trained(aligned, "lp_plus_plus")
    (chosen,) = [candidate for candidate in head.history if candidate.chosen]
    assert chosen.validation == min(candidate.validation for candidate in head.history)
    p = predict_probabilities(head.module, aligned.embedding[aligned.val])
    truth = aligned.labels[aligned.val]
    known = truth >= 0
    loss = -np.log(np.where(truth == 1, p, 1 - p))[known].mean()
    assert loss == pytest.approx(chosen.validation, abs=1e-5)


def test_lp_plus_plus_reaches_the_minimum(aligned):
    # Validated on its training images, it has no reason to stop before.
    known = dataclasses.replace(aligned, labels=np.abs(aligned.labels), val=aligned.train)
    head = trained(known, "lp_plus_plus")
    assert head.converged
    x, losses = unit(known.embedding)[known.train], []
    for truth in known.labels[known.train].T:
        p = LogisticRegression(C=np.inf, tol=1e-8, max_iter=10_000).fit(x, truth).predict_proba(x)
        losses.append(-np.log(np.where(truth == 1, p[:, 1], p[:, 0])).mean())
    assert min(c.validation for c in head.history) == pytest.approx(np.mean(losses), abs=2e-4)


def test_lp_plus_plus_that_is_cut_short_is_reported(aligned, monkeypatch):
    assert trained(aligned, "lp_plus_plus").converged
    monkeypatch.setattr(lp_plus_plus, "MAX_STEPS", 10)
    assert not trained(aligned, "lp_plus_plus").converged


@pytest.mark.parametrize("head", ["knn", "prototype", "svm", "tip_adapter"])
def test_probabilities_are_platt_scaled_scores(aligned, head):
    fitted = trained(aligned, head)
    raw = scores(fitted, aligned)
    p = predict_probabilities(fitted.module, aligned.embedding)
    for c in range(LABELS):
        slope, intercept = (float(t[c]) for t in (fitted.module.slope, fitted.module.intercept))
        expected = 1 / (1 + np.exp(-(slope * raw[:, c] + intercept)))
        np.testing.assert_allclose(p[:, c], expected, atol=1e-5)
        val = aligned.val[aligned.labels[aligned.val, c] >= 0]
        y = aligned.labels[val, c]
        if (slope, intercept) == (1, 0):
            # Scores are not scaled if they rank validation images the wrong way round.
            assert auroc(y, raw[val, c]) < 0.55
            continue
        # At the minimum of the log loss on soft targets, probabilities and targets sum to the same.
        n1, n0 = (y == 1).sum(), (y == 0).sum()
        target = np.where(y == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
        assert (p[val, c] - target).sum() == pytest.approx(0, abs=0.01)


def test_scores_are_never_turned_upside_down():
    truth = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]])
    score = np.array([-2.0, -1.0, 1.0, 2.0])
    head = PlattScaledHead(3)
    head.calibrate(truth, np.stack([score] * 3, axis=1))
    # The first label is ranked right, the second wrongly, and the third has no positives.
    assert head.slope[0] > 0
    assert head.slope[0] != 1
    assert head.slope[1:].tolist() == [1, 1]
    assert head.intercept[1:].tolist() == [0, 0]


@pytest.mark.parametrize("head", ALIGNED_HEADS)
def test_unaligned_texts_are_refused(data, head):
    with pytest.raises(UsageError, match=f"head '{head}' compares images with texts"):
        trained(data, head)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 0.5}, "head 'linear' has no `dropout`: leave it out"),
        ({"epochs": 5}, "head 'linear' has no `epochs`"),
        ({"hidden": (8,)}, "head 'linear' has no `hidden`"),
        ({"loss": "asymmetric"}, "head 'linear' has no `loss`"),
        ({"resample": "weighted"}, "is fitted on each image once"),
        ({"text_ablation": "zero"}, "uses no text"),
    ],
)
def test_settings_without_effect_are_refused(data, settings, message):
    with pytest.raises(UsageError, match=message):
        trained(data, "linear", **settings)


@pytest.mark.parametrize("head", ["linear", "knn", "prototype", "svm", *ALIGNED_HEADS])
def test_label_without_positives_does_not_fail(aligned, head):
    labels = aligned.labels.copy()
    labels[:, 1] = 0
    labels[:, 2] = -1
    fitted = trained(dataclasses.replace(aligned, labels=labels), head)
    p = predict_probabilities(fitted.module, aligned.embedding)
    assert np.isfinite(p).all()
    truth = labels[aligned.val, 0]
    assert auroc(truth, p[aligned.val, 0]) > 0.7
