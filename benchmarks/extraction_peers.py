"""The peers of benchmarks/extraction.py, each in its own code; run by an interpreter that has them.

    PYTHON benchmarks/extraction_peers.py PEER WEIGHTS FILMS OUT BATCH WORKERS

WEIGHTS is a ViT-B/32 in open_clip's layout, FILMS a folder whose one folder holds the films. Writes
their normalised embeddings, in order of file name, to OUT, a .npy file, and prints images a second,
the loading of the weights not counted.
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
    peer, weights, films, out, batch, workers = sys.argv[1:]
    declare_torchvision()
    found, seconds = PEERS[peer](Path(weights), Path(films), int(batch), int(workers))
    np.save(out, found)
    print(len(found) / seconds)


def declare_torchvision() -> None:
    """Let torchvision be imported beside a torch without CUDA.

    Its operators, built for CUDA, do not load there, and its import stops at two that it wants to
    describe. The transforms of Pillow images use none.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library: Any = torch.library
        library = library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT.append(library)


KEPT: list[Any] = []
"""Operators are undone when their library is forgotten."""


def clip_retrieval(weights: Path, films: Path, batch: int, workers: int) -> tuple[Any, float]:
    """clip-retrieval's reader, mapper and writer in its runner.

    Without its logger, a second process whose start alone would take seconds of so short a run.
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
                sampler, preprocess, tokenizer, films, batch, workers, enable_text=False
            ),
            lambda: mapper,
            lambda part: NumpyWriter(part, folder, False, True, False, 1),
            lambda part: NoLogger(),
            1,
        )
        start = time.perf_counter()
        runner(0)
        seconds = time.perf_counter() - start
        return np.load(Path(folder) / "img_emb" / "img_emb_0.npy"), seconds


def clip_benchmark(weights: Path, films: Path, batch: int, workers: int) -> tuple[Any, float]:
    """CLIP_benchmark's loop over images, with amp.

    Of its two the one of zero-shot classification: the other, which keeps features for a linear
    probe and does the same, refuses to run without CUDA. Its classifier is the identity, so that
    the logits are a hundred times the features.
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
        ImageFolder(films, transform), batch_size=batch, num_workers=workers, shuffle=False
    )
    logits, _ = run_classification(model, classifier, loader, "cpu", amp=True)
    return logits.numpy() / 100, time.perf_counter() - start


PEERS: dict[str, Callable[[Path, Path, int, int], tuple[Any, float]]] = {
    "clip-retrieval": clip_retrieval,
    "CLIP_benchmark": clip_benchmark,
}


if __name__ == "__main__":
    main()
