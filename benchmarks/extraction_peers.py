"""Other libraries compared by benchmarks/extraction.py, run by an interpreter that has them.

    PYTHON benchmarks/extraction_peers.py PEER WEIGHTS IMAGES OUT BATCH WORKERS

WEIGHTS is a ViT-B/32 in open_clip's layout, IMAGES a folder whose only folder holds the images.
Writes the normalized embeddings in order of file name to OUT, a .npy file, and prints images per
second, without loading the weights.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "ViT-B-32"


def main() -> None:
    """Run one peer."""
    peer, weights, images, out, batch, workers = sys.argv[1:]
    declare_torchvision()
    embeddings, seconds = PEERS[peer](Path(weights), Path(images), int(batch), int(workers))
    np.save(out, embeddings)
    print(len(embeddings) / seconds)


def declare_torchvision() -> None:
    """Make torchvision importable with a torch without CUDA.

    Its operators, built for CUDA, do not load there, and its import fails when it registers two of
    them. The transforms of Pillow images use neither.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library: Any = torch.library
        library = library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        LIBRARIES.append(library)


LIBRARIES: list[Any] = []
"""Keeps references: operators are unregistered when their library is garbage-collected."""


def clip_retrieval(weights: Path, images: Path, batch: int, workers: int) -> tuple[Any, float]:
    """Run clip-retrieval's reader, mapper and writer in its runner.

    Its logger is left out: it is a second process, which takes seconds to start.
    """
    from tempfile import TemporaryDirectory

    from all_clip import load_clip
    from clip_retrieval.clip_inference.mapper import ClipMapper
    from clip_retrieval.clip_inference.reader import FilesReader
    from clip_retrieval.clip_inference.runner import Runner
    from clip_retrieval.clip_inference.writer import NumpyWriter

    class NoLogger:
        def start(self) -> None: ...
        def __call__(self, stats: object) -> None: ...
        def end(self) -> None: ...

    name = f"open_clip:{MODEL}/{weights}"
    _, preprocess, tokenizer = load_clip(clip_model=name, use_jit=False)
    mapper = ClipMapper(True, False, False, False, name, False, "")
    with TemporaryDirectory() as folder:
        runner = Runner(
            lambda sampler: FilesReader(
                sampler, preprocess, tokenizer, images, batch, workers, enable_text=False
            ),
            lambda: mapper,
            lambda partition: NumpyWriter(partition, folder, False, True, False, 1),
            lambda _: NoLogger(),
            1,
        )
        start = time.perf_counter()
        runner(0)
        seconds = time.perf_counter() - start
        return np.load(Path(folder) / "img_emb" / "img_emb_0.npy"), seconds


def clip_benchmark(weights: Path, images: Path, batch: int, workers: int) -> tuple[Any, float]:
    """Run CLIP_benchmark's loop over images, with AMP.

    It is the loop of zero-shot classification: the loop that extracts features for a linear probe
    does the same work, but needs CUDA. The classifier is the identity, so that the logits are 100
    times the features.
    """
    import torch
    from clip_benchmark.metrics.zeroshot_classification import run_classification
    from clip_benchmark.models import load_clip
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    model, transform, _ = load_clip("open_clip", MODEL, str(weights), "", device="cpu")
    model.eval()
    classifier = torch.eye(model.visual.output_dim)
    start = time.perf_counter()
    loader = DataLoader(
        ImageFolder(images, transform), batch_size=batch, num_workers=workers, shuffle=False
    )
    logits, _ = run_classification(model, classifier, loader, "cpu", amp=True)
    return logits.numpy() / 100, time.perf_counter() - start


PEERS: dict[str, Callable[[Path, Path, int, int], tuple[Any, float]]] = {
    "clip-retrieval": clip_retrieval,
    "CLIP_benchmark": clip_benchmark,
}


if __name__ == "__main__":
    main()
