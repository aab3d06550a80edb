"""Losses: multi-label with unknown targets, and contrastive with texts shared by images."""

import torch
from torch import Tensor, nn


def masked_bce(logits: Tensor, targets: Tensor, *, pos_weight: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy with logits, averaged over the known labels.

    Its probabilities match the frequencies in the training data. Use another loss only if it ranks
    better on validation data.

    Args:
        logits: Shape (B, C).
        targets: Float, shape (B, C): 1, 0, or -1 for unknown, which is ignored.
        pos_weight: Factor on the loss of positives, shape (C,); None for 1.

    Returns:
        A scalar; 0 if all labels are unknown.
    """
    known = targets >= 0
    total = nn.functional.binary_cross_entropy_with_logits(
        # An infinite logit of an unknown label times a weight of 0 would be NaN.
        logits.masked_fill(~known, 0),
        targets,
        weight=known.to(logits.dtype),
        pos_weight=pos_weight,
        reduction="sum",
    )
    return total / known.sum().clamp(min=1)


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
) -> Tensor:
    """Return the asymmetric loss, averaged over the known labels.

    With p the probability, ``-y (1 - p)^g+ log p - (1 - y) q^g- log(1 - q)`` and
    ``q = max(p - margin, 0)`` (Ridnik et al. 2021, "Asymmetric loss for multi-label
    classification"). Easy negatives are downweighted, and those below the margin ignored. It is
    meant to rank rare findings among many images without them; its probabilities are too high, so
    use the calibrated ones.

    Args:
        logits: Shape (B, C).
        targets: Float, shape (B, C): 1, 0, or -1 for unknown, which is ignored.
        gamma_positive: Focusing exponent g+ of positives.
        gamma_negative: Focusing exponent g- of negatives.
        margin: Probability below which a negative is ignored.

    Returns:
        A scalar; 0 if all labels are unknown.
    """
    known = targets >= 0
    # An infinite logit of an unknown label times a weight of 0 would be NaN.
    logits = logits.masked_fill(~known, 0)
    p = torch.sigmoid(logits)
    q = (p - margin).clamp(min=0)
    if_positive = (1 - p).pow(gamma_positive) * nn.functional.logsigmoid(logits)
    # 1 - q is at least the margin, so the logarithm is finite.
    if_negative = q.pow(gamma_negative) * torch.log(1 - q)
    total = -torch.where(targets == 1, if_positive, if_negative)[known].sum()
    return total / known.sum().clamp(min=1)


def log_prior_odds(targets: Tensor) -> Tensor:
    """Return ``log(pi / (1 - pi))`` for the prevalence pi of each label.

    A logit-adjusted loss adds it to the logits in training but not in inference, so that the head
    need not learn how rare a finding is (Menon et al. 2021, "Long-tail learning via logit
    adjustment"). It helps the ranking across labels, as in micro averages and in "the most likely
    finding", if findings differ much in prevalence; within a label it hardly matters. The
    probabilities assume a prevalence of one half: use the calibrated ones.

    Args:
        targets: Shape (N, C): 1, 0, or -1 for unknown.

    Returns:
        Shape (C,); 0 for a label without a positive or without a negative.
    """
    positives = (targets == 1).sum(dim=0)
    negatives = (targets == 0).sum(dim=0)
    odds = torch.log(positives.clamp(min=1)) - torch.log(negatives.clamp(min=1))
    return torch.where((positives > 0) & (negatives > 0), odds, torch.zeros_like(odds))


def balanced_pos_weight(targets: Tensor) -> Tensor:
    """Return the ratio of negatives to positives of each label.

    Args:
        targets: Shape (N, C): 1, 0, or -1 for unknown.

    Returns:
        Shape (C,); 1 for a label without a positive or without a negative.
    """
    positives = (targets == 1).sum(dim=0)
    negatives = (targets == 0).sum(dim=0)
    weight = negatives / positives.clamp(min=1)
    return torch.where((positives > 0) & (negatives > 0), weight, torch.ones_like(weight))


def multi_positive_info_nce(images: Tensor, texts: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    """Return CLIP's symmetric loss where an image and a text may have several true partners.

    With the logits z_iu = scale * cos(image i, text u), T_i the texts that are true of image i, F_i
    those that are false, N_u the images that text u is true of, and M_u those it is false of::

        image to text   mean over i of the mean over u in T_i of
                        -log exp(z_iu) / (exp(z_iu) + sum over v in F_i of exp(z_iv))
        text to image   mean over u of the mean over i in N_u of
                        -log exp(z_iu) / (exp(z_iu) + sum over k in M_u of exp(z_ku))

    Means are over the images with a true text and over the texts true of an image. The loss is the
    mean of both directions; its minimum is 0. Pairs of unknown truth are ignored. If every image
    has a caption of its own, it is CLIP's loss (Radford et al. 2021, "Learning transferable visual
    models from natural language supervision", figure 3). The mean over positives is outside the
    logarithm (Khosla et al. 2020, "Supervised contrastive learning", equation 2, L_out). Unlike
    there, the other positives are not in the denominator (Feeney and Hughes 2023, "SINCERE", arXiv
    2309.14277): there, an image closer to its text than the others would be pushed away from it,
    and in a batch with equally frequent captions the gradients would be those of the plain loss,
    which treats shared captions as negatives.

    Args:
        images: Embeddings, shape (B, D), not necessarily normalized.
        texts: Embeddings of the distinct texts, shape (U, D).
        truth: Shape (B, U): 1 where a text is true of an image, 0 where it is false, -1 for
            unknown.
        scale: Factor exp(log_scale) on the cosine, a single element.

    Returns:
        A scalar in float32, or float64 for embeddings in float64; 0 if no text is true.

    Raises:
        ValueError: ``truth`` has another shape or other values.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = scale * _cosine(images, texts, truth)
        is_true = truth == 1
        negatives = logits.masked_fill(truth != 0, -torch.inf)
        return (
            _mean_of_means(logits, negatives.logsumexp(dim=1, keepdim=True), is_true, dim=1)
            + _mean_of_means(logits, negatives.logsumexp(dim=0, keepdim=True), is_true, dim=0)
        ) / 2


def _mean_of_means(logits: Tensor, negatives: Tensor, is_true: Tensor, *, dim: int) -> Tensor:
    """Average the losses of true pairs over ``dim``, then over the rows that have any."""
    # -log(e^a / (e^a + e^b)) = -log sigmoid(a - b); b is -inf if no text is false.
    pair_loss = -nn.functional.logsigmoid(logits - negatives)
    count = is_true.sum(dim=dim)
    means = torch.where(is_true, pair_loss, 0).sum(dim=dim) / count.clamp(min=1)
    return means.sum() / (count > 0).sum().clamp(min=1)


def pairwise_sigmoid(
    images: Tensor, texts: Tensor, truth: Tensor, scale: Tensor, bias: Tensor
) -> Tensor:
    """Return SigLIP's loss of each image against each distinct text of the batch.

    -1/B times the sum over images i and texts u of log sigmoid(y_iu (scale * cos(i, u) + bias)),
    where y_iu is 1 if text u is true of image i, else -1 (Zhai et al. 2023, "Sigmoid loss for
    language image pre-training", equation 1). Pairs of unknown truth are ignored. Pairs do not
    compete, so images that share a text are all positives, and a text counts once however many
    images have it.

    Args:
        images: Embeddings, shape (B, D), not necessarily normalized.
        texts: Embeddings of the distinct texts, shape (U, D).
        truth: Shape (B, U): 1 where a text is true of an image, 0 where it is false, -1 for
            unknown.
        scale: Factor exp(log_scale) on the cosine, a single element.
        bias: Added to every logit, a single element.

    Returns:
        A scalar in float32, or float64 for embeddings in float64.

    Raises:
        ValueError: ``truth`` has another shape or other values.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = scale * _cosine(images, texts, truth) + bias
        matching = torch.where(truth == 1, logits, -logits)
        pair_loss = torch.where(truth >= 0, -nn.functional.logsigmoid(matching), 0)
        return pair_loss.sum() / len(images)


def _cosine(images: Tensor, texts: Tensor, truth: Tensor) -> Tensor:
    """Return cosines, (B, U), in float32 or wider: times 100, a step of bfloat16 is 0.4."""
    shape = (len(images), len(texts))
    if not all(shape) or truth.shape != shape or ((truth < -1) | (truth > 1)).any():
        raise ValueError(
            "truth must hold 1, 0 and -1 for each image and text, and neither may be empty: "
            f"expected shape {shape}, got {tuple(truth.shape)}"
        )
    wide = torch.promote_types(images.dtype, torch.float32)
    return (
        nn.functional.normalize(images.to(wide), dim=1)
        @ nn.functional.normalize(texts.to(wide), dim=1).T
    )
