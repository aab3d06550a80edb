"""Fitting heads: reproducibility, the training loop, and what decides the result."""

import dataclasses
import math
import threading

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from featurecache.errors import UnknownNameError, UsageError
from featurecache.heads import fit, gradient
from featurecache.heads.config import HeadConfig
from featurecache.heads.fit import (
    fit_head,
    fit_heads,
    predict_probabilities,
    training_rows,
)
from featurecache.heads.registry import HeadSpec
from featurecache.heads.standardize import Standardize
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import TrainingData, TrainingJob
from featurecache.losses import asymmetric_loss, masked_bce
from tests.heads.head_names import SEED_HEADS

SMALL = HeadConfig(head="baseline", hidden=(8, 4), epochs=3, batch_size=32)


def settings(**changes):
    return dataclasses.replace(SMALL, **changes)


def changed(data, **arrays):
    return dataclasses.replace(data, **arrays)


def same_head(first, second):
    states = first.module.state_dict(), second.module.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def linear_problem(n, *, noise, seed=0, dim=10):
    """Unit vectors with one label, decided by a plane through the origin and noise on logits."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    score = x @ rng.normal(size=dim) + noise * rng.logistic(size=n)
    labels = (score > 0).astype(np.int8)[:, np.newaxis]
    train, val, test = np.split(np.arange(n), [n // 3, n // 2])
    return TrainingData(x.astype(np.float32), labels, train, val, None), test


@pytest.mark.parametrize("head", SEED_HEADS)
@pytest.mark.parametrize("resample", ["none", "weighted", "undersample"])
def test_same_seed_gives_same_head_and_another_seed_another(data, head, resample):
    config = settings(head=head, resample=resample)
    first = fit_head(data, config)
    torch.rand(3)  # the global random state has no influence
    assert same_head(first, fit_head(data, config))
    assert not same_head(first, fit_head(data, settings(head=head, resample=resample, seed=1)))


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3], indirect=True)
def test_heads_fitted_in_parallel_equal_those_fitted_alone(data, threads, monkeypatch):
    configs = [settings(head=head, seed=seed) for head in SEED_HEADS for seed in (0, 1)]
    # One of them counts as large and is fitted after the others.
    configs.insert(2, settings(train_size=150))
    monkeypatch.setattr(fit, "MANY_IMAGES", 155)
    configs[3] = settings(head="concat", train_size=160)
    together = fit_heads([TrainingJob(data, config) for config in configs])
    for config, head in zip(configs, together, strict=True):
        assert (head.config.head, head.config.seed) == (config.head, config.seed)
        alone = fit_head(data, config)
        assert same_head(head, alone)
        assert head.history == alone.history


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_small_heads_are_fitted_at_the_same_time(data, threads):
    meeting = threading.Barrier(2, timeout=30)
    seen = []

    def report(epoch):
        if epoch.epoch == 1:
            meeting.wait()  # neither passes alone
        seen.append((threading.current_thread().name, torch.get_num_threads()))

    fit_heads([TrainingJob(data, settings(seed=seed), report) for seed in (0, 1)])
    assert len({name for name, _ in seen}) == 2
    assert {number for _, number in seen} == {1}
    assert torch.get_num_threads() == 2


def test_global_random_state_is_left_unchanged(data):
    torch.manual_seed(123)
    np.random.seed(123)  # the global state is what is tested
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    fit_head(data, SMALL)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize("head", SEED_HEADS)
def test_separable_labels_are_separated(head):
    data, test = linear_problem(900, noise=0)
    data = changed(data, texts=LabelTexts(np.ones((1, 4), dtype=np.float32)))
    trained = fit_head(data, settings(head=head, hidden=(32, 16), epochs=40, learning_rate=1e-2))
    p = predict_probabilities(trained.module, data.embedding)
    assert roc_auc_score(data.labels[test, 0], p[test, 0]) > 0.99


def test_baseline_ranks_a_linear_problem_like_logistic_regression():
    data, test = linear_problem(6000, noise=0.4)
    config = settings(hidden=(16,), epochs=30, noise=0.0, learning_rate=3e-3)
    p = predict_probabilities(fit_head(data, config).module, data.embedding)[test, 0]
    x, y = data.embedding, data.labels[:, 0]
    reference = LogisticRegression(C=10).fit(x[data.train], y[data.train])
    expected = roc_auc_score(y[test], reference.decision_function(x[test]))
    assert 0.7 < expected < 0.95
    assert roc_auc_score(y[test], p) == pytest.approx(expected, abs=0.01)


def test_other_rows_have_no_influence(data):
    test = np.setdiff1d(np.arange(len(data.labels)), np.r_[data.train, data.val])
    poisoned = changed(data, embedding=data.embedding.copy(), labels=data.labels.copy())
    poisoned.embedding[test] = np.nan
    poisoned.labels[test] = 1 - np.abs(poisoned.labels[test])
    for config in (SMALL, settings(resample="undersample", pos_weight="balanced")):
        assert same_head(fit_head(data, config), fit_head(poisoned, config))


def test_inputs_are_standardized_by_the_training_rows(data):
    trained = fit_head(data, SMALL)
    x = data.embedding[data.train].astype(np.float64)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(trained.module.scaling.mean.numpy(), unit.mean(0), atol=1e-6)
    np.testing.assert_allclose(trained.module.scaling.deviation.numpy(), unit.std(0), rtol=1e-5)


def overfitting(data, **changes):
    """Random labels: the validation loss soon rises."""
    labels = np.random.default_rng(0).integers(0, 2, data.labels.shape).astype(np.int8)
    config = settings(
        hidden=(64,), epochs=30, learning_rate=3e-2, dropout=0.0, noise=0.0, **changes
    )
    return changed(data, labels=labels), config


def test_epoch_of_lowest_validation_loss_is_kept(data):
    data, config = overfitting(data, patience=30)
    trained = fit_head(data, config)
    losses = [epoch.val_loss for epoch in trained.history]
    assert len(losses) == 30
    assert trained.best_epoch == 1 + int(np.argmin(losses)) < 30
    # Recomputed for the kept head, the loss is that of the best epoch, not of the last.
    p = predict_probabilities(trained.module, data.embedding[data.val])
    y = data.labels[data.val]
    loss = -np.where(y == 1, np.log(p), np.log1p(-p)).mean()
    assert loss == pytest.approx(min(losses), rel=1e-4)
    assert losses[-1] > 1.05 * loss
    assert not trained.module.training


def test_training_stops_after_patience_epochs(data):
    data, config = overfitting(data, patience=4)
    trained = fit_head(data, config)
    assert len(trained.history) == trained.best_epoch + 4 < 30


def test_every_epoch_is_reported(data):
    heard = []
    trained = fit_head(data, SMALL, on_epoch=heard.append)
    assert tuple(heard) == trained.history
    assert [epoch.epoch for epoch in heard] == [1, 2, 3]


def test_learning_rate_warms_up_for_one_epoch_then_follows_a_cosine(data):
    rates = [
        epoch.learning_rate
        for epoch in fit_head(data, settings(epochs=9, patience=9, learning_rate=0.1)).history
    ]
    # 160 images in batches of 32 are 5 steps; each rate is that of an epoch's first step.
    cosine = [0.05 * (1 + math.cos(math.pi * 5 * done / 40)) for done in range(8)]
    assert rates == pytest.approx([0.02, *cosine])


def test_training_loss_is_the_mean_over_the_rows_seen():
    # At this learning rate the head does not change, so the loss can be recomputed afterwards.
    # Batch norm would see other means in training.
    data = TrainingData(
        np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]],
        np.int8([[1], [1], [1], [0], [1]]),
        np.arange(3),
        np.arange(3, 5),
        None,
    )
    config = settings(
        hidden=(2,),
        batch_norm="none",
        batch_size=2,
        epochs=1,
        learning_rate=1e-12,
        dropout=0.0,
        noise=0.0,
    )
    trained = fit_head(data, config)
    p = predict_probabilities(trained.module, data.embedding[:3])
    # A last batch of a single row is skipped; the mean is over the other two.
    pairs = [-np.log(p[list(pair), 0]).mean() for pair in ((0, 1), (0, 2), (1, 2))]
    assert min(abs(trained.history[0].train_loss - loss) for loss in pairs) < 1e-5


@pytest.mark.parametrize("head", SEED_HEADS)
@pytest.mark.parametrize(("rows", "batch_size"), [(2, 2), (2, 128), (3, 2), (5, 4)])
def test_tiny_training_set_or_leftover_row_works(data, head, rows, batch_size):
    tiny = changed(data, train=data.train[:rows])
    trained = fit_head(tiny, settings(head=head, batch_size=batch_size))
    assert np.isfinite(predict_probabilities(trained.module, data.embedding)).all()


def test_single_training_row_is_refused(data):
    with pytest.raises(UsageError, match="1 training images: a head needs at least 2"):
        fit_head(changed(data, train=data.train[:1]), SMALL)


@pytest.mark.parametrize("split", ["train", "val"])
def test_split_without_known_labels_is_refused(data, split):
    labels = data.labels.copy()
    labels[getattr(data, split)] = -1
    with pytest.raises(UsageError, match=f"no image of split '{split}' has a known label"):
        fit_head(changed(data, labels=labels), SMALL)


def test_empty_validation_split_is_refused(data):
    with pytest.raises(UsageError, match="no image of split 'val' has a known label"):
        fit_head(changed(data, val=data.val[:0]), SMALL)


def test_diverging_learning_rate_is_refused(data):
    with pytest.raises(
        UsageError, match=r"never finite with a `learning_rate` of 1e\+38: lower it"
    ):
        fit_head(data, settings(learning_rate=1e38))


def test_head_that_uses_text_is_refused_without_text(data):
    with pytest.raises(UsageError, match="head 'concat' needs text embeddings"):
        fit_head(changed(data, texts=None), settings(head="concat"))


def test_text_ablation_is_refused_for_a_head_without_text(data):
    with pytest.raises(UsageError, match="'baseline' uses no text, so `text_ablation`"):
        fit_head(data, settings(text_ablation="permuted"))


def test_unknown_head_is_refused(data):
    with pytest.raises(UnknownNameError, match="unknown head 'basline': did you mean baseline"):
        fit_head(data, settings(head="basline"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_inputs_standardized_batch_by_batch_give_the_same_head(data, precision, monkeypatch):
    in_memory = fit_head(data, settings(precision=precision))
    monkeypatch.setattr(gradient, "MAX_INPUT_BYTES", 0)
    batch_sizes = []
    monkeypatch.setattr(
        Standardize,
        "transform",
        lambda self, embedding, rows, dtype, transform=Standardize.transform: (
            batch_sizes.append(len(rows)) or transform(self, embedding, rows, dtype)
        ),
    )
    batch_by_batch = fit_head(data, settings(precision=precision))
    assert max(batch_sizes) < len(data.train)
    assert same_head(in_memory, batch_by_batch)
    assert in_memory.history == batch_by_batch.history


def test_validation_in_batches_gives_the_overall_loss(data, monkeypatch):
    at_once = fit_head(data, settings(epochs=1))
    monkeypatch.setattr(gradient, "rows_at_once", lambda shape: 7)
    assert (data.labels[data.val] < 0).any()  # batches with different numbers of known labels
    in_batches = fit_head(data, settings(epochs=1))
    assert in_batches.history[0].val_loss == pytest.approx(at_once.history[0].val_loss, rel=1e-6)


@pytest.mark.parametrize("head", SEED_HEADS)
def test_bf16_ranks_as_well_as_fp32(head):
    data, test = linear_problem(3000, noise=0.1)
    text = np.random.default_rng(5).normal(size=(1, 8)).astype(np.float32)
    scores = {}
    for precision in ("fp32", "bf16"):
        config = HeadConfig(head=head, epochs=8, precision=precision)
        trained = fit_head(changed(data, texts=LabelTexts(text)), config)
        assert trained.config.precision == precision
        assert {tensor.dtype for tensor in trained.module.parameters()} == {torch.float32}
        p = predict_probabilities(trained.module, data.embedding[test])[:, 0]
        scores[precision] = roc_auc_score(data.labels[test, 0], p)
    assert scores["fp32"] > 0.85
    assert scores["bf16"] == pytest.approx(scores["fp32"], abs=0.005)
    assert scores["bf16"] != scores["fp32"]  # another precision was used


@pytest.mark.parametrize("head", ["concat", "weighted_sum"])
@pytest.mark.parametrize("ablation", ["none", "permuted", "random", "zero"])
def test_head_is_built_with_the_ablated_text(data, head, ablation, monkeypatch):
    given = []
    build = HeadSpec.build

    def spied(self, dim, labels, texts, config):
        given.append(texts.positive)
        return build(self, dim, labels, texts, config)

    monkeypatch.setattr(HeadSpec, "build", spied)
    fit_head(data, settings(head=head, text_ablation=ablation, epochs=1))
    (rows,) = given
    if ablation == "none":
        assert np.array_equal(rows, data.texts.positive)
    elif ablation == "zero":
        assert not rows.any()
    elif ablation == "permuted":
        assert sorted(map(tuple, rows)) == sorted(map(tuple, data.texts.positive))
        assert not (rows == data.texts.positive).all(axis=1).any()
    else:
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)


def test_text_changes_the_predictions(data):
    real = fit_head(data, settings(head="weighted_sum"))
    zero = fit_head(data, settings(head="weighted_sum", text_ablation="zero"))
    p = [predict_probabilities(trained.module, data.embedding) for trained in (real, zero)]
    assert np.abs(p[0] - p[1]).max() > 1e-3


@pytest.mark.parametrize("loss", ["asymmetric", "logit_adjusted"])
def test_chosen_loss_is_minimized(data, loss):
    # One step over all rows, at a rate at which the head does not change; recomputed afterwards.
    config = settings(
        loss=loss, epochs=1, batch_size=160, learning_rate=1e-12, dropout=0.0, noise=0.0
    )
    trained = fit_head(data, config)
    p = torch.from_numpy(predict_probabilities(trained.module, data.embedding))
    logits, y = torch.logit(p), torch.from_numpy(data.labels).double()
    train, val = (torch.from_numpy(rows) for rows in (data.train, data.val))
    if loss == "asymmetric":
        of_train, of_val = (asymmetric_loss(logits[rows], y[rows]).item() for rows in (train, val))
    else:
        positives, negatives = ((data.labels[data.train] == v).sum(axis=0) for v in (1, 0))
        prior = torch.from_numpy(np.log(positives / negatives))
        of_train, of_val = (
            masked_bce(logits[rows] + prior, y[rows]).item() for rows in (train, val)
        )
    (epoch,) = trained.history
    assert epoch.val_loss == pytest.approx(of_val, rel=1e-4)
    # In training, batch norm uses the statistics of the batch.
    assert epoch.train_loss == pytest.approx(of_train, rel=0.2)


def test_logit_adjusted_loss_predicts_as_if_findings_were_frequent():
    data, test = linear_problem(3000, noise=0.1)
    rows = np.array([row for row in data.train if not (data.labels[row, 0] == 1 and row % 12)])
    few = changed(data, train=rows)
    means = {}
    for loss in ("bce", "logit_adjusted"):
        head = fit_head(few, HeadConfig(head="baseline", epochs=10, loss=loss))
        means[loss] = predict_probabilities(head.module, data.embedding[test]).mean()
    assert means["logit_adjusted"] > means["bce"] + 0.1


def weighted_loss(y, p, weight):
    known = y >= 0
    losses = np.where(y == 1, -weight * np.log(p), -np.log1p(-p))
    return losses[known].mean()


@pytest.mark.parametrize("balanced", [False, True])
def test_balanced_loss_weights_positives_by_their_rarity_in_training(data, balanced):
    # One step over all rows, at a rate at which the head does not change; recomputed afterwards.
    # Batch norm would see other means in training.
    config = settings(
        epochs=1,
        batch_size=160,
        learning_rate=1e-12,
        dropout=0.0,
        noise=0.0,
        hidden=(8,),
        batch_norm="none",
    )
    config = dataclasses.replace(config, pos_weight="balanced" if balanced else "none")
    trained = fit_head(data, config)
    p = predict_probabilities(trained.module, data.embedding)
    y = data.labels[data.train]
    weight = (y == 0).sum(axis=0) / (y == 1).sum(axis=0) if balanced else np.ones(3)
    (epoch,) = trained.history
    assert epoch.train_loss == pytest.approx(weighted_loss(y, p[data.train], weight), rel=1e-5)
    on_val = weighted_loss(data.labels[data.val], p[data.val], weight)
    assert epoch.val_loss == pytest.approx(on_val, rel=1e-5)


def test_weighted_resampling_raises_the_probability_of_rare_labels(data):
    rng = np.random.default_rng(1)
    rare = changed(data, labels=(rng.random((300, 1)) < 0.08).astype(np.int8))
    # A single epoch, because validation, where the label is as rare, would choose among several.
    config = settings(hidden=(8,), epochs=1, batch_size=8, learning_rate=0.05, dropout=0.0)
    means = {
        resample: predict_probabilities(
            fit_head(rare, dataclasses.replace(config, resample=resample)).module, data.embedding
        ).mean()
        for resample in ("none", "weighted")
    }
    assert means["none"] < 0.15
    assert means["weighted"] > 0.25


def test_training_rows_are_all_rows_a_random_or_a_balanced_subset(data):
    assert np.array_equal(training_rows(data, SMALL), data.train)
    some = training_rows(data, settings(train_size=50))
    assert len(some) == 50
    assert set(some) <= set(data.train)
    few = training_rows(data, settings(train_size=40, resample="undersample"))
    assert len(few) == 40
    assert set(few) <= set(data.train)
    # The rarest group is more frequent than among all rows.
    labels = data.labels

    def rarest(rows):
        groups = np.column_stack([labels[rows] == 1, (labels[rows] == 0).all(axis=1)])
        return groups.mean(axis=0).min()

    assert rarest(few) > rarest(data.train)
    assert np.array_equal(fit_head(data, settings(train_size=50)).train_rows, some)


def test_probabilities_do_not_depend_on_batch_size(data, monkeypatch):
    module = fit_head(data, SMALL).module
    whole = predict_probabilities(module, data.embedding)
    monkeypatch.setattr("featurecache.heads.fit.rows_at_once", lambda shape: 7)
    batches = predict_probabilities(module, data.embedding)
    assert whole.dtype == np.float64
    assert whole.shape == data.labels.shape
    np.testing.assert_allclose(batches, whole, rtol=1e-6)


def test_probabilities_near_one_do_not_tie(data):
    module = fit_head(data, SMALL).module
    with torch.no_grad():
        module.output.bias += 20  # where float32 rounds the sigmoid to 1
    p = predict_probabilities(module, data.embedding)
    assert (p < 1).all()
    assert len(np.unique(p[:, 0])) > 100


def test_resolved_settings_are_reported_and_reproduce_the_head(data):
    trained = fit_head(data, HeadConfig(head="baseline", hidden=(8, 4), epochs=2))
    assert (trained.config.epochs, trained.config.batch_size) == (2, 128)
    assert trained.config.learning_rate == 1e-3
    again = fit_head(data, trained.config)
    assert same_head(trained, again)
