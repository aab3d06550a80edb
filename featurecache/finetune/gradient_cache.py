"""Gradients of a loss over a large batch, in the memory of a small one.

A contrastive loss compares every image of the batch with every text, so it cannot be summed over
parts of the batch as a classification loss can. Gao et al. 2021, "Scaling deep contrastive learning
batch size under memory limited setup" (GradCache, arXiv 2101.06983), embed the parts twice: first
without keeping activations, which gives the loss and its gradient with respect to each embedding;
then part by part, each with its activations and passing on the gradient of its own embeddings. By
the chain rule this is exact.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

Chunk = Callable[[], Tensor]
"""Embeds one part of a batch: () to (b, D)."""


def backward_in_chunks(
    loss: Callable[..., Tensor], *encoders: Sequence[Chunk], seed: int | tuple[int, ...]
) -> Tensor:
    """Add to every parameter's gradient that of a loss over embeddings made in chunks.

    They are the gradients of ``loss(*embeddings).backward()`` over the whole batch: of the encoders
    and of whatever else the loss reaches, such as a temperature. Only one chunk's activations are
    held at a time. For images in chunks and a few captions in one::

        images = [partial(embed_images, part) for part in pixels.split(32)]
        texts = [partial(embed_texts, captions)]
        value = backward_in_chunks(loss, images, texts, seed=(seed, step))

    An encoder with a single chunk is embedded once, and keeps its activations until the loss has
    been passed back: where every encoder has one chunk, this is the plain backward pass.

    Each chunk is embedded with torch random numbers of its own, decided by ``seed``, its encoder
    and its place, so that dropout is the same in both passes; the loss has its own too. The
    caller's generators, of the CPU and of CUDA, are left as they were. What else is random must be
    drawn beforehand, for a chunk has to give the same embeddings twice. Nor may an image's
    embedding depend on the rest of the batch, as it does through batch norm in training mode.

    Autocast may be used inside the chunks or around the call. A factor for gradient accumulation
    or loss scaling belongs inside ``loss``.

    Args:
        loss: takes one (B, D) tensor from each encoder, in their order; gives a scalar.
        encoders: for each encoder its chunks, in the order of the batch.
        seed: decides the random numbers; non-negative.

    Returns:
        The loss, detached.

    Raises:
        ValueError: an encoder has no chunks.
    """
    if not all(encoders):
        raise ValueError("an encoder has no chunks: give each encoder at least one")
    seeded = [
        [
            partial(_with_draws, chunk, np.random.SeedSequence(seed, spawn_key=(encoder, place)))
            for place, chunk in enumerate(chunks)
        ]
        for encoder, chunks in enumerate(encoders)
    ]
    embedded = [
        [chunks[0]()] if len(chunks) == 1 else [_without_activations(chunk) for chunk in chunks]
        for chunks in seeded
    ]
    whole = [torch.cat(parts) for parts in embedded]
    value = _with_draws(
        partial(loss, *whole), np.random.SeedSequence(seed, spawn_key=(len(encoders),))
    )
    value.backward()  # type: ignore[no-untyped-call]
    for chunks, parts in zip(seeded, embedded, strict=True):
        if len(chunks) == 1:
            continue
        for chunk, part in zip(chunks, parts, strict=True):
            embedding = chunk()
            # As in the plain pass, an encoder may be frozen, or left out by the loss.
            if embedding.requires_grad and part.grad is not None:
                embedding.backward(part.grad)  # type: ignore[no-untyped-call]
    return value.detach()


def _with_draws(call: Callable[[], Tensor], n_bootstrap: np.random.SeedSequence) -> Tensor:
    """What a call gives when its torch random numbers start from ``n_bootstrap``."""
    # CUDA's generators are asked for only where something may have drawn from them: asking would
    # start CUDA.
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if started else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(n_bootstrap.generate_state(1, np.uint64)[0]))
        return call()


def _without_activations(chunk: Chunk) -> Tensor:
    """A chunk's embeddings as a leaf that collects their gradient."""
    with torch.no_grad():
        embedding = chunk()
    # Autocast in older torch keeps the weights that it cast here, without their gradients, and
    # would use them again in the second pass (pytorch issue 112583).
    torch.clear_autocast_cache()
    return embedding.detach().requires_grad_()
