"""Gradients of a loss over a large batch, in the memory of a small one.

A contrastive loss compares every image of the batch with every text, so it cannot be summed over
chunks of the batch as a classification loss can. Gao et al. 2021, "Scaling deep contrastive
learning batch size under memory limited setup" (GradCache, arXiv 2101.06983), embed the chunks
twice: first without keeping activations, which gives the loss and its gradient with respect to each
embedding; then chunk by chunk, each with its activations, passing on the gradient of its own
embeddings. By the chain rule this is exact.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

Chunk = Callable[[], Tensor]
"""Embeds one chunk of a batch: () to (b, D)."""


def backward_in_chunks(
    loss: Callable[..., Tensor], *encoders: Sequence[Chunk], seed: int | tuple[int, ...]
) -> Tensor:
    """Accumulate the gradients of a loss over embeddings that are computed in chunks.

    The gradients equal those of ``loss(*embeddings).backward()`` over the whole batch: for the
    encoders and for everything else that the loss depends on, such as a temperature. Only one
    chunk's activations are held at a time. For images in chunks and a few captions in one::

        images = [partial(embed_images, chunk) for chunk in pixels.split(32)]
        texts = [partial(embed_texts, captions)]
        value = backward_in_chunks(loss, images, texts, seed=(seed, step))

    An encoder with a single chunk is run once and keeps its activations until the backward pass: if
    every encoder has one chunk, this is the plain backward pass.

    Each chunk has torch random numbers of its own, which depend on ``seed``, the encoder and the
    position of the chunk, so that dropout is the same in both passes; so has the loss. The caller's
    generators, of the CPU and of CUDA, are not changed. Anything else that is random must be drawn
    beforehand, because a chunk has to give the same embeddings twice. An image's embedding must not
    depend on the rest of the batch, as it does with batch norm in training mode.

    Autocast may be used inside the chunks or around the call. A factor for gradient accumulation
    or loss scaling belongs inside ``loss``.

    Args:
        loss: Takes one (B, D) tensor for each encoder, in their order, and returns a scalar.
        encoders: The chunks of each encoder, in the order of the batch.
        seed: Non-negative seed of the random numbers.

    Returns:
        The loss, detached.

    Raises:
        ValueError: An encoder has no chunks.
    """
    if not all(encoders):
        raise ValueError("an encoder has no chunks: give each encoder at least one")
    seeded = [
        [
            partial(_with_seed, chunk, np.random.SeedSequence(seed, spawn_key=(encoder, position)))
            for position, chunk in enumerate(chunks)
        ]
        for encoder, chunks in enumerate(encoders)
    ]
    embedded = [
        [chunks[0]()] if len(chunks) == 1 else [_without_activations(chunk) for chunk in chunks]
        for chunks in seeded
    ]
    whole = [torch.cat(embeddings) for embeddings in embedded]
    value = _with_seed(
        partial(loss, *whole), np.random.SeedSequence(seed, spawn_key=(len(encoders),))
    )
    value.backward()  # type: ignore[no-untyped-call]
    for chunks, leaves in zip(seeded, embedded, strict=True):
        if len(chunks) == 1:
            continue
        for chunk, leaf in zip(chunks, leaves, strict=True):
            embedding = chunk()
            # An encoder may be frozen, or not be used by the loss, as in the plain pass.
            if embedding.requires_grad and leaf.grad is not None:
                embedding.backward(leaf.grad)  # type: ignore[no-untyped-call]
    return value.detach()


def _with_seed(call: Callable[[], Tensor], seed: np.random.SeedSequence) -> Tensor:
    """Return the result of a call whose torch random numbers start from a seed."""
    # CUDA's generators are saved only if CUDA is in use: saving them would initialize it.
    uses_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if uses_cuda else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
        return call()


def _without_activations(chunk: Chunk) -> Tensor:
    """Return a chunk's embeddings as a leaf tensor that collects their gradient."""
    with torch.no_grad():
        embedding = chunk()
    # Autocast in older torch caches the weights that it cast here, without their gradients, and
    # would reuse them in the second pass (pytorch issue 112583).
    torch.clear_autocast_cache()
    return embedding.detach().requires_grad_()
