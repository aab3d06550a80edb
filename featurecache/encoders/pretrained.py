"""Load networks, image processors and tokenizers with transformers, strictly and quietly."""

import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.encoders.checkpoint import (
    Checkpoint,
    check_keys,
    read_json,
    require_vocabulary,
)
from featurecache.encoders.encoder import Array
from featurecache.encoders.geometry import Geometry
from featurecache.encoders.preprocessing import check_resize, read_preprocessing
from featurecache.encoders.seeding import seeded
from featurecache.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_DINOV3_PROCESSOR = "DINOv3ViTImageProcessor"
_POSITION_IDS = "position_ids"
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is downloaded, and no code in a checkpoint is run. Without the second setting,
transformers would ask the user in the middle of a command whether to run it."""


def load_config(checkpoint: Checkpoint) -> Any:
    """Return the transformers configuration of a checkpoint.

    Raises:
        CheckpointError: transformers does not support the configuration.
    """
    from transformers import AutoConfig

    _check_no_remote_code(checkpoint)
    try:
        with _quiet():
            return AutoConfig.from_pretrained(checkpoint.folder, **_LOCAL)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'} is not of a supported model: {_first_line(error)}"
        ) from error


def load_network(
    checkpoint: Checkpoint, *, unused: tuple[str, ...] = (), **options: Any
) -> "torch.nn.Module":
    """Read the network of a checkpoint in fp32; every weight must fit.

    Args:
        checkpoint: The checkpoint.
        unused: Prefixes of keys that the checkpoint may have for modules that are not built.
        options: Further arguments of the class of the network.

    Raises:
        CheckpointError: There are no weights, they cannot be read, or a key is missing or
            unexpected.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel

    checkpoint.require_weights()
    _check_no_remote_code(checkpoint)
    try:
        with _quiet():
            # By default transformers 5 would take the dtype of the checkpoint.
            network, report = AutoModel.from_pretrained(
                checkpoint.folder,
                **_LOCAL,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"the weights in {checkpoint.folder} hold more than tensors, or are damaged, and were "
            "not loaded: take them from their publisher"
        ) from error
    # ImportError: the configuration asks for a package that is not installed.
    except (OSError, RuntimeError, ValueError, ImportError, SafetensorError) as error:
        raise CheckpointError(
            f"the weights in {checkpoint.folder} cannot be loaded: {_first_line(error)}"
        ) from error
    check_keys(
        checkpoint.folder,
        missing={key for key in report["missing_keys"] if not key.endswith(_POSITION_IDS)},
        unexpected={
            key
            for key in report["unexpected_keys"]
            if not key.endswith(_POSITION_IDS) and not key.startswith(unused)
        },
    )
    module: torch.nn.Module = network
    return module


def random_network(checkpoint: Checkpoint, *, seed: int, **options: Any) -> "torch.nn.Module":
    """Build a network of a checkpoint's architecture in fp32, with random weights.

    Args:
        checkpoint: The checkpoint; only its configuration is read.
        seed: Seed of the weights, which transformers initializes.
        options: Further arguments of the class of the network.

    Raises:
        CheckpointError: transformers does not support the configuration.
    """
    import torch
    from transformers import AutoModel

    config = load_config(checkpoint)
    with seeded(seed), _quiet():
        network = AutoModel.from_config(config, dtype=torch.float32, **options)
    # Unlike a network that was read, a new one starts in training mode.
    module: torch.nn.Module = network.eval()
    return module


def write_network(network: Any, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` of a transformers network.

    Raises:
        OSError: The disk is full or not writable.
    """
    with _quiet():
        network.save_pretrained(folder)


def processor_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of the image processor in a checkpoint folder.

    Raises:
        CheckpointError: The folder has none.
    """
    files = tuple(folder / name for name in PROCESSOR_FILES if (folder / name).is_file())
    if not files:
        raise CheckpointError(f"{folder} has no {PROCESSOR_FILES[0]}: fetch that file too")
    return files


class ImageProcessor:
    """The image processor of a checkpoint, on its Pillow back end.

    The torchvision back end gives slightly different pixels, so it is never used, even where it is
    installed.
    """

    def __init__(self, folder: Path, *, resize: str = "published") -> None:
        """Read the configuration of the processor.

        Args:
            folder: The checkpoint folder.
            resize: See ``Resize``. The attribute stays "published" where that does the same.

        Raises:
            CheckpointError: The folder has none, or transformers does not support it.
            UsageError: It takes steps that images cannot be resized in another way for.
        """
        check_resize(resize)
        try:
            with _quiet():
                self._processor = _load_processor(folder)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"the image processor in {folder} cannot be loaded: {_first_line(error)}"
            ) from error
        self._preprocess = read_preprocessing(self._processor)
        self.resize = "published"
        if resize == "published":
            return
        if self._preprocess is None:
            raise UsageError(
                f"the image processor in {folder} takes further steps: leave out `resize`"
            )
        resized = self._preprocess.resized(resize)
        if resized.geometry != self._preprocess.geometry:
            self._preprocess, self.resize = resized, resize

    @property
    def spec(self) -> dict[str, Any]:
        """Its class and configuration, for the spec of an encoder."""
        return {"class": type(self._processor).__name__, "config": _to_json(self._processor)}

    @property
    def geometry(self) -> Geometry | None:
        """Which part of an image it returns; None if it takes steps that are not known here."""
        return None if self._preprocess is None else self._preprocess.geometry

    @property
    def picklable(self) -> "Callable[[Image], Array]":
        """An equivalent function that can be pickled, without transformers if possible."""
        return self if self._preprocess is None else self._preprocess

    def __call__(self, image: "Image") -> Array:
        """Return a gray or RGB image as float32 of shape (3, H, W)."""
        if self._preprocess is not None:
            return self._preprocess(image)
        # Not every configuration asks for the conversion to RGB that its network needs.
        batch = self._processor(images=image.convert("RGB"), return_tensors="np")
        return np.ascontiguousarray(batch["pixel_values"][0], dtype=np.float32)


def _load_processor(folder: Path) -> Any:
    import transformers

    path, *_ = processor_files(folder)
    # Before back ends had names, in transformers 5.0, the Pillow one was "not fast".
    has_names = find_spec("transformers.image_processing_backends") is not None
    if str(read_json(path).get("image_processor_type")).startswith(_DINOV3_PROCESSOR):
        # It has no Pillow back end. ViT's does the same, but rounds to 8 bits after the resize.
        name = "ViTImageProcessorPil" if has_names else "ViTImageProcessor"
        return getattr(transformers, name).from_pretrained(folder, **_LOCAL)
    backend = {"backend": "pil"} if has_names else {"use_fast": False}
    return transformers.AutoImageProcessor.from_pretrained(folder, **_LOCAL, **backend)


def load_tokenizer(folder: Path, *, class_name: str = "AutoTokenizer", **options: Any) -> Any:
    """Load the tokenizer of a checkpoint folder.

    Args:
        folder: The checkpoint folder.
        class_name: The transformers class that reads it; by default the one its files name.
        options: Further arguments of that class.

    Raises:
        CheckpointError: The folder has no vocabulary, or transformers cannot read it.
    """
    import transformers

    tokenizer_class = getattr(transformers, class_name)
    # Without this check transformers 5 creates some tokenizers with an empty vocabulary.
    require_vocabulary(folder)
    try:
        with _quiet(), warnings.catch_warnings():
            # transformers 5.0 opens vocabularies in a way that tokenizers has deprecated.
            warnings.filterwarnings("ignore", ".*will not create from files", DeprecationWarning)
            return tokenizer_class.from_pretrained(folder, **_LOCAL, **options)
    except Exception as error:  # the tokenizers library raises plain exceptions
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be loaded: {_first_line(error)}"
        ) from error


def _check_no_remote_code(checkpoint: Checkpoint) -> None:
    """Check that a configuration names no compiled code on the hub, which transformers would run.

    Raises:
        CheckpointError: It does.
    """
    sections: list[Any] = [checkpoint.config()]
    while sections:
        for key, value in sections.pop().items():
            names = value.values() if isinstance(value, dict) else (value,)
            if key.endswith("_implementation") and any("/" in str(name) for name in names):
                raise CheckpointError(
                    f"{checkpoint.folder / 'config.json'} asks for code from elsewhere ({key}: "
                    f"{value!r}), which is never run: remove that line"
                )
            if isinstance(value, dict):
                sections.append(value)


def _to_json(processor: Any) -> dict[str, Any]:
    # Tuples versus lists and _private entries differ between releases without any effect.
    entries = processor.to_dict().items()
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in entries
        if not key.startswith("_")
    }


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def _quiet() -> Iterator[None]:
    # Messages and progress bars of transformers would mix with the output of a command. What
    # matters in them is raised as an error here.
    from transformers.utils import logging

    level, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bar:
            logging.enable_progress_bar()
