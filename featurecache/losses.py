"""Losses: multi-label with unknown targets, and contrastive with captions that images share."""

import torch
from torch import Tensor, nn


def masked_bce(logits: Tensor, targets: Tensor, *, positive_weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy with logits, averaged over the labels that are known.

    Args:
        logits: (B, C).
        targets: (B, C) float of 1, 0, or -1 for unknown, which takes no part.
        positive_weight: (C,) factor on the loss of positives; None for 1.

    Returns:
        A scalar; 0 where nothing is known.
    """
    known = targets >= 0
    weight = None if positive_weight is None else positive_weight.expand_as(targets)[known]
    # Selected, not multiplied by 0: an infinite logit at an unknown label would become NaN.
    total = nn.functional.binary_cross_entropy_with_logits(
        logits[known], targets[known], pos_weight=weight, reduction="sum"
    )
    return total / known.sum().clamp(min=1)


def balanced_positive_weight(targets: Tensor) -> Tensor:
    """Negatives over positives of each label, (N, C) of 1, 0, -1 to (C,); 1 without positives."""
    positives = (targets == 1).sum(dim=0)
    negatives = (targets == 0).sum(dim=0)
    weight = negatives / positives.clamp(min=1)
    return torch.where((positives > 0) & (negatives > 0), weight, torch.ones_like(weight))


def multi_positive_info_nce(
    images: Tensor, texts: Tensor, caption: Tensor, scale: Tensor
) -> Tensor:
    """CLIP's symmetric loss for images that share captions: they are positives, never negatives.

    With the logits z_iu = scale * cos(image i, text u), c(i) the caption of image i, and N_u the
    images of caption u::

        image to text   mean over i of  -log exp(z_ic(i)) / sum over v of exp(z_iv)
        text to image   mean over u of the mean over i in N_u of
                        -log exp(z_iu) / (exp(z_iu) + sum over k not in N_u of exp(z_ku))

    The loss is half of each, summed; its least value is 0. Where every image has its own caption
    it is CLIP's loss (Radford et al. 2021, "Learning transferable visual models from natural
    language supervision", figure 3). The mean over a caption's images stands outside the logarithm
    (Khosla et al. 2020, "Supervised contrastive learning", equation 2, L_out). Unlike there, the
    caption's other images stay out of the denominator (Feeney and Hughes 2023, "SINCERE",
    arXiv 2309.14277): inside it, an image closer to its text than the others would be pushed away
    from it, and in a batch with equally frequent captions the gradients would be those of the plain
    loss, which takes shared captions for negatives.

    Args:
        images: (B, D) embeddings of any length and float type.
        texts: (U, D) embeddings, one for each different caption. Those without an image in the
            batch are negatives of every image.
        caption: (B,) int64, the row of ``texts`` that describes each image.
        scale: the factor exp(log_scale) on the cosine, a single number.

    Returns:
        A scalar in float32, or in float64 where the embeddings are.

    Raises:
        ValueError: ``caption`` does not name one text for each image.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = scale * _cosine(images, texts, caption)
        own = logits.gather(1, caption[:, None]).squeeze(1)
        image_to_text = nn.functional.cross_entropy(logits, caption)

        is_own = nn.functional.one_hot(caption, len(texts)).bool()
        negatives = logits.masked_fill(is_own, -torch.inf).logsumexp(dim=0)
        # -log(e^a / (e^a + e^b)) = -log sigmoid(a - b); b is -inf for a text without negatives.
        of_image = -nn.functional.logsigmoid(own - negatives[caption])
        images_of = is_own.sum(dim=0)
        text_to_image = (of_image / images_of[caption]).sum() / (images_of > 0).sum()
        return (image_to_text + text_to_image) / 2


def pairwise_sigmoid(
    images: Tensor, texts: Tensor, caption: Tensor, scale: Tensor, bias: Tensor
) -> Tensor:
    """SigLIP's loss, each image against each different caption of the batch.

    -1/B times the sum over images i and texts u of log sigmoid(y_iu (scale * cos(i, u) + bias)),
    where y_iu is 1 if u is the caption of image i, else -1 (Zhai et al. 2023, "Sigmoid loss for
    language image pre-training", equation 1). Pairs do not compete, so images that share a caption
    are positives as they stand, and a caption's text counts once however many images have it.

    Args:
        images: (B, D) embeddings of any length and float type.
        texts: (U, D) embeddings, one for each different caption.
        caption: (B,) int64, the row of ``texts`` that describes each image.
        scale: the factor exp(log_scale) on the cosine, a single number.
        bias: added to every logit, a single number.

    Returns:
        A scalar in float32, or in float64 where the embeddings are.

    Raises:
        ValueError: ``caption`` does not name one text for each image.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = scale * _cosine(images, texts, caption) + bias
        is_own = nn.functional.one_hot(caption, len(texts)).bool()
        matching = torch.where(is_own, logits, -logits)
        return -nn.functional.logsigmoid(matching).sum() / len(images)


def _cosine(images: Tensor, texts: Tensor, caption: Tensor) -> Tensor:
    """Cosines (B, U) in float32 or wider: a scale of 100 would turn bfloat16's steps into 0.4."""
    count = len(texts)
    if caption.dtype != torch.int64 or caption.shape != images.shape[:1] or not len(images):
        raise ValueError(
            f"caption must be one int64 for each of {len(images)} images, at least one; it is "
            f"{caption.dtype} {tuple(caption.shape)}"
        )
    if caption.min() < 0 or caption.max() >= count:
        raise ValueError(f"caption must lie in 0 to {count - 1}: there are {count} texts")
    wide = torch.promote_types(images.dtype, torch.float32)
    return (
        nn.functional.normalize(images.to(wide), dim=1)
        @ nn.functional.normalize(texts.to(wide), dim=1).T
    )
