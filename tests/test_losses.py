"""The losses against their formulas, computed with plain loops in double precision."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from featurecache.losses import (
    asymmetric_loss,
    balanced_pos_weight,
    log_prior_odds,
    masked_bce,
    multi_positive_info_nce,
    pairwise_sigmoid,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bce_reference(logits, targets, weight):
    """-mean over known of w y log p + (1 - y) log(1 - p), with log p = -log(1 + exp(-z))."""
    known = targets >= 0
    losses = np.where(targets == 1, weight * np.logaddexp(0, -logits), np.logaddexp(0, logits))
    return losses[known].sum() / max(1, known.sum())


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 6), labels=st.integers(1, 4))
def test_masked_bce_is_the_mean_over_known_labels(seed, rows, labels):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=20, size=(rows, labels))
    targets = rng.choice([1.0, 0.0, -1.0], size=(rows, labels))
    weight = rng.uniform(0.1, 50, labels)
    arguments = torch.tensor(logits), torch.tensor(targets)
    assert masked_bce(*arguments).item() == pytest.approx(
        bce_reference(logits, targets, 1.0), rel=1e-12
    )
    weighted = masked_bce(*arguments, pos_weight=torch.tensor(weight)).item()
    assert weighted == pytest.approx(bce_reference(logits, targets, weight), rel=1e-12)


def test_gradient_of_masked_bce_is_probability_minus_label():
    logits = torch.tensor([[0.3, -2.0], [1.5, 4.0]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    masked_bce(logits, targets, pos_weight=torch.tensor([1.0, 3.0]).double()).backward()
    p = 1 / (1 + np.exp(-logits.detach().numpy()))
    expected = [[(p[0, 0] - 1) / 3, p[0, 1] / 3], [0, 3 * (p[1, 1] - 1) / 3]]
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("logit", [torch.inf, -torch.inf, torch.nan, 1e38])
@pytest.mark.parametrize("weight", [None, torch.tensor([2.0, 5.0])])
def test_masked_bce_ignores_unknown_labels_with_any_logit(logit, weight):
    logits = torch.tensor([[logit, 0.7]], requires_grad=True)
    loss = masked_bce(logits, torch.tensor([[-1.0, 0.0]]), pos_weight=weight)
    loss.backward()
    assert loss.item() == pytest.approx(np.log1p(np.exp(0.7)))
    assert logits.grad[0, 0].item() == 0
    assert logits.grad[0, 1].item() == pytest.approx(1 / (1 + np.exp(-0.7)))


def test_masked_bce_and_its_gradient_are_zero_without_known_labels():
    logits = torch.tensor([[1.0, torch.inf]], requires_grad=True)
    loss = masked_bce(logits, torch.full((1, 2), -1.0), pos_weight=torch.ones(2))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [[0, 0]]


def asymmetric_reference(logits, targets, gamma_positive, gamma_negative, margin):
    total, known = 0.0, 0
    for z, y in zip(logits.ravel(), targets.ravel(), strict=True):
        if y < 0:
            continue
        p = 1 / (1 + math.exp(-z))
        q = max(p - margin, 0)
        known += 1
        if y == 1:
            total -= (1 - p) ** gamma_positive * math.log(p)
        else:
            total -= q**gamma_negative * math.log(1 - q)
    return total / max(1, known)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    gamma_positive=st.sampled_from([0.0, 1.0, 2.0]),
    gamma_negative=st.sampled_from([0.0, 1.0, 4.0]),
    margin=st.sampled_from([0.0, 0.05, 0.2]),
)
def test_asymmetric_loss_equals_its_formula(seed, gamma_positive, gamma_negative, margin):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=4, size=(5, 3))
    targets = rng.choice([1.0, 0.0, -1.0], size=(5, 3))
    loss = asymmetric_loss(
        torch.tensor(logits),
        torch.tensor(targets),
        gamma_positive=gamma_positive,
        gamma_negative=gamma_negative,
        margin=margin,
    ).item()
    expected = asymmetric_reference(logits, targets, gamma_positive, gamma_negative, margin)
    assert loss == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_asymmetric_loss_without_focus_and_margin_is_cross_entropy():
    logits, targets = torch.randn(6, 2).double(), torch.tensor([[1.0, 0], [0, -1]]).repeat(3, 1)
    targets = targets.double()
    plain = asymmetric_loss(logits, targets, gamma_positive=0, gamma_negative=0, margin=0)
    assert plain.item() == pytest.approx(masked_bce(logits, targets).item(), rel=1e-12)


def test_asymmetric_loss_and_its_gradient_are_finite_for_any_logit():
    logits = torch.tensor([[80.0, -80.0, math.inf], [-80.0, 80.0, math.nan]], requires_grad=True)
    targets = torch.tensor([[1.0, 0, -1], [1.0, 0, -1]])
    loss = asymmetric_loss(logits, targets)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad[:, :2].isfinite().all()
    assert (logits.grad[:, 2] == 0).all()


def test_log_prior_odds_use_known_labels_only():
    targets = torch.tensor([[1.0, 0, 1, -1], [0, 0, 1, -1], [0, -1, -1, -1], [0, 1, 1, -1]])
    expected = [math.log(1 / 3), math.log(1 / 2), 0.0, 0.0]
    assert log_prior_odds(targets).tolist() == pytest.approx(expected)


def test_balanced_pos_weight_is_negatives_over_positives():
    targets = torch.tensor(
        [
            [1.0, 1.0, 0.0, 1.0, -1.0],
            [0.0, 1.0, 0.0, 1.0, -1.0],
            [0.0, 0.0, 0.0, 1.0, -1.0],
            [0.0, -1.0, -1.0, -1.0, -1.0],
        ]
    )
    # Without positives, negatives or either there is nothing to balance.
    assert balanced_pos_weight(targets).tolist() == [3, 0.5, 1, 1, 1]


def cosines_reference(images, texts):
    return [
        [sum(x * t) / math.sqrt(sum(x * x)) / math.sqrt(sum(t * t)) for t in texts] for x in images
    ]


def mean_of_means(losses):
    """Average each list that is not empty, then the averages; 0 if all lists are empty."""
    means = [sum(row) / len(row) for row in losses if row]
    return sum(means) / len(means) if means else 0.0


def info_nce_reference(images, texts, truth, scale):
    z = np.array([[scale * cos for cos in row] for row in cosines_reference(images, texts)])

    def one_way(z, truth):
        return mean_of_means(
            [
                [
                    -math.log(
                        math.exp(row[u])
                        / (
                            math.exp(row[u])
                            + sum(math.exp(x) for x, y in zip(row, ys, strict=True) if y == 0)
                        )
                    )
                    for u in range(len(row))
                    if ys[u] == 1
                ]
                for row, ys in zip(z, truth, strict=True)
            ]
        )

    truth = np.asarray(truth)
    return 0.5 * one_way(z, truth) + 0.5 * one_way(z.T, truth.T)


def sigmoid_reference(images, texts, truth, scale, bias):
    total = 0.0
    for i, row in enumerate(cosines_reference(images, texts)):
        for u, cos in enumerate(row):
            if truth[i][u] >= 0:
                y = 1 if truth[i][u] == 1 else -1
                total += math.log(1 / (1 + math.exp(-y * (scale * cos + bias))))
    return -total / len(images)


def one_caption_each(caption, texts):
    """Return the truth, (B, U), of images with one caption each."""
    return functional.one_hot(torch.as_tensor(caption), texts).to(torch.int8)


def plain_info_nce(images, texts, truth, scale):
    """CLIP's loss: each image has its own copy of its text, and all other copies are negatives."""
    caption = truth.argmax(dim=1)
    logits = scale * functional.normalize(images) @ functional.normalize(texts)[caption].T
    pairs = torch.arange(len(images))
    there, back = (functional.cross_entropy(z, pairs) for z in (logits, logits.T))
    return (there + back) / 2


def sigmoid_at_bias(bias):
    def loss(images, texts, truth, scale):
        return pairwise_sigmoid(images, texts, truth, scale, torch.tensor(bias))

    return loss


def contrastive_batch(seed, *, images=5, texts=3, dim=4):
    rng = np.random.default_rng(seed)
    truth = rng.choice([1, 0, -1], (images, texts), p=[0.4, 0.5, 0.1]).astype(np.int8)
    return rng.normal(size=(images, dim)), rng.normal(size=(texts, dim)), truth


def images_at(cosines):
    """Return unit images with the given cosines to the texts e_1 ... e_U, and these texts."""
    rest = (1 - (cosines**2).sum(dim=1, keepdim=True)).sqrt()
    texts = torch.eye(cosines.shape[1], cosines.shape[1] + 1, dtype=cosines.dtype)
    return torch.cat([cosines, rest], dim=1), texts


def gradient_of_cosines(loss, cosines, truth, scale):
    """Return the gradient of the loss with respect to each cosine of image and text, (B, U)."""
    cosines = torch.tensor(cosines, dtype=torch.float64, requires_grad=True)
    images, texts = images_at(cosines)
    value = loss(images, texts, torch.as_tensor(truth), torch.tensor(scale))
    return torch.autograd.grad(value, cosines)[0].numpy()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 7),
    texts=st.integers(1, 5),
    dim=st.integers(1, 6),
    scale=st.floats(0.5, 30),
    bias=st.floats(-15, 5),
)
def test_contrastive_losses_equal_their_formulas(seed, images, texts, dim, scale, bias):
    x, t, truth = contrastive_batch(seed, images=images, texts=texts, dim=dim)
    arguments = torch.tensor(x), torch.tensor(t), torch.tensor(truth)
    scale_, bias_ = (torch.tensor([value], dtype=torch.float64) for value in (scale, bias))
    # The formulas in plain exponentials lose precision near 0, hence the absolute tolerance.
    info_nce = multi_positive_info_nce(*arguments, scale_).item()
    expected = info_nce_reference(x, t, truth, scale)
    assert info_nce == pytest.approx(expected, rel=1e-9, abs=1e-12)
    sigmoid = pairwise_sigmoid(*arguments, scale_, bias_).item()
    expected = sigmoid_reference(x, t, truth, scale, bias)
    assert sigmoid == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("caption", [[0, 1, 0, 2, 0], [3, 3, 3, 3, 3], [4, 3, 2, 1, 0], None])
def test_contrastive_gradients_equal_finite_differences(caption):
    x, t, several = contrastive_batch(7, texts=5)
    truth = torch.tensor(several) if caption is None else one_caption_each(caption, 5)
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x, t, 6.0, -2.0)]

    def info_nce(x, t, scale):
        return multi_positive_info_nce(x, t, truth, scale)

    def sigmoid(x, t, scale, bias):
        return pairwise_sigmoid(x, t, truth, scale, bias)

    for loss, reference, n in ((info_nce, info_nce_reference, 3), (sigmoid, sigmoid_reference, 4)):
        assert torch.autograd.gradcheck(loss, values[:n])
        gradients = torch.autograd.grad(loss(*values[:n]), values[:n])

        def at(arguments, reference=reference):
            return reference(*arguments[:2], truth.numpy(), *(float(v) for v in arguments[2:]))

        points = [value.detach().numpy() for value in values[:n]]
        for argument, gradient in enumerate(gradients):
            for place in np.ndindex(points[argument].shape):
                step = np.zeros_like(points[argument])
                step[place] = 1e-5
                ahead, behind = list(points), list(points)
                ahead[argument] = points[argument] + step
                behind[argument] = points[argument] - step
                slope = (at(ahead) - at(behind)) / 2e-5
                assert gradient.numpy()[place] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_info_nce_with_distinct_captions_is_the_loss_of_clip():
    x, t, _ = contrastive_batch(3, images=6, texts=6)
    pairs = one_caption_each([2, 0, 1, 5, 4, 3], 6)
    arguments = torch.tensor(x), torch.tensor(t), pairs
    scale = torch.tensor(9.0).double()
    loss = multi_positive_info_nce(*arguments, scale).item()
    assert loss == pytest.approx(plain_info_nce(*arguments, scale).item(), rel=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 8),
    texts=st.integers(1, 4),
    scale=st.floats(0.5, 100),
)
def test_gradients_attract_true_pairs_and_repel_false_ones(seed, images, texts, scale):
    rng = np.random.default_rng(seed)
    cosines = rng.uniform(-0.45, 0.45, (images, texts))
    truth = rng.choice([1, 0, -1], (images, texts)).astype(np.int8)
    for loss in (multi_positive_info_nce, sigmoid_at_bias(-3.0)):
        gradient = gradient_of_cosines(loss, cosines, truth, scale=scale)
        assert (gradient[truth == 1] <= 1e-12).all()
        assert (gradient[truth == 0] >= -1e-12).all()
        assert (abs(gradient[truth == -1]) <= 1e-12).all()


def test_plain_loss_repels_an_image_from_a_shared_caption_and_ours_does_not():
    # Three images share caption 0; the first is closest to its text and far from the fourth.
    cosines = [[0.6, 0.0], [0.2, 0.0], [0.2, 0.0], [-0.6, 0.6]]
    truth = one_caption_each([0, 0, 0, 1], 2)
    ours = gradient_of_cosines(multi_positive_info_nce, cosines, truth, scale=10.0)
    plain = gradient_of_cosines(plain_info_nce, cosines, truth, scale=10.0)
    assert ours[0, 0] < 0
    assert plain[0, 0] > 1


def test_gradient_is_independent_of_other_images_of_the_same_caption():
    cosines = np.array([[0.6, 0.0], [0.2, 0.1], [0.2, 0.3], [-0.6, 0.6]])
    truth = one_caption_each([0, 0, 0, 1], 2)
    elsewhere = cosines.copy()
    elsewhere[1:3] = [[-0.7, 0.5], [0.9, -0.3]]
    for loss in (multi_positive_info_nce, sigmoid_at_bias(-3.0)):
        before, after = (
            gradient_of_cosines(loss, c, truth, scale=5.0) for c in (cosines, elsewhere)
        )
        assert after[0, 0] == pytest.approx(before[0, 0], rel=1e-12)
    before, after = (
        gradient_of_cosines(plain_info_nce, c, truth, scale=5.0) for c in (cosines, elsewhere)
    )
    assert abs(after[0, 0] - before[0, 0]) > 0.1


def test_info_nce_is_zero_for_perfect_embeddings_with_shared_captions():
    texts = torch.eye(3)
    caption = torch.tensor([0, 0, 0, 1, 2, 2])
    arguments = texts[caption], texts, one_caption_each(caption, 3)
    scale = torch.tensor(50.0)
    assert multi_positive_info_nce(*arguments, scale).item() == pytest.approx(0, abs=1e-6)
    # The plain loss of shared captions is positive even for perfect embeddings.
    minimum = (3 * math.log(3) + 2 * math.log(2)) / 6
    assert plain_info_nce(*arguments, scale).item() == pytest.approx(minimum, abs=1e-6)


def test_info_nce_is_zero_for_a_single_caption():
    images = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    texts = torch.ones(1, 3)
    loss = multi_positive_info_nce(images, texts, torch.ones(4, 1), torch.tensor(10.0))
    loss.backward()
    assert loss.item() == 0
    assert images.grad.tolist() == [[0.0] * 3] * 4


@pytest.mark.parametrize("loss", [multi_positive_info_nce, sigmoid_at_bias(-10.0)])
def test_cosines_of_bf16_embeddings_are_computed_in_fp32(loss):
    x, t, truth = (torch.tensor(v) for v in contrastive_batch(5, images=8, texts=4, dim=64))
    x, t = x.bfloat16(), t.bfloat16()
    scale = torch.tensor(100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(x, t, truth, scale)
    assert value.dtype == torch.float32
    expected = loss(x.double(), t.double(), truth, scale.double()).item()
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_info_nce_is_zero_without_true_pairs():
    images = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    truth = torch.tensor([[0, -1]]).expand(4, 2)
    loss = multi_positive_info_nce(images, torch.eye(2, 3), truth, torch.tensor(10.0))
    loss.backward()
    assert loss.item() == 0
    assert images.grad.tolist() == [[0.0] * 3] * 4


@pytest.mark.parametrize("loss", [multi_positive_info_nce, sigmoid_at_bias(0.0)])
@pytest.mark.parametrize(
    "truth",
    [
        torch.ones(3),
        torch.ones(2, 3),
        torch.ones(3, 4),
        torch.full((3, 3), 2),
        -2 * torch.ones(3, 3),
    ],
)
def test_truth_of_wrong_shape_or_values_is_refused(loss, truth):
    with pytest.raises(ValueError, match="1, 0 and -1"):
        loss(torch.ones(3, 2), torch.ones(3, 2), truth, torch.tensor(1.0))


@pytest.mark.parametrize(("images", "texts"), [(0, 3), (3, 0)])
def test_empty_batch_is_refused(images, texts):
    with pytest.raises(ValueError, match="neither may be empty"):
        multi_positive_info_nce(
            torch.ones(images, 2),
            torch.ones(texts, 2),
            torch.ones(images, texts),
            torch.tensor(1.0),
        )
