"""AdamW in functional form, against torch's optimizer object and scheduler."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from featurecache.heads.adamw import AdamW, ParameterGroup

SETTINGS = ({"lr": 1e-2, "weight_decay": 0.1}, {"lr": 0.3, "weight_decay": 0.01, "eps": 1e-3})


def network():
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 2))


def factor(step):
    return 0.9**step


def losses(model, step):
    generator = torch.Generator().manual_seed(0)
    values = []
    for number in range(30):
        x = torch.randn(16, 5, generator=generator)
        loss = (model(x) - x[:, :2].sin()).square().mean()
        loss.backward()
        step(number)
        values.append(loss.item())
    return values


def test_steps_equal_those_of_torchs_optimizer():
    theirs, ours = network(), network()
    optimizer = torch.optim.AdamW(
        [
            {"params": layers.parameters(), **settings}
            for layers, settings in zip((theirs[:2], theirs[3]), SETTINGS, strict=True)
        ],
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def torch_step(number):
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()

    groups = [
        ParameterGroup(
            list(layers.parameters()),
            settings["lr"],
            settings["weight_decay"],
            settings.get("eps", 1e-8),
        )
        for layers, settings in zip((ours[:2], ours[3]), SETTINGS, strict=True)
    ]
    adamw = AdamW(groups)
    expected = losses(theirs, torch_step)
    assert losses(ours, lambda number: adamw.step(factor(number))) == expected
    assert expected[-1] < expected[0]
    for expected, actual in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert torch.equal(expected, actual)


def test_parameter_without_gradient_is_refused():
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="no gradient"):
        AdamW([ParameterGroup([weight], 1e-3, 0.0)]).step(1.0)


def test_torchs_compiler_is_not_imported():
    script = (
        "import sys, torch; from featurecache.heads.adamw import AdamW, ParameterGroup; "
        "weight = torch.nn.Parameter(torch.ones(2)); weight.sum().backward(); "
        "AdamW([ParameterGroup([weight], 1e-3, 0.0)]).step(1.0); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
