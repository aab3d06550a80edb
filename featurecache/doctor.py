"""Whether this machine is ready: what is installed, what it is fast at, what it can reach."""

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
from featurecache.encoders.hub import MODELS_VARIABLE, local_folder
from featurecache.encoders.registry import SPECS, EncoderSpec
from featurecache.errors import CheckpointError, DatasetError

State = Literal["fine", "note", "problem"]

LIBRARIES: Final = ("torch", "transformers", "numpy", "h5py", "pandas", "scikit-learn", "pillow")
EXTRAS: Final = {
    "dicom": ("pydicom", "DICOM files"),
    "lora": ("peft", "finetune --trainable lora-R"),
    "open-clip": ("open_clip_torch", "the model biomedclip"),
    "ray": ("ray", "extract --engine ray"),
}
HUB: Final = "https://huggingface.co"
HUB_SECONDS: Final = 5.0
BYTES_AN_IMAGE: Final = 2 * 1024 + 200
"""Of a cache: an embedding of the longest in use, and id, hash, patient and labels."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what.
        state: ``fine``; ``note`` for what not everybody needs; ``problem`` for what stops work.
        found: how it is.
        advice: what to do about it; empty where there is nothing to do.
    """

    subject: str
    state: State
    found: str
    advice: str = ""


def examine(cache: Path, *, images: int | None = None) -> Iterator[Finding]:
    """Look at everything that the commands need, one thing after another.

    Args:
        cache: the folder that caches are to be written into; it need not be there.
        images: so many are to be embedded; None where that is not known.
    """
    place = next(
        folder for folder in (cache.absolute(), *cache.absolute().parents) if folder.is_dir()
    )
    yield from _libraries()
    yield from _extras()
    yield _processor()
    yield _graphics()
    yield _disk(place, images)
    yield _locks(place)
    yield from _models()
    yield from _datasets()
    yield _hub()


def _libraries() -> Iterator[Finding]:
    yield Finding("python", "fine", platform.python_version())
    for name in LIBRARIES:
        try:
            yield Finding(name, "fine", version(name))
        except PackageNotFoundError:
            yield Finding(name, "problem", "not installed", f"pip install {name}")


def _extras() -> Iterator[Finding]:
    for extra, (package, use) in EXTRAS.items():
        try:
            yield Finding(f"extra {extra}", "fine", f"{package} {version(package)}")
        except PackageNotFoundError:
            advice = f"for {use}: pip install 'featurecache[{extra}]'"
            yield Finding(f"extra {extra}", "note", "not installed", advice)


def _processor() -> Finding:
    import torch

    from featurecache.device import has_fast_bf16

    cores = f"{torch.get_num_threads()} threads"
    if has_fast_bf16("cpu"):
        return Finding("processor", "fine", f"{cores}, fast in bf16")
    return Finding(
        "processor",
        "note",
        f"{cores}, no instructions for bf16",
        "encoders run in fp32, about half as fast as with them",
    )


def _graphics() -> Finding:
    import torch

    from featurecache.device import has_fast_bf16

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        fast = "bf16" if has_fast_bf16("cuda") else "fp32"
        name = torch.cuda.get_device_name(0)
        return Finding("graphics", "fine", f"{name}, {memory:.0f} GiB, fast in {fast}")
    if torch.backends.mps.is_available():
        return Finding("graphics", "fine", "Apple's, by --device mps")
    return Finding(
        "graphics",
        "note",
        "none that torch can use",
        "heads need none; for a large encoder over many films take a machine that has one",
    )


def _disk(place: Path, images: int | None) -> Finding:
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.1f} GiB free at {place}"
    # Parts and the finished file lie side by side for a while.
    if images is None:
        return Finding("disk", "fine", f"{found}, for {free // (2 * BYTES_AN_IMAGE):,} images")
    needed = 2 * images * BYTES_AN_IMAGE
    found += f", {needed / 2**30:.1f} GiB needed for {images:,} images"
    if needed <= free:
        return Finding("disk", "fine", found)
    return Finding("disk", "problem", found, "make room, or give --cache on another disk")


def _locks(place: Path) -> Finding:
    from filelock import FileLock, Timeout

    try:
        with TemporaryDirectory(dir=place, prefix=".doctor-") as name:
            lock = Path(name) / "lock"
            with FileLock(lock, timeout=0):
                # A second lock is refused in this process as it would be in another.
                FileLock(lock, timeout=0).acquire()
    except Timeout:
        return Finding("file locks", "fine", f"hold at {place}")
    except OSError as error:
        advice = "give --cache a folder that can be written to"
        return Finding("file locks", "problem", f"{place}: {error.strerror}", advice)
    advice = "never run two extractions into one cache there: nothing would stop the second"
    return Finding("file locks", "problem", f"do not hold at {place}", advice)


def _models() -> Iterator[Finding]:
    try:
        ready = [name for name, spec in SPECS.items() if _is_ready(spec)]
    except CheckpointError as error:
        yield Finding("models", "problem", str(error), f"correct ${MODELS_VARIABLE}")
        return
    yield Finding("models at hand", "fine", ", ".join(ready))
    if missing := [name for name in SPECS if name not in ready]:
        advice = f"extract downloads them; or give --weights, or ${MODELS_VARIABLE}"
        yield Finding("models to download", "note", ", ".join(missing), advice)


def _is_ready(spec: EncoderSpec) -> bool:
    """Whether a model's files are on this machine; the hub is not asked."""
    from huggingface_hub import try_to_load_from_cache

    if spec.embedded:
        return True
    if spec.parts:
        return all(_is_ready(SPECS[part]) for part in spec.parts)
    if local_folder(spec.name, spec.hub_ids[0] if spec.hub_ids else "") is not None:
        return True
    return any(isinstance(try_to_load_from_cache(one, "config.json"), str) for one in spec.hub_ids)


def _datasets() -> Iterator[Finding]:
    for name, spec in DATASETS.items():
        # A CSV file or a folder may be anywhere.
        if spec.root_finder or name in ("csv", "folder"):
            continue
        try:
            yield Finding(f"data set {name}", "fine", str(find_root(name, None)))
        except DatasetError as error:
            reason, _, advice = str(error).partition(": ")
            yield Finding(f"data set {name}", "note", reason, advice)


def _hub() -> Finding:
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return Finding("model hub", "note", "HF_HUB_OFFLINE is set", "no model can be downloaded")
    try:
        urlopen(Request(HUB, method="HEAD"), timeout=HUB_SECONDS).close()
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        advice = f"give --weights, or ${MODELS_VARIABLE}; $HTTPS_PROXY where there is a proxy"
        return Finding("model hub", "note", f"{HUB} cannot be reached ({reason})", advice)
    return Finding("model hub", "fine", f"{HUB} answers")
