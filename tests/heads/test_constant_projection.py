"""Training the output of a layer on a fixed input, against training its weights one by one."""

import pytest
import torch
from torch import nn

from featurecache.heads.adamw import AdamW
from featurecache.heads.constant_projection import ConstantProjection, parameter_groups

INPUTS, OUTPUTS = 200, 6
RATE, DECAY = 1e-3, 0.05


class Network(nn.Module):
    """A text layer whose output is added to images, and a layer of its own after that."""

    def __init__(self, text, *, element_wise):
        super().__init__()
        torch.manual_seed(3)
        self.layer = (
            nn.Linear(INPUTS, OUTPUTS) if element_wise else ConstantProjection(text, OUTPUTS)
        )
        self.text = text
        self.rest = nn.Linear(OUTPUTS, 2)

    def projected(self):
        if isinstance(self.layer, ConstantProjection):
            return self.layer()
        return self.layer(self.text.double().reshape(1, -1))

    def forward(self, x):
        return self.rest(torch.tanh(x + self.projected()))


def trained(network, step, *, steps=150):
    """The layer's output before training and after each step."""
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


def both(text):
    one = Network(text, element_wise=True)
    optimizer = torch.optim.AdamW(one.parameters(), weight_decay=DECAY)

    def torch_step(factor):
        optimizer.param_groups[0]["lr"] = factor * RATE
        optimizer.step()
        optimizer.zero_grad()

    other = Network(text, element_wise=False)
    other.double()
    ours = AdamW(parameter_groups(other, learning_rate=RATE, weight_decay=DECAY))
    return trained(one, torch_step), trained(other, ours.step)


@pytest.mark.parametrize("length", [0.2, 3.0])
def test_the_output_moves_as_that_of_weights_trained_one_by_one(length):
    text = torch.randn(INPUTS, generator=torch.Generator().manual_seed(0))
    text *= length / text.norm()
    slow, fast = both(text)
    assert torch.allclose(slow[0], fast[0], atol=1e-7)  # drawn in single precision
    way = (slow[-1] - slow[0]).abs().max()
    assert way > 0.05
    assert (slow - fast).abs().max() < 2e-3 * way


def test_a_text_of_zeros_leaves_a_bias():
    slow, fast = both(torch.zeros(INPUTS))
    way = (slow[-1] - slow[0]).abs().max()
    assert way > 0.01
    assert (slow - fast).abs().max() < 1e-5 * way


def test_the_first_output_is_that_of_a_layer_drawn_by_the_same_seed():
    text = torch.randn(INPUTS)
    torch.manual_seed(8)
    layer = nn.Linear(INPUTS, OUTPUTS)
    torch.manual_seed(8)
    assert torch.equal(ConstantProjection(text, OUTPUTS)(), layer(text.reshape(1, -1)))
