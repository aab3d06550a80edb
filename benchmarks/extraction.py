"""Stage 1 against what people use today, and against what the encoder alone would take.

    python benchmarks/extraction.py --data DATA [--models vit-b-32 dinov2-small tiny] [--rounds 3]

DATA holds the folders kermany and nih. Each round runs every method once on the same films: 224 px
JPEGs, and 1024 px PNGs, so many that the fastest is busy for some seconds. The table gives images a
second, medians over the rounds, and ratios.

bound           what two costs allow that share the same cores: a forward pass of a batch that is in
                memory, in the precision of ours, on all cores; and reading, decoding and
                preprocessing one film on one core
ours            featurecache's extraction, from files to a finished cache
notebook        the usual notebook: Dataset, DataLoader with a worker per core, processor, fp32,
                np.save
loop            the usual script: one film at a time through processor and model, fp32
clip-retrieval  its clip inference, from files to its folder of embeddings
CLIP_benchmark  its loop over a DataLoader, with amp

The last two load CLIP only, and so run on vit-b-32 alone, a CLIP of that size with random weights,
which take as long as trained ones. They run where --peers names a Python that has them installed;
docs/engineering/speed.md says how. All methods load the same weights, before any clock runs, and
the embeddings of these two are checked against ours.
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
from featurecache.extraction.precision import MIN_COSINE, choose_precision, min_cosine
from featurecache.extraction.update import update_caches
from featurecache.images.decode import read_image
from featurecache.store.reader import read_cache

BATCH = 32
CORES = len(os.sched_getaffinity(0))
CLIP = "vit-b-32"
SECONDS = 12
"""How long the fastest method is to be busy in each round, about."""
PEERS = ("clip-retrieval", "CLIP_benchmark")


@dataclass(frozen=True)
class Run:
    """What the methods are timed on.

    Attributes:
        ours: the encoder in the precision that featurecache chooses.
        plain: the same in fp32.
        manifest: the films, in one folder below its root.
        work: a folder to write into.
        weights: those of the encoder for the peers; None where they cannot load it.
        peers: their interpreter.
    """

    ours: Encoder
    plain: Encoder
    manifest: Dataset
    work: Path
    weights: Path | None
    peers: Path | None

    @property
    def paths(self) -> list[Path]:
        """The films' files."""
        return [self.manifest.root / path for path in self.manifest.images["path"]]


def main() -> None:
    """Time every method on every kind of film, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=[CLIP, "dinov2-small", "tiny"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="a Python that has clip_retrieval and the other")
    arguments = parser.parse_args()
    kinds = {
        "224 px JPEG": sorted((arguments.data / "kermany/train/NORMAL").glob("*.jpeg")),
        "1024 px PNG": sorted((arguments.data / "nih/originals_1024").glob("*.png")),
    }
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for model in arguments.models:
        for kind, files in kinds.items():
            with tempfile.TemporaryDirectory() as work:
                run = prepare(model, files, Path(work), arguments.peers)
                print(row(model, kind, run, arguments.rounds), flush=True)


def prepare(model: str, files: Sequence[Path], work: Path, peers: Path | None) -> Run:
    """The encoders, their weights in memory, and as many films as take the time."""
    source, weights = write_clip(work) if model == CLIP else (model, None)
    load = partial(load_encoder, source)
    few = films(files, work / "few", 2 * BATCH)
    ours, plain = choose_precision(load, few, work / "nothing"), load(precision="fp32")
    for encoder in (ours, plain):
        encoder.embed_pixels(np.stack([encoder.preprocess(read_image(files[0]))] * 2))
    rate = bound(Run(ours, plain, few, work, None, None))
    number = max(2 * BATCH, round(SECONDS * rate / BATCH) * BATCH)
    return Run(ours, plain, films(files, work / "films", number), work, weights, peers)


def films(files: Sequence[Path], root: Path, number: int) -> Dataset:
    """So many films, each in a file of its own; repeated where need be."""
    import pandas as pd

    folder = root / "all"
    folder.mkdir(parents=True)
    names = [f"{n:05d}{files[n % len(files)].suffix}" for n in range(number)]
    for n, name in enumerate(names):
        shutil.copyfile(files[n % len(files)], folder / name)
    paths = [f"{folder.name}/{name}" for name in names]
    images = pd.DataFrame({"id": names, "path": paths, "patient": names})
    return Dataset(
        name="films",
        root=root,
        images=images.assign(split="train", view=""),
        labels=np.zeros((number, 1), dtype=np.int8),
        label_names=("none",),
    )


def write_clip(work: Path) -> tuple[str, Path]:
    """A CLIP of ViT-B/32 with random weights: a Hugging Face folder, and open_clip's file.

    Texts play no part: the tokenizer is that of tiny.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    import featurecache.encoders

    torch.manual_seed(0)
    # The activation of open_clip's ViT-B-32.
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
    """The weights of transformers' CLIP under the names, and in the shapes, of open_clip's."""
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
    found = {
        "visual.proj": state["visual_projection.weight"].T.contiguous(),
        "text_projection": state["text_projection.weight"].T.contiguous(),
    }
    for key, value in state.items():
        if "projection" in key or ".k_proj." in key or ".v_proj." in key:
            continue
        if ".q_proj." in key:
            value = torch.cat([state[key.replace(".q_", f".{part}_")] for part in "qkv"])
        name = key.replace("q_proj.", "in_proj_")
        for theirs, its in names.items():
            name = name.replace(theirs, its)
        found[name] = value
    return found


def row(model: str, kind: str, run: Run, rounds: int) -> str:
    """One line of the table."""
    methods = dict(METHODS)
    if run.weights is not None and run.peers is not None:
        methods |= {name: partial(peer, name) for name in PEERS}
    rates: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            rates[name].append(method(run))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    best = max(rate for name, rate in middle.items() if name not in ("bound", "ours"))
    cells = [model, kind, str(len(run.manifest)), run.ours.precision]
    cells += [f"{middle[name]:.1f}" if name in middle else "–" for name in (*METHODS, *PEERS)]
    cells += [f"{middle['ours'] / middle['bound']:.2f}", f"{middle['ours'] / best:.1f}"]
    return f"| {' | '.join(cells)} |"


def bound(run: Run) -> float:
    """Images a second that the cores could do if they never waited."""
    paths = run.paths
    start = time.perf_counter()
    pixels = [run.ours.preprocess(read_image(path)) for path in paths[: 2 * BATCH]]
    decode = (time.perf_counter() - start) / len(pixels)
    batch = np.stack(pixels[:BATCH])
    passes = len(paths) // BATCH
    start = time.perf_counter()
    for _ in range(passes):
        run.ours.embed_pixels(batch)
    forward = (time.perf_counter() - start) * CORES / (passes * BATCH)
    return CORES / (forward + decode)


def ours(run: Run) -> float:
    """Files to a finished cache."""
    cache = run.work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    start = time.perf_counter()
    (summary,) = update_caches(
        run.manifest, [run.ours], cache_dir=cache, batch_size=BATCH, workers=CORES
    )
    return summary.done / (time.perf_counter() - start)


def notebook(run: Run) -> float:
    """A DataLoader with a worker for each core."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Films(Dataset[Any]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> Any:
            from PIL import Image

            image = Image.open(paths[index]).convert("RGB")
            return torch.from_numpy(run.plain.preprocess(image))

    paths = run.paths
    start = time.perf_counter()
    loader = DataLoader(Films(), batch_size=BATCH, num_workers=CORES)
    found = np.concatenate([run.plain.embed_pixels(batch.numpy()) for batch in loader])
    np.save(run.work / "notebook.npy", found)
    return len(found) / (time.perf_counter() - start)


def loop(run: Run) -> float:
    """One film at a time; a third of the films."""
    from PIL import Image

    some = run.paths[::3]
    start = time.perf_counter()
    for path in some:
        image = Image.open(path).convert("RGB")
        run.plain.embed_pixels(run.plain.preprocess(image)[np.newaxis])
    return len(some) / (time.perf_counter() - start)


def peer(name: str, run: Run) -> float:
    """One of the peers in a process of its own, after ours; its embeddings are to be ours."""
    script = Path(__file__).with_name("extraction_peers.py")
    out = run.work / "peer.npy"
    arguments = [name, run.weights, run.manifest.root, out, BATCH, CORES]
    command = [str(run.peers), str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    (cache,) = (run.work / "cache").rglob("*.h5")
    cosine = min_cosine(np.load(out), read_cache(cache).embedding.astype(np.float32))
    if cosine < MIN_COSINE:
        raise SystemExit(f"{name} gave other embeddings than ours: a cosine of {cosine:.4f}")
    return float(done.stdout.split()[-1])


METHODS: dict[str, Callable[[Run], float]] = {
    "bound": bound,
    "ours": ours,
    "notebook": notebook,
    "loop": loop,
}
COLUMNS = ("model", "films", "number", "precision", *METHODS, *PEERS)
COLUMNS += ("ours / bound", "ours / best other")


if __name__ == "__main__":
    main()
