"""Logits of the gradient heads against their formulas, and the effect of text on them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.registry import HEADS, head_spec
from featurecache.heads.text_features import LabelTexts
from featurecache.losses import masked_bce
from tests.heads.head_names import SEED_HEADS

DIM, LABELS, TEXT = 7, 3, 12
EPSILON = 1e-5  # torch's default in batch norm and layer norm


def build(head, *, hidden=(6, 5), text=None, dropout=0.0, seed=0, batch_norm="first"):
    """Return a head in double precision with random weights and statistics, none of them 0 or 1."""
    config = HeadConfig(head=head, hidden=hidden, dropout=dropout, noise=0.0, batch_norm=batch_norm)
    torch.manual_seed(seed)
    mega = torch.randn(TEXT) if text is None else text
    module = head_spec(head).build(DIM, LABELS, texts(mega), config)
    module.double()
    for name, tensor in module.state_dict().items():
        if name.endswith(("running_var", "deviation")):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.normal_()
    return module


def texts(mega):
    """Return the texts of three labels with this mega-vector."""
    return LabelTexts(mega.reshape(LABELS, -1).numpy())


def images(rows=16, seed=9):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, DIM)))


def relu(x):
    return np.maximum(x, 0)


def scaled(state, x):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return (unit - state["scaling.mean"]) / state["scaling.deviation"]


def batch_norm(state, name, x):
    """Return batch norm of x, or x itself if the layer has none."""
    if f"{name}.running_mean" not in state:
        return x
    normed = (x - state[f"{name}.running_mean"]) / np.sqrt(state[f"{name}.running_var"] + EPSILON)
    return normed * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0)


def layer_norm(state, name, x):
    normed = (x - x.mean()) / np.sqrt(x.var() + EPSILON)
    return normed * state[f"{name}.weight"] + state[f"{name}.bias"]


def hidden(state, first, layers):
    """Return the last hidden layer, given the first one before its ReLU."""
    x = relu(first)
    for layer in range(1, layers):
        # Four modules a layer, after the first layer's ReLU and dropout.
        name, norm = f"hidden.{4 * layer - 2}", f"hidden.{4 * layer - 1}"
        x = relu(batch_norm(state, norm, linear(state, name, x)))
    return x


def expected_logits(head, state, x, layers):
    x = scaled(state, x)
    if head == "baseline":
        first = batch_norm(state, "norm", linear(state, "first", x))
        return linear(state, "output", hidden(state, first, layers))
    if head == "weighted_sum":
        projected = relu(state["projection.output"][0])
        image = batch_norm(state, "norm", (state["image_weight"] * x) @ state["first.weight"].T)
        first = image + linear(state, "first", state["prompt_weight"] * projected)
        return linear(state, "output", hidden(state, first, layers))
    image = relu(batch_norm(state, "image_branch.1", linear(state, "image_branch.0", x)))
    text = relu(layer_norm(state, "text_branch.0", state["text_projection.output"][0]))
    image_weight, text_weight = np.split(state["first.weight"], 2, axis=1)
    first = batch_norm(state, "norm", image @ image_weight.T)
    first = first + text @ text_weight.T + state["first.bias"]
    # The first size is that of the branches; a single one is used for the classifier as well.
    return linear(state, "output", hidden(state, first, max(1, layers - 1)))


@pytest.mark.parametrize("norm", ["first", "later", "all", "none"])
@pytest.mark.parametrize("sizes", [(6,), (6, 5), (8, 6, 4)])
@pytest.mark.parametrize("head", SEED_HEADS)
def test_logits_follow_the_formula(head, sizes, norm):
    module = build(head, hidden=sizes, batch_norm=norm).eval()
    n_norms = sum(isinstance(layer, nn.BatchNorm1d) for layer in module.modules())
    n_layers = max(2, len(sizes)) if head == "concat" else len(sizes)
    assert n_norms == {"first": 1, "later": n_layers - 1, "all": n_layers, "none": 0}[norm]
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    expected = expected_logits(head, state, images().numpy(), len(sizes))
    logits = module(images()).detach().numpy()
    assert logits.shape == (16, LABELS)
    np.testing.assert_allclose(logits, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("head", SEED_HEADS)
def test_logits_in_evaluation_do_not_depend_on_the_batch(head):
    module = build(head, dropout=0.5).eval()
    together = module(images())
    alone = torch.cat([module(row[np.newaxis]) for row in images()])
    torch.testing.assert_close(alone, together)


@pytest.mark.parametrize("head", ["concat", "weighted_sum"])
def test_other_text_gives_other_logits_in_training(head):
    # The same initial weights, so that only the text differs.
    texts = [torch.randn(TEXT, generator=torch.Generator().manual_seed(n)) for n in (4, 5)]
    first, second = (build_untrained(head, text)(images()) for text in texts)
    assert (first - second).abs().mean() > 0.05 * first.std()


def build_untrained(head, text):
    torch.manual_seed(0)
    config = HeadConfig(head=head, hidden=(6, 5), dropout=0.0, noise=0.0)
    return head_spec(head).build(DIM, LABELS, texts(text), config).double().train()


def change_text(module):
    module.text_projection.output.data.neg_()


def test_batch_norm_on_the_text_branch_would_hide_the_text():
    # The head as published, with the same weights: a text row for every image.
    published = build("concat").train()
    _, *rest = published.text_branch
    branch = nn.Sequential(nn.BatchNorm1d(6, dtype=torch.float64), *rest).train()
    texts = [torch.randn(1, 6, dtype=torch.float64) for _ in range(2)]
    first, second = (branch(text.expand(16, -1)) for text in texts)
    assert (first - second).abs().max() < 1e-10
    first, second = (published.text_branch(text) for text in texts)
    assert (first - second).abs().max() > 0.1


def test_batch_norm_after_the_fusion_would_hide_the_text():
    corrected = build("concat").train()
    published = copy.deepcopy(corrected)
    norm = nn.BatchNorm1d(5, dtype=torch.float64)
    published.hidden = nn.Sequential(norm, *published.hidden).train()
    for module, least, most in ((corrected, 0.1, np.inf), (published, 0, 1e-10)):
        before = module(images())
        change_text(module)
        assert least <= (module(images()) - before).abs().mean() <= most


@pytest.mark.parametrize("norm", ["first", "later", "all", "none"])
def test_heads_without_text_share_their_layers(norm):
    # With a weight of zero on the text, both are the baseline: they differ in their text alone.
    baseline = build("baseline", batch_norm=norm).train()
    state = baseline.state_dict()
    weighted = build("weighted_sum", batch_norm=norm).train()
    weighted.load_state_dict({**weighted.state_dict(), **state})
    weighted.image_weight.data.fill_(1)
    weighted.prompt_weight.data.zero_()
    if norm in ("first", "all"):
        weighted.first.bias.data.zero_()
    concat = build("concat", batch_norm=norm).train()
    concat.scaling.load_state_dict(baseline.scaling.state_dict())
    concat.image_branch[0].load_state_dict(baseline.first.state_dict())
    concat.image_branch[1].load_state_dict(baseline.norm.state_dict())
    concat.first.weight.data[:, :6] = state["hidden.2.weight"]
    concat.first.weight.data[:, 6:] = 0
    concat.first.bias.data.copy_(state.get("hidden.2.bias", torch.zeros(5)))
    concat.norm.load_state_dict(baseline.hidden[3].state_dict())
    concat.output.load_state_dict(baseline.output.state_dict())
    expected = baseline(images())
    torch.testing.assert_close(weighted(images()), expected)
    torch.testing.assert_close(concat(images()), expected)


@pytest.mark.parametrize("head", ["concat", "weighted_sum"])
def test_every_parameter_has_a_gradient(head):
    module = build(head).train()
    targets = (torch.rand(16, LABELS, generator=torch.Generator().manual_seed(1)) < 0.5).double()
    masked_bce(module(images()), targets).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, name


def test_text_branch_is_the_same_in_training_and_evaluation():
    module = build("concat")
    text = module.text_projection()
    trained = module.train().text_branch(text)
    assert torch.equal(module.eval().text_branch(text), trained)


@pytest.mark.parametrize("norm", ["first", "later"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_weighted_sum_is_a_baseline_with_another_first_layer(mode, norm):
    # W (w_img x + w_prompt relu(P t)) + b = (W w_img) x + (b + W w_prompt relu(P t)), where the
    # last term, with batch norm of the first layer, is part of batch norm's bias.
    head, baseline = build("weighted_sum", batch_norm=norm), build("baseline", batch_norm=norm)
    state = head.state_dict()
    w = state["first.weight"]
    shift = w @ (state["prompt_weight"] * torch.relu(state["projection.output"][0]))
    rescaled = {name: tensor for name, tensor in state.items() if name in baseline.state_dict()}
    rescaled["first.weight"] = w * state["image_weight"]
    if norm == "first":
        rescaled["norm.bias"] = state["norm.bias"] + state["first.bias"] + shift
    else:
        rescaled["first.bias"] = state["first.bias"] + shift
    baseline.load_state_dict(rescaled)
    head.train(mode == "train")
    baseline.train(mode == "train")
    torch.testing.assert_close(baseline(images()), head(images()))


def test_weighted_sum_starts_with_equal_image_and_prompt_weights():
    config = HeadConfig(head="weighted_sum", hidden=(4,))
    module = head_spec("weighted_sum").build(DIM, LABELS, texts(torch.randn(TEXT)), config)
    assert module.image_weight.tolist() == module.prompt_weight.tolist() == [1] * DIM


@pytest.mark.parametrize("head", sorted(name for name, spec in HEADS.items() if spec.uses_text))
def test_head_that_uses_text_is_not_built_without_text(head):
    with pytest.raises(ValueError, match=f"the {head} head needs text"):
        head_spec(head).build(DIM, LABELS, None, HeadConfig(head=head))
