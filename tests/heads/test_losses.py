"""The loss against the formula in double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.heads.losses import balanced_positive_weight, masked_bce


def by_hand(logits, targets, weight):
    """-mean over known of w y log p + (1 - y) log(1 - p), with log p = -log(1 + exp(-z))."""
    known = targets >= 0
    losses = np.where(targets == 1, weight * np.logaddexp(0, -logits), np.logaddexp(0, logits))
    return losses[known].sum() / max(1, known.sum())


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 6), labels=st.integers(1, 4))
def test_it_is_the_mean_over_known_labels(seed, rows, labels):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=20, size=(rows, labels))
    targets = rng.choice([1.0, 0.0, -1.0], size=(rows, labels))
    weight = rng.uniform(0.1, 50, labels)
    arguments = torch.tensor(logits), torch.tensor(targets)
    assert masked_bce(*arguments).item() == pytest.approx(by_hand(logits, targets, 1.0), rel=1e-12)
    weighted = masked_bce(*arguments, positive_weight=torch.tensor(weight)).item()
    assert weighted == pytest.approx(by_hand(logits, targets, weight), rel=1e-12)


def test_its_gradient_is_the_probability_less_the_label():
    logits = torch.tensor([[0.3, -2.0], [1.5, 4.0]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    masked_bce(logits, targets, positive_weight=torch.tensor([1.0, 3.0]).double()).backward()
    p = 1 / (1 + np.exp(-logits.detach().numpy()))
    expected = [[(p[0, 0] - 1) / 3, p[0, 1] / 3], [0, 3 * (p[1, 1] - 1) / 3]]
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("logit", [torch.inf, -torch.inf, torch.nan, 1e38])
@pytest.mark.parametrize("weight", [None, torch.tensor([2.0, 5.0])])
def test_an_unknown_label_takes_no_part_whatever_its_logit(logit, weight):
    logits = torch.tensor([[logit, 0.7]], requires_grad=True)
    loss = masked_bce(logits, torch.tensor([[-1.0, 0.0]]), positive_weight=weight)
    loss.backward()
    assert loss.item() == pytest.approx(np.log1p(np.exp(0.7)))
    assert logits.grad[0, 0].item() == 0
    assert logits.grad[0, 1].item() == pytest.approx(1 / (1 + np.exp(-0.7)))


def test_where_nothing_is_known_the_loss_and_its_gradient_are_zero():
    logits = torch.tensor([[1.0, torch.inf]], requires_grad=True)
    loss = masked_bce(logits, torch.full((1, 2), -1.0), positive_weight=torch.ones(2))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [[0, 0]]


def test_the_balanced_weight_is_negatives_over_positives():
    targets = torch.tensor(
        [
            [1.0, 1.0, 0.0, 1.0, -1.0],
            [0.0, 1.0, 0.0, 1.0, -1.0],
            [0.0, 0.0, 0.0, 1.0, -1.0],
            [0.0, -1.0, -1.0, -1.0, -1.0],
        ]
    )
    # Without positives, negatives or either there is nothing to balance.
    assert balanced_positive_weight(targets).tolist() == [3, 0.5, 1, 1, 1]
