"""Training the output of a layer with constant input, against training its weights."""

import pytest
import torch
from torch import nn

from featurecache.heads.adamw import AdamW
from featurecache.heads.constant_projection import ConstantProjection, parameter_groups

INPUTS, OUTPUTS = 200, 6
RATE, DECAY = 1e-3, 0.05


class Network(nn.Module):
    """A text layer whose output is added to the images, followed by a linear layer."""

    def __init__(self, text, *, as_linear):
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(INPUTS, OUTPUTS) if as_linear else ConstantProjection(text, OUTPUTS)
        self.text = text
        self.rest = nn.Linear(OUTPUTS, 2)

    def projected(self):
        if isinstance(self.layer, ConstantProjection):
            return self.layer()
        return self.layer(self.text.double().reshape(1, -1))

    def forward(self, x):
        return self.rest(torch.tanh(x + self.projected()))


def trained(network, step, *, steps=150):
    """Return the layer's output before training and after each step."""
    network.double()
    generator = torch.Generator().manual_seed(1)
    outputs = [network.projected().detach().clone()]
    for number in range(steps):
        x = torch.randn(32, OUTPUTS, dtype=torch.float64, generator=generator)
        target = (x[:, :2] + 0.5 > 0).double()
        loss = nn.functional.binary_cross_entropy_with_logits(network(x), target)
        loss.backward()
        step(min(1, (number + 1) / 20) * 0.99**number)
        outputs.append(network.projected().detach().clone())
    return torch.stack(outputs)


def train_both(text):
    linear = Network(text, as_linear=True)
    optimizer = torch.optim.AdamW(linear.parameters(), weight_decay=DECAY)

    def torch_step(factor):
        optimizer.param_groups[0]["lr"] = factor * RATE
        optimizer.step()
        optimizer.zero_grad()

    constant = Network(text, as_linear=False)
    constant.double()
    ours = AdamW(parameter_groups(constant, learning_rate=RATE, weight_decay=DECAY))
    return trained(linear, torch_step), trained(constant, ours.step)


@pytest.mark.parametrize("length", [0.2, 3.0])
def test_output_follows_that_of_trained_weights(length):
    text = torch.randn(INPUTS, generator=torch.Generator().manual_seed(0))
    text *= length / text.norm()
    slow, fast = train_both(text)
    assert torch.allclose(slow[0], fast[0], atol=1e-7)  # initialized in single precision
    distance = (slow[-1] - slow[0]).abs().max()
    assert distance > 0.05
    assert (slow - fast).abs().max() < 2e-3 * distance


def test_zero_input_leaves_a_bias():
    slow, fast = train_both(torch.zeros(INPUTS))
    distance = (slow[-1] - slow[0]).abs().max()
    assert distance > 0.01
    assert (slow - fast).abs().max() < 1e-5 * distance


def test_initial_output_is_that_of_a_linear_layer_with_the_same_seed():
    text = torch.randn(INPUTS)
    torch.manual_seed(8)
    layer = nn.Linear(INPUTS, OUTPUTS)
    torch.manual_seed(8)
    assert torch.equal(ConstantProjection(text, OUTPUTS)(), layer(text.reshape(1, -1)))
