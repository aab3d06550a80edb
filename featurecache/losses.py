"""Losses: multi-label with unknown targets, and contrastive with texts true of several images."""

import torch
from torch import Tensor, nn


def masked_bce(logits: Tensor, targets: Tensor, *, positive_weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy with logits, averaged over the labels that are known.

    The loss whose probabilities are those of the training data; take another only where it is seen
    to rank better on validation.

    Args:
        logits: (B, C).
        targets: (B, C) float of 1, 0, or -1 for unknown, which takes no part.
        positive_weight: (C,) factor on the loss of positives; None for 1.

    Returns:
        A scalar; 0 where nothing is known.
    """
    known = targets >= 0
    total = nn.functional.binary_cross_entropy_with_logits(
        # An infinite logit at an unknown label, times a weight of 0, would become NaN.
        logits.masked_fill(~known, 0),
        targets,
        weight=known.to(logits.dtype),
        pos_weight=positive_weight,
        reduction="sum",
    )
    return total / known.sum().clamp(min=1)


def asymmetric(
    logits: Tensor,
    targets: Tensor,
    *,
    positive_focus: float = 0.0,
    negative_focus: float = 4.0,
    margin: float = 0.05,
) -> Tensor:
    """The asymmetric loss, averaged over the labels that are known.

    With p the probability, ``-y (1 - p)^f+ log p - (1 - y) q^f- log(1 - q)`` and
    ``q = max(p - margin, 0)`` (Ridnik et al. 2021, "Asymmetric loss for multi-label
    classification"). Negatives that are easy already count for little, and those below the margin
    for nothing. It is meant for rare findings among many films without them, and ranks those; its
    probabilities come out too high, so read the calibrated ones.

    Args:
        logits: (B, C).
        targets: (B, C) float of 1, 0, or -1 for unknown, which takes no part.
        positive_focus: f+.
        negative_focus: f-.
        margin: probability below which a negative is left alone.

    Returns:
        A scalar; 0 where nothing is known.
    """
    known = targets >= 0
    # An infinite logit at an unknown label, times a weight of 0, would become NaN.
    filled = logits.masked_fill(~known, 0)
    p = torch.sigmoid(filled)
    q = (p - margin).clamp(min=0)
    of_positive = (1 - p).pow(positive_focus) * nn.functional.logsigmoid(filled)
    # 1 - q is margin at the least, so that this logarithm never meets 0.
    of_negative = q.pow(negative_focus) * torch.log(1 - q)
    total = -torch.where(targets == 1, of_positive, of_negative)[known].sum()
    return total / known.sum().clamp(min=1)


def log_prior_odds(targets: Tensor) -> Tensor:
    """``log(pi / (1 - pi))`` of each label's share pi of positives, (N, C) to (C,).

    A logit-adjusted loss adds it to the logits while a head is trained, and not afterwards, so that
    the head need not learn how rare a finding is (Menon et al. 2021, "Long-tail learning via logit
    adjustment"). It helps the ranking across labels, as in micro averages and in "the most likely
    finding", where findings differ much in frequency; within a label it hardly changes anything.
    The probabilities are those of a world in which every finding is as frequent as its absence:
    read the calibrated ones.

    Args:
        targets: 1, 0, or -1 for unknown.

    Returns:
        0 for a label without a positive or without a negative.
    """
    positives = (targets == 1).sum(dim=0)
    negatives = (targets == 0).sum(dim=0)
    odds = torch.log(positives.clamp(min=1)) - torch.log(negatives.clamp(min=1))
    return torch.where((positives > 0) & (negatives > 0), odds, torch.zeros_like(odds))


def balanced_positive_weight(targets: Tensor) -> Tensor:
    """Negatives over positives of each label, (N, C) of 1, 0, -1 to (C,); 1 without positives."""
    positives = (targets == 1).sum(dim=0)
    negatives = (targets == 0).sum(dim=0)
    weight = negatives / positives.clamp(min=1)
    return torch.where((positives > 0) & (negatives > 0), weight, torch.ones_like(weight))


def multi_positive_info_nce(images: Tensor, texts: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss for texts that are true of several images, and images of several texts.

    With the logits z_iu = scale * cos(image i, text u), T_i the texts that are true of image i, F_i
    those that are false, and N_u the images that text u is true of, M_u those that it is false of::

        image to text   mean over i of the mean over u in T_i of
                        -log exp(z_iu) / (exp(z_iu) + sum over v in F_i of exp(z_iv))
        text to image   mean over u of the mean over i in N_u of
                        -log exp(z_iu) / (exp(z_iu) + sum over k in M_u of exp(z_ku))

    Means are over the images with a true text and over the texts true of an image. The loss is half
    of each, summed; its least value is 0. A pair of unknown truth takes no part. Where every image
    has a caption of its own it is CLIP's loss (Radford et al. 2021, "Learning transferable visual
    models from natural language supervision", figure 3). The mean over positives stands outside
    the logarithm (Khosla et al. 2020, "Supervised contrastive learning", equation 2, L_out). Unlike
    there, the other positives stay out of the denominator (Feeney and Hughes 2023, "SINCERE",
    arXiv 2309.14277): inside it, an image closer to its text than the others would be pushed away
    from it, and in a batch with equally frequent captions the gradients would be those of the plain
    loss, which takes shared captions for negatives.

    Args:
        images: (B, D) embeddings of any length and float type.
        texts: (U, D) embeddings, one for each different text.
        truth: (B, U) of 1 where a text is true of an image, 0 where it is false, -1 where nobody
            knows.
        scale: the factor exp(log_scale) on the cosine, a single number.

    Returns:
        A scalar in float32, or in float64 where the embeddings are; 0 where nothing is true.

    Raises:
        ValueError: ``truth`` has another shape or other values.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = scale * _cosine(images, texts, truth)
        true = truth == 1
        false = logits.masked_fill(truth != 0, -torch.inf)
        return (
            _mean_of_means(logits, false.logsumexp(dim=1, keepdim=True), true, dim=1)
            + _mean_of_means(logits, false.logsumexp(dim=0, keepdim=True), true, dim=0)
        ) / 2


def _mean_of_means(logits: Tensor, negatives: Tensor, true: Tensor, *, dim: int) -> Tensor:
    """The mean over ``dim`` of the true pairs' losses, then that over the rows that have any."""
    # -log(e^a / (e^a + e^b)) = -log sigmoid(a - b); b is -inf where nothing is false.
    of_pair = -nn.functional.logsigmoid(logits - negatives)
    count = true.sum(dim=dim)
    means = torch.where(true, of_pair, 0).sum(dim=dim) / count.clamp(min=1)
    return means.sum() / (count > 0).sum().clamp(min=1)


def pairwise_sigmoid(
    images: Tensor, texts: Tensor, truth: Tensor, scale: Tensor, bias: Tensor
) -> Tensor:
    """SigLIP's loss, each image against each different text of the batch.

    -1/B times the sum over images i and texts u of log sigmoid(y_iu (scale * cos(i, u) + bias)),
    where y_iu is 1 if text u is true of image i, else -1 (Zhai et al. 2023, "Sigmoid loss for
    language image pre-training", equation 1). A pair of unknown truth takes no part. Pairs do not
    compete, so images that share a text are positives as they stand, and a text counts once however
    many images have it.

    Args:
        images: (B, D) embeddings of any length and float type.
        texts: (U, D) embeddings, one for each different text.
        truth: (B, U) of 1 where a text is true of an image, 0 where it is false, -1 where nobody
            knows.
        scale: the factor exp(log_scale) on the cosine, a single number.
        bias: added to every logit, a single number.

    Returns:
        A scalar in float32, or in float64 where the embeddings are.

    Raises:
        ValueError: ``truth`` has another shape or other values.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = scale * _cosine(images, texts, truth) + bias
        matching = torch.where(truth == 1, logits, -logits)
        of_pair = torch.where(truth >= 0, -nn.functional.logsigmoid(matching), 0)
        return of_pair.sum() / len(images)


def _cosine(images: Tensor, texts: Tensor, truth: Tensor) -> Tensor:
    """Cosines (B, U) in float32 or wider: a scale of 100 would turn bfloat16's steps into 0.4."""
    shape = (len(images), len(texts))
    if not all(shape) or truth.shape != shape or ((truth < -1) | (truth > 1)).any():
        raise ValueError(
            f"truth must be (images, texts) of 1, 0 and -1, and neither empty; there are {shape}, "
            f"and it is {tuple(truth.shape)}"
        )
    wide = torch.promote_types(images.dtype, torch.float32)
    return (
        nn.functional.normalize(images.to(wide), dim=1)
        @ nn.functional.normalize(texts.to(wide), dim=1).T
    )
