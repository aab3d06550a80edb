"""LoRA adapters: which layers have them, what they train, and how they are merged."""

import numpy as np
import pytest
import torch

from featurecache.encoders.loading import load_encoder
from featurecache.errors import UsageError
from tests import published

PIXELS = torch.tensor(np.random.default_rng(4).normal(size=(3, 3, 32, 32)), dtype=torch.float32)


@pytest.fixture
def trainable(tiny_clip):
    return load_encoder(str(tiny_clip), device="cpu").trainable()


def step(trainable):
    loss = trainable.embed_images(PIXELS).square().mean() * trainable.scale()
    loss.backward()
    torch.optim.Adam([p for p in trainable.module.parameters() if p.requires_grad], 0.05).step()


def test_adapters_start_without_effect(trainable):
    before = trainable.embed_images(PIXELS)
    trainable.set_trainable("lora-2")
    assert torch.equal(trainable.embed_images(PIXELS), before)


def test_only_adapters_and_the_scale_are_trained(trainable):
    before = {name: value.clone() for name, value in trainable.module.state_dict().items()}
    count = trainable.set_trainable("lora-2")
    layers = [
        part
        for block in trainable.groups.blocks
        for part in block.modules()
        if isinstance(part, torch.nn.Linear) and part.weight.shape[0] != 2 != part.weight.shape[1]
    ]
    assert count == sum(2 * sum(layer.weight.shape) for layer in layers) + 1
    step(trainable)
    after = trainable.module.state_dict()
    assert not torch.equal(after["logit_scale"], before["logit_scale"])
    for name, value in before.items():
        if name != "logit_scale":
            wrapped = name if name in after else name.replace(".weight", ".base_layer.weight")
            wrapped = wrapped if wrapped in after else name.replace(".bias", ".base_layer.bias")
            assert torch.equal(after[wrapped], value), name


def test_merged_adapters_keep_embeddings_and_leave_a_plain_network(trainable, tmp_path):
    names = set(trainable.module.state_dict())
    before = trainable.embed_images(PIXELS)
    trainable.set_trainable("lora-2")
    step(trainable)
    step(trainable)
    adapted = trainable.embed_images(PIXELS)
    assert not torch.allclose(adapted, before, atol=1e-3)
    trainable.merge_lora()
    assert set(trainable.module.state_dict()) == names
    assert torch.allclose(trainable.embed_images(PIXELS), adapted, atol=1e-5)
    trainable.save(tmp_path / "saved")
    again = load_encoder(str(tmp_path / "saved"), device="cpu").embed_pixels(PIXELS.numpy())
    assert np.allclose(again, adapted.detach().numpy(), atol=1e-5)


def test_adapters_depend_on_the_seed(tiny_clip):
    def first(seed):
        trainable = load_encoder(str(tiny_clip), device="cpu").trainable()
        trainable.set_trainable("lora-2", seed=seed)
        return next(v for n, v in trainable.module.state_dict().items() if "lora_A" in n)

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_missing_peft_gives_installation_command(trainable, monkeypatch):
    monkeypatch.setattr("featurecache.encoders.lora.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'featurecache\[lora\]'"):
        trainable.set_trainable("lora-4")
    assert all(p.requires_grad for p in trainable.module.parameters())


def test_convolutional_network_is_refused(tmp_path):
    published.write_joined(tmp_path / "joined", seed=6)
    trainable = load_encoder(str(tmp_path / "joined"), device="cpu").trainable()
    with pytest.raises(UsageError, match=r"lora-R needs linear layers.*last-N"):
        trainable.set_trainable("lora-2")
