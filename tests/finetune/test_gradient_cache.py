"""Gradients in chunks compared with one backward pass over the batch, in a small random CLIP."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from featurecache.finetune.gradient_cache import backward_in_chunks
from featurecache.losses import multi_positive_info_nce
from tests.published import random_model, tiny_clip_config

BATCH, CAPTIONS = 256, 6


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    # Two threads wait for each other on a busy machine.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def clip(*, dropout=0.0, dtype=torch.float32):
    from transformers import CLIPModel

    config = tiny_clip_config()
    config.vision_config.attention_dropout = dropout
    config.text_config.attention_dropout = dropout
    model = random_model(CLIPModel, config, seed=0).to(dtype)
    with torch.no_grad():
        model.logit_scale.fill_(2.5)
    return model.train()


def embed_images(model, pixels):
    return model.get_image_features(pixel_values=pixels).pooler_output


def embed_texts(model, tokens):
    return model.get_text_features(input_ids=tokens).pooler_output


def batch(size=BATCH, *, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(size, 3, 32, 32, generator=generator, dtype=dtype)
    tokens = torch.randint(0, 998, (CAPTIONS, 7), generator=generator)
    tokens[:, -1] = 999
    truth = torch.randint(-1, 2, (size, CAPTIONS), generator=generator)
    return pixels, tokens, truth


def loss_of(model, truth):
    def loss(images, texts):
        return multi_positive_info_nce(images, texts, truth, model.logit_scale.exp())

    return loss


def in_chunks(model, data, *, images=32, texts=4, seed=0):
    """Return the loss and the gradients by name, in chunks of these many images and texts."""
    pixels, tokens, truth = data
    model.zero_grad()
    value = backward_in_chunks(
        loss_of(model, truth),
        [partial(embed_images, model, part) for part in pixels.split(images)],
        [partial(embed_texts, model, part) for part in tokens.split(texts)],
        seed=seed,
    )
    return value, gradients(model)


def at_once(model, data):
    pixels, tokens, truth = data
    model.zero_grad()
    value = loss_of(model, truth)(embed_images(model, pixels), embed_texts(model, tokens))
    value.backward()
    return value.detach(), gradients(model)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def flat(of_parameters):
    return torch.cat([gradient.double().flatten() for gradient in of_parameters.values()])


def assert_close(actual, expected, *, relative):
    """Compare gradients relative to their size, or to the rounding error of the largest one."""
    assert actual.keys() == expected.keys()
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        error = (actual[name] - gradient).norm()
        # Attention does not depend on the bias of its keys: that gradient is pure rounding error.
        assert error <= relative * max(gradient.norm(), 1e-2 * largest), name


@pytest.mark.parametrize(
    ("dtype", "relative"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["fp32", "fp64"]
)
@pytest.mark.parametrize(("images", "texts"), [(32, CAPTIONS), (32, 4), (100, 1)])
def test_chunks_give_gradients_of_whole_batch(dtype, relative, images, texts):
    model, data = clip(dtype=dtype), batch(dtype=dtype)
    expected_value, expected = at_once(model, data)
    value, actual = in_chunks(model, data, images=images, texts=texts)
    assert value.item() == pytest.approx(expected_value.item(), rel=relative)
    assert not value.requires_grad
    assert expected["logit_scale"].abs() > 1e-3
    assert_close(actual, expected, relative=relative)


def test_separate_loss_for_each_chunk_gives_other_gradients():
    model, data = clip(), batch()
    _, expected = at_once(model, data)
    total = torch.zeros_like(flat(expected))
    for pixels, truth in zip(data[0].split(32), data[2].split(32), strict=True):
        total += flat(at_once(model, (pixels, data[1], truth))[1]) / (BATCH / 32)
    assert (total - flat(expected)).norm() > 0.01 * flat(expected).norm()


def test_gradients_are_accumulated():
    model, data = clip(dtype=torch.float64), batch(64, dtype=torch.float64)
    _, once = in_chunks(model, data)
    pixels, tokens, truth = data
    backward_in_chunks(
        loss_of(model, truth),
        [partial(embed_images, model, part) for part in pixels.split(32)],
        [partial(embed_texts, model, tokens)],
        seed=0,
    )
    twice = {name: 2 * gradient for name, gradient in once.items()}
    assert_close(gradients(model), twice, relative=1e-12)


def test_single_chunk_is_plain_backward_pass():
    model, data = clip(), batch(64)
    expected_value, expected = at_once(model, data)
    calls = []

    def counted(embed, part):
        calls.append(embed)
        return embed(model, part)

    model.zero_grad()
    pixels, tokens, truth = data
    value = backward_in_chunks(
        loss_of(model, truth),
        [partial(counted, embed_images, pixels)],
        [partial(counted, embed_texts, tokens)],
        seed=0,
    )
    assert calls == [embed_images, embed_texts]
    assert torch.equal(value, expected_value)
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, expected[name]), name


def test_seed_decides_dropout():
    model, data = clip(dropout=0.3), batch(64)
    torch.manual_seed(5)
    value, first = in_chunks(model, data, seed=(3, 1))
    torch.manual_seed(6)
    again, second = in_chunks(model, data, seed=(3, 1))
    other, _ = in_chunks(model, data, seed=(3, 2))
    assert torch.equal(value, again)
    assert torch.equal(flat(first), flat(second))
    assert abs(other - value) > 1e-4


@pytest.mark.parametrize("images", [16, 64], ids=["chunks", "one chunk"])
def test_global_generator_is_untouched(images):
    model, data = clip(dropout=0.3), batch(64)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    in_chunks(model, data, images=images)
    assert torch.equal(torch.rand(3), expected)


def test_gradients_with_dropout_match_finite_differences():
    """Holds only if the second pass repeats the dropout masks of the first."""
    model, data = clip(dropout=0.3, dtype=torch.float64), batch(64, dtype=torch.float64)
    _, gradient = in_chunks(model, data)
    generator = torch.Generator().manual_seed(2)
    for tower in ("vision_model", "text_model", ""):
        moved = {n: p for n, p in model.named_parameters() if n.startswith(tower)}
        steps = {n: torch.randn(p.shape, generator=generator).double() for n, p in moved.items()}
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for name, parameter in moved.items():
                    parameter += sign * 1e-6 * steps[name]
            values.append(in_chunks(model, data)[0].item())
            with torch.no_grad():
                for name, parameter in moved.items():
                    parameter -= sign * 1e-6 * steps[name]
        slope = (values[0] - values[1]) / 2e-6
        expected = sum((gradient[name] * step).sum().item() for name, step in steps.items())
        assert expected == pytest.approx(slope, rel=1e-5)


def test_chunks_and_loss_have_different_random_numbers():
    ones = torch.ones(2, 50)
    weight = torch.ones((), requires_grad=True)
    seen = []

    def drop():
        return functional.dropout(ones * weight)

    def loss(*embeddings):
        seen.extend(part for embedding in embeddings for part in embedding.split(2))
        seen.append(functional.dropout(ones))
        return sum(embedding.sum() for embedding in embeddings)

    backward_in_chunks(loss, [drop, drop], [drop], seed=0)
    first = [part.detach().clone() for part in seen]
    seen.clear()
    backward_in_chunks(loss, [drop, drop], [drop], seed=0)
    assert len(first) == 4
    for place, part in enumerate(first):
        assert torch.equal(part, seen[place])
        assert not any(torch.equal(part, other) for other in first[:place])


@pytest.mark.parametrize("where", ["around", "inside"])
def test_every_parameter_gets_gradient_under_autocast(where):
    model, data = clip(), batch(64)
    _, exact = at_once(model, data)
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    with autocast():
        _, expected = at_once(model, data)
    model.zero_grad()
    pixels, tokens, truth = data

    def embed(function, part):
        with autocast(enabled=where == "inside" or torch.is_autocast_enabled("cpu")):
            return function(model, part)

    with autocast(enabled=where == "around"):
        backward_in_chunks(
            loss_of(model, truth),
            [partial(embed, embed_images, part) for part in pixels.split(16)],
            [partial(embed, embed_texts, part) for part in tokens.split(4)],
            seed=0,
        )
    actual = gradients(model)
    rounding = (flat(expected) - flat(exact)).norm()
    assert rounding > 1e-4 * flat(exact).norm()  # autocast was on
    assert (flat(actual) - flat(exact)).norm() < 2 * rounding
    for name, gradient in actual.items():
        assert gradient.dtype == torch.float32
        assert gradient.any() == expected[name].any(), name


def peak_activations(size, *, images):
    """Return the maximum number of bytes that autograd holds for the encoders."""
    held = peak = 0

    class Saved:
        def __init__(self, tensor):
            nonlocal held, peak
            self.tensor = tensor
            held += tensor.nbytes
            peak = max(peak, held)

        def __del__(self):
            nonlocal held
            held -= self.tensor.nbytes

    def embed(function, part):
        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            return function(model, part)

    model = clip()
    pixels, tokens, truth = batch(size)
    backward_in_chunks(
        loss_of(model, truth),
        [partial(embed, embed_images, part) for part in pixels.split(images)],
        [partial(embed, embed_texts, tokens)],
        seed=0,
    )
    assert held == 0
    return peak


def test_activations_grow_with_chunk_not_with_batch():
    assert peak_activations(256, images=32) == peak_activations(64, images=32)
    assert peak_activations(256, images=256) > 6 * peak_activations(256, images=32)


@pytest.mark.parametrize("images", [4, 8], ids=["chunks", "one chunk"])
def test_frozen_or_unused_encoder_gets_no_gradient(images):
    generator = torch.Generator().manual_seed(0)
    trained, frozen, unused = (nn.Linear(3, 2) for _ in range(3))
    frozen.requires_grad_(False)
    x = torch.randn(8, 3, generator=generator)
    chunks = [[partial(m, part) for part in x.split(images)] for m in (trained, frozen, unused)]
    backward_in_chunks(lambda a, b, _: (a * b).sum(), *chunks, seed=0)
    expected = frozen(x).T @ x
    np.testing.assert_allclose(trained.weight.grad.numpy(), expected.numpy(), rtol=1e-5)
    assert frozen.weight.grad is None
    assert unused.weight.grad is None


def test_encoder_without_chunks_is_refused():
    with pytest.raises(ValueError, match="no chunks"):
        backward_in_chunks(lambda a, _: a.sum(), [lambda: torch.ones(1, 1)], [], seed=0)
