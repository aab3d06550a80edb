"""Noise and dropout: frequencies, scale and random numbers."""

import numpy as np
import pytest
import torch

from featurecache.heads.layers import Dropout, GaussianNoise


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_dropout_zeroes_a_fraction_and_scales_up_the_rest(p):
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(1003, 501))
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / (1 - p))]
    # Four standard deviations of the fraction among half a million entries.
    deviation = np.sqrt(p * (1 - p) / dropped.numel())
    assert (dropped == 0).double().mean().item() == pytest.approx(p, abs=4 * deviation)


def test_every_position_is_dropped_equally_often():
    torch.manual_seed(1)
    module = Dropout(0.5)
    counts = sum((module(torch.ones(64)) == 0).double() for _ in range(4000))
    # Each position is dropped 2,000 times with a standard deviation of 32; five of those are
    # unlikely among 64 positions.
    assert (counts - 2000).abs().max() < 5 * 32


def test_random_numbers_differ_between_calls_and_follow_the_seed():
    torch.manual_seed(2)
    module = Dropout(0.3)
    first, second = module(torch.ones(500)), module(torch.ones(500))
    assert not torch.equal(first, second)
    torch.manual_seed(2)
    assert torch.equal(Dropout(0.3)(torch.ones(500)), first)


def test_gradients_pass_where_values_do():
    torch.manual_seed(3)
    values = torch.ones(300, requires_grad=True)
    dropped = Dropout(0.3)(values)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())


@pytest.mark.parametrize("p", [0.0, 0.3, 0.999])
def test_nothing_is_dropped_in_evaluation(p):
    module = Dropout(p).eval()
    values = torch.randn(7, 3)
    assert torch.equal(module(values), values)


def test_dropout_close_to_one_stays_finite():
    torch.manual_seed(4)
    assert Dropout(0.999)(torch.ones(10_000)).isfinite().all()


def test_noise_is_normal_with_the_given_deviation():
    torch.manual_seed(5)
    module = GaussianNoise(0.3)
    noise = module(torch.zeros(400, 500)).double()
    assert noise.mean().item() == pytest.approx(0, abs=4 * 0.3 / np.sqrt(noise.numel()))
    assert noise.std().item() == pytest.approx(0.3, rel=0.01)
    fourth = (noise / noise.std()).pow(4).mean().item()
    assert fourth == pytest.approx(3, abs=0.1)  # of the normal distribution
    assert torch.equal(module.eval()(noise), noise)


@pytest.mark.parametrize("module", [Dropout(0.3), GaussianNoise(0.3)])
def test_larger_batch_or_other_dtype_gets_a_new_pool(module):
    torch.manual_seed(6)
    for rows, dtype in ((10, torch.float32), (2_000_000, torch.float32), (10, torch.bfloat16)):
        noisy = module(torch.ones(rows, 1, dtype=dtype))
        assert noisy.dtype == dtype
        assert len(noisy.unique()) > 1


def test_random_numbers_are_not_in_the_state_dict():
    module = Dropout(0.3)
    module(torch.ones(10))
    assert module.state_dict() == {}
