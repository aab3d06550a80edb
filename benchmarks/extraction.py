"""Stage 1 against what people use today, and against what the encoder alone would take.

    python benchmarks/extraction.py --data DATA [--models vit-b-32 dinov2-small tiny] [--rounds 3]

DATA holds the folders kermany and nih. Each round runs every method once on the same films: 224 px
JPEGs, and 1024 px PNGs. The table gives images a second, medians over the rounds, and ratios.

bound      what two costs allow that share the same cores: a forward pass of a batch that is in
           memory, in the precision of ours, on all cores; and reading, decoding and preprocessing
           one film on one core
ours       featurecache's extraction, from files to a finished cache
notebook   the usual notebook: Dataset, DataLoader with a worker per core, processor, fp32, np.save
loop       the usual script: one film at a time through processor and model, fp32

vit-b-32 has random weights, which take as long as trained ones.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featurecache.datasets.manifest import Manifest
from featurecache.encoders.encoder import Encoder
from featurecache.encoders.loading import load_encoder
from featurecache.extraction.extract import extract
from featurecache.extraction.precision import settle_precision
from featurecache.images import read_image

BATCH = 32
CORES = len(os.sched_getaffinity(0))


def main() -> None:
    """Time every method on every kind of film, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["vit-b-32", "dinov2-small", "tiny"])
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    columns = ["model", "films", "precision", *METHODS, "ours / bound", "ours / best other"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        films = {
            "224 px JPEG": copies(
                sorted((arguments.data / "kermany/train/NORMAL").glob("*.jpeg")),
                work / "jpeg",
                arguments.images,
            ),
            "1024 px PNG": copies(
                sorted((arguments.data / "nih/originals_1024").glob("*.png")),
                work / "png",
                arguments.images,
            ),
        }
        for model in arguments.models:
            source = write_vit(work / model) if model == "vit-b-32" else model
            for kind, manifest in films.items():
                print(row(model, source, kind, manifest, arguments.rounds, work), flush=True)


def copies(files: Sequence[Path], folder: Path, number: int) -> Manifest:
    """So many films, each in a file of its own; repeated where need be."""
    import pandas as pd

    folder.mkdir()
    names = [f"{n:05d}{files[n % len(files)].suffix}" for n in range(number)]
    for n, name in enumerate(names):
        shutil.copyfile(files[n % len(files)], folder / name)
    images = pd.DataFrame({"id": names, "path": names, "patient": names})
    return Manifest(
        name=folder.name,
        root=folder,
        images=images.assign(split="train", view=""),
        labels=np.zeros((number, 1), dtype=np.int8),
        label_names=("none",),
    )


def write_vit(folder: Path) -> str:
    """A ViT-B/32 with random weights, as a Hugging Face folder."""
    import torch
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    torch.manual_seed(0)
    ViTModel(ViTConfig(patch_size=32), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil().save_pretrained(folder)
    return str(folder)


def row(model: str, source: str, kind: str, manifest: Manifest, rounds: int, work: Path) -> str:
    """One line of the table."""
    ours = settle_precision(partial(load_encoder, source), manifest, work / "nothing")
    plain = load_encoder(source, precision="fp32")
    paths = [manifest.root / path for path in manifest.images["path"]]
    for encoder in (ours, plain):  # the weights are in memory before any clock runs
        encoder.encode_images(np.stack([encoder.preprocess(read_image(paths[0]))] * 2))
    rates: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(rounds):
        for name, method in METHODS.items():
            encoder = ours if name in ("bound", "ours") else plain
            rates[name].append(method(encoder, manifest, paths, work))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    best = max(middle["notebook"], middle["loop"])
    cells = [model, kind, ours.precision, *(f"{value:.1f}" for value in middle.values())]
    cells += [f"{middle['ours'] / middle['bound']:.2f}", f"{middle['ours'] / best:.1f}"]
    return f"| {' | '.join(cells)} |"


def bound(encoder: Encoder, manifest: Manifest, paths: Sequence[Path], work: Path) -> float:
    """Images a second that the cores could do if they never waited."""
    start = time.perf_counter()
    pixels = np.stack([encoder.preprocess(read_image(path)) for path in paths[:BATCH]])
    decode = (time.perf_counter() - start) / BATCH
    passes = max(1, len(paths) // BATCH)
    start = time.perf_counter()
    for _ in range(passes):
        encoder.encode_images(pixels)
    forward = (time.perf_counter() - start) * CORES / (passes * BATCH)
    return CORES / (forward + decode)


def ours(encoder: Encoder, manifest: Manifest, paths: Sequence[Path], work: Path) -> float:
    """Files to a finished cache."""
    cache = work / "cache"
    start = time.perf_counter()
    (summary,) = extract(manifest, [encoder], cache=cache, batch_size=BATCH, workers=CORES)
    rate = summary.done / (time.perf_counter() - start)
    shutil.rmtree(cache)
    return rate


def notebook(encoder: Encoder, manifest: Manifest, paths: Sequence[Path], work: Path) -> float:
    """A DataLoader with a worker for each core."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Films(Dataset[Any]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> Any:
            from PIL import Image

            return torch.from_numpy(encoder.preprocess(Image.open(paths[index]).convert("RGB")))

    start = time.perf_counter()
    loader = DataLoader(Films(), batch_size=BATCH, num_workers=CORES)
    found = np.concatenate([encoder.encode_images(batch.numpy()) for batch in loader])
    np.save(work / "notebook.npy", found)
    return len(found) / (time.perf_counter() - start)


def loop(encoder: Encoder, manifest: Manifest, paths: Sequence[Path], work: Path) -> float:
    """One film at a time."""
    from PIL import Image

    some = paths[: max(BATCH, len(paths) // 3)]
    start = time.perf_counter()
    for path in some:
        encoder.encode_images(encoder.preprocess(Image.open(path).convert("RGB"))[np.newaxis])
    return len(some) / (time.perf_counter() - start)


METHODS: dict[str, Callable[[Encoder, Manifest, Sequence[Path], Path], float]] = {
    "bound": bound,
    "ours": ours,
    "notebook": notebook,
    "loop": loop,
}


if __name__ == "__main__":
    main()
