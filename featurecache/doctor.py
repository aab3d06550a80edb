"""Check that this machine is ready: libraries, hardware, disk, models, data sets and network."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from featurecache.datasets.load import find_root
from featurecache.datasets.registry import DATASETS
from featurecache.device import describe_processor
from featurecache.encoders.hub import MODELS_VARIABLE, local_folder
from featurecache.encoders.registry import ENCODERS, EncoderSpec
from featurecache.errors import CheckpointError, DatasetError
from featurecache.wording import count_noun

State = Literal["ok", "note", "problem"]

LIBRARIES: Final = ("torch", "transformers", "numpy", "h5py", "pandas", "scikit-learn", "pillow")
EXTRAS: Final = {
    "dicom": ("pydicom", "DICOM files"),
    "explore": ("embedding-atlas", "the explorer in the browser"),
    "lora": ("peft", "fine-tuning with LoRA"),
    "mlflow": ("mlflow-skinny", "logging to MLflow"),
    "openvino": ("openvino", "faster encoders on a CPU"),
    "open-clip": ("open_clip_torch", "the model biomedclip"),
    "ray": ("ray", "extraction on several machines"),
    "serve": ("fastapi", "predictions over HTTP"),
    "tensorboard": ("tensorboard", "logging to TensorBoard"),
    "tfrecord": ("google-crc32c", "embeddings in TFRecord files"),
    "timm": ("timm", "networks of timm, such as the model eva-x-base"),
    "wandb": ("wandb", "logging to Weights & Biases"),
}
HUB: Final = "https://huggingface.co"
HUB_TIMEOUT: Final = 5.0
BYTES_PER_IMAGE: Final = 2 * 1024 + 200
"""Size of a cache per image: 1,024 dimensions in float16, and id, hash, patient and labels."""


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        subject: what was checked.
        state: ``"ok"``; ``"note"`` for what is missing but optional; ``"problem"`` for what
            prevents work.
        result: what was found.
        advice: what to do about it; empty where there is nothing to do.
    """

    subject: str
    state: State
    result: str
    advice: str = ""


def check_machine(
    cache_dir: str | os.PathLike[str] = "cache", *, n_images: int | None = None
) -> Iterator[Check]:
    """Check everything that the commands need, one thing after another.

    Args:
        cache_dir: folder where caches will be written; it does not have to exist.
        n_images: number of images to embed; None where it is not known.
    """
    path = Path(cache_dir).absolute()
    folder = next(parent for parent in (path, *path.parents) if parent.is_dir())
    yield from _libraries()
    yield from _extras()
    yield _cpu()
    yield _gpu()
    yield _disk(folder, n_images)
    yield _locks(folder)
    yield from _models()
    yield from _datasets()
    yield _hub()


def _libraries() -> Iterator[Check]:
    yield Check("python", "ok", platform.python_version())
    for name in LIBRARIES:
        try:
            yield Check(name, "ok", version(name))
        except PackageNotFoundError:
            yield Check(name, "problem", "not installed", f"pip install {name}")


def _extras() -> Iterator[Check]:
    for extra, (package, use) in EXTRAS.items():
        try:
            yield Check(f"extra {extra}", "ok", f"{package} {version(package)}")
        except PackageNotFoundError:
            advice = f"for {use}: pip install 'featurecache[{extra}]'"
            yield Check(f"extra {extra}", "note", "not installed", advice)


def _cpu() -> Check:
    import torch

    threads = count_noun(torch.get_num_threads(), "thread")
    return Check("CPU", "ok", f"{threads}, {describe_processor('cpu')}")


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Check("GPU", "ok", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        return Check("GPU", "ok", "Apple GPU, as device mps")
    return Check(
        "GPU",
        "note",
        "none that torch can use",
        "heads do not need one; for a large encoder and many images, use a machine with a GPU",
    )


def _disk(folder: Path, n_images: int | None) -> Check:
    free = shutil.disk_usage(folder).free
    result = f"{free / 2**30:.1f} GiB free at {folder}"
    # Chunks and the finished file exist side by side for a while.
    if n_images is None:
        return Check("disk", "ok", f"{result}, enough for {free // (2 * BYTES_PER_IMAGE):,} images")
    needed = 2 * n_images * BYTES_PER_IMAGE
    result += f", {needed / 2**30:.1f} GiB needed for {n_images:,} images"
    if needed <= free:
        return Check("disk", "ok", result)
    return Check("disk", "problem", result, "free some space, or write the cache to another disk")


def _locks(folder: Path) -> Check:
    from filelock import FileLock, Timeout

    try:
        with TemporaryDirectory(dir=folder, prefix=".doctor-") as name:
            lock = Path(name) / "lock"
            with FileLock(lock, timeout=0):
                # A second lock fails in the same process as it would in another.
                FileLock(lock, timeout=0).acquire()
    except Timeout:
        return Check("file locks", "ok", f"work at {folder}")
    except OSError as error:
        advice = "choose a writable folder for caches"
        return Check("file locks", "problem", f"{folder}: {error.strerror}", advice)
    advice = "never run two extractions into one cache there: they would overwrite each other"
    return Check("file locks", "problem", f"do not work at {folder}", advice)


def _models() -> Iterator[Check]:
    try:
        ready = [name for name, spec in ENCODERS.items() if _is_ready(spec)]
    except CheckpointError as error:
        yield Check("models", "problem", str(error), f"correct ${MODELS_VARIABLE}")
        return
    yield Check("local models", "ok", ", ".join(ready))
    if missing := [name for name in ENCODERS if name not in ready]:
        advice = f"downloaded on first use; or set ${MODELS_VARIABLE} to a folder of checkpoints"
        yield Check("models to download", "note", ", ".join(missing), advice)


def _is_ready(spec: EncoderSpec) -> bool:
    """Return whether a model's files are on this machine, without asking the hub."""
    from huggingface_hub import try_to_load_from_cache

    if spec.embedded or spec.family == "custom":
        return True
    if spec.members:
        return all(_is_ready(ENCODERS[member]) for member in spec.members)
    if local_folder(spec.name, spec.hub_ids[0] if spec.hub_ids else "") is not None:
        return True
    return any(isinstance(try_to_load_from_cache(i, "config.json"), str) for i in spec.hub_ids)


def _datasets() -> Iterator[Check]:
    for name, spec in DATASETS.items():
        # A CSV file or a folder may be anywhere.
        if spec.root_finder or name in ("csv", "folder"):
            continue
        try:
            yield Check(f"data set {name}", "ok", str(find_root(name, None)))
        except DatasetError as error:
            reason, _, advice = str(error).partition(": ")
            yield Check(f"data set {name}", "note", reason, advice)


def _hub() -> Check:
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return Check("model hub", "note", "HF_HUB_OFFLINE is set", "no model can be downloaded")
    try:
        urlopen(Request(HUB, method="HEAD"), timeout=HUB_TIMEOUT).close()
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        advice = f"set ${MODELS_VARIABLE} to a folder of checkpoints, or $HTTPS_PROXY to a proxy"
        return Check("model hub", "note", f"{HUB} cannot be reached ({reason})", advice)
    return Check("model hub", "ok", f"{HUB} is reachable")
