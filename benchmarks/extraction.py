"""Throughput of extraction, compared with common alternatives and with an upper bound.

    python benchmarks/extraction.py --data DATA [--models vit-b-32 dinov2-small tiny] [--rounds 3]

DATA holds the folders kermany and nih. Each round runs every method once on the same images: 224 px
JPEGs and 1024 px PNGs, enough to keep the fastest method busy for some seconds. The first table
gives median images per second over rounds, and ratios; the second those of featurecache in every
execution that it may choose, because embeddings stay as they are (cosine of at least 0.999). The
exit code is 1 if the chosen one is more than 5 % slower than the best of them, or than any other
method.

bound           upper bound from two costs that share the cores: the forward pass of a batch in
                memory, in the execution of featurecache, on all cores; and reading, decoding and
                preprocessing an image on one core
ours            extraction by featurecache with --precision auto, from files to a finished cache
notebook        a typical notebook: Dataset, DataLoader with a worker per core, processor, fp32,
                np.save
loop            a typical script: one image at a time through processor and model, fp32
clip-retrieval  its clip inference, from files to its folder of embeddings
CLIP_benchmark  its loop over a DataLoader, with AMP

The last two load CLIP only, so they run on vit-b-32 alone, a CLIP of that size with random weights
(which are as fast as trained ones). They need --peers, a Python interpreter that has them
installed; docs/engineering/speed.md describes how to create it. All methods load the same weights
before timing starts, and the embeddings of these two are checked against those of featurecache.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featurecache.datasets.dataset import Dataset
from featurecache.encoders.encoder import Encoder
from featurecache.encoders.loading import load_encoder
from featurecache.encoders.pretrained import write_network
from featurecache.execution import EXACT, Execution, automatic_executions, format_probe
from featurecache.extraction.probe import MIN_COSINE, fastest_execution, min_cosine
from featurecache.extraction.probe import measure as measure_executions
from featurecache.extraction.update import update_caches
from featurecache.images.decode import read_image
from featurecache.store.reader import read_cache

BATCH = 32
CORES = len(os.sched_getaffinity(0))
CLIP = "vit-b-32"
SECONDS = 8
"""Approximate duration of the fastest method in each round."""
NOISE = 0.05
PEERS = ("clip-retrieval", "CLIP_benchmark")


@dataclass(frozen=True)
class Setup:
    """Inputs of the methods.

    Attributes:
        ours: the encoder in the execution that featurecache chooses.
        candidates: the encoder in the executions that it chose from, and that are exact enough.
        plain: the encoder in fp32.
        dataset: the images, in one folder below its root.
        work: folder for output.
        weights: weights of the encoder for the peers; None where they cannot load it.
        peers: Python interpreter of the peers.
    """

    ours: Encoder
    candidates: Sequence[Encoder]
    plain: Encoder
    dataset: Dataset
    work: Path
    weights: Path | None
    peers: Path | None

    @property
    def paths(self) -> list[Path]:
        """Return the paths of the images."""
        return [self.dataset.root / path for path in self.dataset.images["path"]]


def main() -> None:
    """Time every method on every kind of image and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=[CLIP, "dinov2-small", "tiny"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peers", type=Path, help="Python interpreter that has clip-retrieval and CLIP_benchmark"
    )
    arguments = parser.parse_args()
    kinds = {
        "224 px JPEG": sorted((arguments.data / "kermany/train/NORMAL").glob("*.jpeg")),
        "1024 px PNG": sorted((arguments.data / "nih/originals_1024").glob("*.png")),
    }
    results = []
    for model in arguments.models:
        for kind, files in kinds.items():
            with tempfile.TemporaryDirectory() as work:
                setup = prepare(model, files, Path(work), arguments.peers)
                results.append(measure(model, kind, setup, arguments.rounds))
                print(f"{model}, {kind}: {results[-1].rates}", flush=True)
    print_table(COLUMNS, [result.row() for result in results])
    executions = [name for result in results for name in result.executions]
    columns = ("model", "images", *dict.fromkeys(executions))
    print_table(columns, [result.execution_row(columns[2:]) for result in results])
    if slow := [result for result in results if not result.is_fast]:
        raise SystemExit(f"too slow: {', '.join(f'{r.model}, {r.kind}' for r in slow)}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print()
    for cells in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(cells)} |")


def prepare(model: str, files: Sequence[Path], work: Path, peers: Path | None) -> Setup:
    """Load the encoders, and copy as many images as the duration needs."""
    source, weights = write_clip(work) if model == CLIP else (model, None)
    load = partial(load_encoder, source)
    few = copy_images(files, work / "few", 2 * BATCH)
    plain = load(precision="exact")
    executions = automatic_executions(plain.executions, "auto", "auto")
    encoders = {
        execution: load(backend=execution.backend, precision=execution.precision)
        for execution in executions
        if execution != EXACT
    }
    pixels = np.stack([plain.preprocess(read_image(few.root / p)) for p in few.images["path"]])
    # What an extraction does that is long enough for it to be worth the time.
    probe = measure_executions([plain, *encoders.values()], pixels, batch_size=BATCH)
    print(format_probe(probe), flush=True)
    encoders[EXACT] = plain
    ours = encoders[fastest_execution(probe, executions)]
    candidates = [
        encoders[Execution(one["backend"], one["precision"])]
        for one in probe["measurements"]
        if (one["min_cosine"] or 0) >= MIN_COSINE
    ]
    rate = bound(Setup(ours, [], plain, few, work, None, None))
    number = max(2 * BATCH, round(SECONDS * rate / BATCH) * BATCH)
    images = copy_images(files, work / "images", number)
    return Setup(ours, candidates, plain, images, work, weights, peers)


def copy_images(files: Sequence[Path], root: Path, number: int) -> Dataset:
    """Copy images into one folder, repeated as needed, and return them as a data set."""
    import pandas as pd

    folder = root / "all"
    folder.mkdir(parents=True)
    names = [f"{n:05d}{files[n % len(files)].suffix}" for n in range(number)]
    for n, name in enumerate(names):
        shutil.copyfile(files[n % len(files)], folder / name)
    paths = [f"{folder.name}/{name}" for name in names]
    images = pd.DataFrame({"id": names, "path": paths, "patient": names})
    return Dataset(
        name="images",
        root=root,
        images=images.assign(split="train", view=""),
        labels=np.zeros((number, 1), dtype=np.int8),
        label_names=("none",),
    )


def write_clip(work: Path) -> tuple[str, Path]:
    """Write a ViT-B/32 CLIP with random weights, as a Hugging Face folder and for open_clip.

    Its tokenizer is that of tiny, as texts are not encoded.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    import featurecache.encoders

    torch.manual_seed(0)
    # The activation function of open_clip's ViT-B-32.
    config = CLIPConfig(text_config={"hidden_act": "gelu"}, vision_config={"hidden_act": "gelu"})
    network = CLIPModel(config)
    folder = work / CLIP
    write_network(network, folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    tiny = Path(featurecache.encoders.__file__).parent / "tiny"
    for path in tiny.glob("tokenizer*.json"):
        shutil.copyfile(path, folder / path.name)
    weights = work / "open_clip.safetensors"
    save_file(open_clip_layout(network.state_dict()), weights)
    return str(folder), weights


def open_clip_layout(state: dict[str, Any]) -> dict[str, Any]:
    """Return the weights of a CLIP of transformers under the names and shapes of open_clip."""
    import torch

    names = {
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.pre_layrnorm": "visual.ln_pre",
        "vision_model.post_layernorm": "visual.ln_post",
        "vision_model.encoder.layers": "visual.transformer.resblocks",
        "text_model.embeddings.token_embedding": "token_embedding",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm": "ln_final",
        "text_model.encoder.layers": "transformer.resblocks",
        "layer_norm": "ln_",
        "self_attn": "attn",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    converted = {
        "visual.proj": state["visual_projection.weight"].T.contiguous(),
        "text_projection": state["text_projection.weight"].T.contiguous(),
    }
    for key, value in state.items():
        if "projection" in key or ".k_proj." in key or ".v_proj." in key:
            continue
        if ".q_proj." in key:
            value = torch.cat([state[key.replace(".q_", f".{p}_")] for p in "qkv"])
        name = key.replace("q_proj.", "in_proj_")
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        converted[name] = value
    return converted


@dataclass(frozen=True)
class Result:
    """Median images per second, by method and by execution of featurecache."""

    model: str
    kind: str
    number: int
    execution: str
    rates: dict[str, float]
    executions: dict[str, float]

    @property
    def best_other(self) -> float:
        """The rate of the fastest other method."""
        return max(rate for name, rate in self.rates.items() if name not in ("bound", "ours"))

    @property
    def is_fast(self) -> bool:
        """Whether what was chosen is about as fast as everything else."""
        return self.of_best_execution >= 1 - NOISE and self.rates["ours"] >= (
            (1 - NOISE) * self.best_other
        )

    @property
    def of_best_execution(self) -> float:
        """The rate of the chosen execution, which is forced once, too, as a part of the best."""
        return self.executions[self.execution] / max(self.executions.values())

    def row(self) -> list[str]:
        """Return the cells of ``COLUMNS``."""
        rates = self.rates
        cells = [self.model, self.kind, str(self.number), self.execution]
        cells += [f"{rates[name]:.1f}" if name in rates else "–" for name in (*METHODS, *PEERS)]
        ratios = [rates["ours"] / rates["bound"], rates["ours"] / self.best_other]
        return [*cells, *(f"{ratio:.2f}" for ratio in (*ratios, self.of_best_execution))]

    def execution_row(self, names: Sequence[str]) -> list[str]:
        """Return the rate in each execution."""
        rates = self.executions
        cells = [f"{rates[name]:.1f}" if name in rates else "–" for name in names]
        return [self.model, self.kind, *cells]


def measure(model: str, kind: str, setup: Setup, rounds: int) -> Result:
    """Run every method and every execution once in each round."""
    methods = dict(METHODS)
    if setup.weights is not None and setup.peers is not None:
        methods |= {name: partial(peer, name) for name in PEERS}
    forced = {str(encoder.execution): partial(extract, encoder) for encoder in setup.candidates}
    rates: dict[str, list[float]] = {name: [] for name in (*methods, *forced)}
    for _ in range(rounds):
        for name, method in (methods | forced).items():
            rates[name].append(method(setup))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return Result(
        model,
        kind,
        len(setup.dataset),
        str(setup.ours.execution),
        {name: medians[name] for name in methods},
        {name: medians[name] for name in forced},
    )


def bound(setup: Setup) -> float:
    """Return the images per second of cores that never wait."""
    paths = setup.paths
    start = time.perf_counter()
    pixels = [setup.ours.preprocess(read_image(path)) for path in paths[: 2 * BATCH]]
    decode_seconds = (time.perf_counter() - start) / len(pixels)
    batch = np.stack(pixels[:BATCH])
    passes = len(paths) // BATCH
    start = time.perf_counter()
    for _ in range(passes):
        setup.ours.embed_pixels(batch)
    forward_seconds = (time.perf_counter() - start) * CORES / (passes * BATCH)
    return CORES / (forward_seconds + decode_seconds)


def ours(setup: Setup) -> float:
    """Extract with featurecache."""
    return extract(setup.ours, setup)


def extract(encoder: Encoder, setup: Setup) -> float:
    """Extract with featurecache and an encoder in a given execution."""
    cache = setup.work / "cache" / str(encoder.execution)
    shutil.rmtree(cache, ignore_errors=True)
    start = time.perf_counter()
    (summary,) = update_caches(
        setup.dataset, [encoder], cache_dir=cache, batch_size=BATCH, workers=CORES
    )
    return summary.done / (time.perf_counter() - start)


def notebook(setup: Setup) -> float:
    """Encode with a DataLoader that has a worker per core."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Images(Dataset[Any]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> Any:
            from PIL import Image

            image = Image.open(paths[index]).convert("RGB")
            return torch.from_numpy(setup.plain.preprocess(image))

    paths = setup.paths
    start = time.perf_counter()
    loader = DataLoader(Images(), batch_size=BATCH, num_workers=CORES)
    embeddings = np.concatenate([setup.plain.embed_pixels(batch.numpy()) for batch in loader])
    np.save(setup.work / "notebook.npy", embeddings)
    return len(embeddings) / (time.perf_counter() - start)


def loop(setup: Setup) -> float:
    """Encode a third of the images, one at a time."""
    from PIL import Image

    paths = setup.paths[::3]
    start = time.perf_counter()
    for path in paths:
        image = Image.open(path).convert("RGB")
        setup.plain.embed_pixels(setup.plain.preprocess(image)[np.newaxis])
    return len(paths) / (time.perf_counter() - start)


def peer(name: str, setup: Setup) -> float:
    """Run a peer in its own process, after featurecache, and check its embeddings."""
    script = Path(__file__).with_name("extraction_peers.py")
    out = setup.work / "peer.npy"
    arguments = [name, setup.weights, setup.dataset.root, out, BATCH, CORES]
    command = [str(setup.peers), str(script), *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(f"{name} failed:\n{process.stderr}")
    (cache,) = (setup.work / "cache" / str(setup.ours.execution)).rglob("*.h5")
    cosine = min_cosine(np.load(out), read_cache(cache).embedding.astype(np.float32))
    if cosine < MIN_COSINE:
        raise SystemExit(f"{name} gave other embeddings than featurecache: cosine {cosine:.4f}")
    return float(process.stdout.split()[-1])


METHODS: dict[str, Callable[[Setup], float]] = {
    "bound": bound,
    "ours": ours,
    "notebook": notebook,
    "loop": loop,
}
COLUMNS = ("model", "images", "number", "execution", *METHODS, *PEERS)
COLUMNS += ("ours / bound", "ours / best other", "chosen / best execution")


if __name__ == "__main__":
    main()
