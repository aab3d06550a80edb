"""Networks, image processors and tokenizers in transformers' layout, read strictly and quietly."""

import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.encoders.checkpoint import Checkpoint, check_keys, require_vocabulary
from featurecache.encoders.encoder import Array
from featurecache.encoders.preprocessing import read_preprocessing
from featurecache.encoders.seeding import seeded
from featurecache.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_POSITION_IDS = "position_ids"
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is fetched, and no code that a checkpoint brings is run. Left out, transformers would ask
the user in the middle of a command whether to run it."""


def load_config(checkpoint: Checkpoint) -> Any:
    """The transformers configuration of a checkpoint.

    Raises:
        CheckpointError: transformers knows no such configuration.
    """
    from transformers import AutoConfig

    _refuse_kernels(checkpoint)
    try:
        with _quiet():
            return AutoConfig.from_pretrained(checkpoint.folder, **_LOCAL)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'} describes no known model: {_first_line(error)}"
        ) from error


def load_network(
    checkpoint: Checkpoint, *, unused: tuple[str, ...] = (), **options: Any
) -> "torch.nn.Module":
    """The network of a checkpoint in fp32, every weight accounted for.

    Args:
        checkpoint: where it is.
        unused: prefixes of keys that the checkpoint may have for parts that are not built.
        options: further arguments of the network's class.

    Raises:
        CheckpointError: there are no weights, they cannot be read, or a key is missing or
            unexpected.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel

    checkpoint.require_weights()
    _refuse_kernels(checkpoint)
    try:
        with _quiet():
            # The dtype is stated because transformers 5 otherwise takes the checkpoint's.
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
    """A network of a checkpoint's architecture in fp32, with transformers' initial weights.

    Args:
        checkpoint: where its configuration is; its weights are not read.
        seed: decides every weight.
        options: further arguments of the network's class.

    Raises:
        CheckpointError: transformers knows no such configuration.
    """
    import torch
    from transformers import AutoModel

    config = load_config(checkpoint)
    with seeded(seed), _quiet():
        network = AutoModel.from_config(config, dtype=torch.float32, **options)
    # Unlike a network that was read, a built one starts in training mode.
    module: torch.nn.Module = network.eval()
    return module


def write_network(network: Any, folder: Path) -> None:
    """Write a network of transformers: ``config.json`` and ``model.safetensors``.

    Raises:
        OSError: the disk is full or not writable.
    """
    with _quiet():
        network.save_pretrained(folder)


def processor_files(folder: Path) -> tuple[Path, ...]:
    """The image processor's files in a checkpoint folder.

    Raises:
        CheckpointError: the folder has none.
    """
    files = tuple(folder / name for name in _PROCESSOR_FILES if (folder / name).is_file())
    if not files:
        raise CheckpointError(f"{folder} has no {_PROCESSOR_FILES[0]}: fetch that file too")
    return files


class ImageProcessor:
    """A checkpoint's own image processor, on its Pillow back end.

    The torchvision back end gives slightly other pixels, so it is never used, installed or not.
    """

    def __init__(self, folder: Path) -> None:
        """Read the processor's configuration.

        Raises:
            CheckpointError: the folder has none, or transformers does not know it.
        """
        from transformers import AutoImageProcessor

        processor_files(folder)
        # Before back ends had names, in transformers 5.0, Pillow was "not fast".
        named = find_spec("transformers.image_processing_backends") is not None
        choice = {"backend": "pil"} if named else {"use_fast": False}
        try:
            with _quiet():
                self._processor = AutoImageProcessor.from_pretrained(folder, **_LOCAL, **choice)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"the image processor in {folder} cannot be loaded: {_first_line(error)}"
            ) from error
        self._preprocess = read_preprocessing(self._processor)

    @property
    def description(self) -> dict[str, Any]:
        """Its class and configuration."""
        return {"class": type(self._processor).__name__, "config": _plain(self._processor)}

    @property
    def portable(self) -> "Callable[[Image], Array]":
        """What it does, without transformers where that is possible."""
        return self if self._preprocess is None else self._preprocess

    def __call__(self, image: "Image") -> Array:
        """One grey or RGB image as float32 of shape (3, H, W)."""
        if self._preprocess is not None:
            return self._preprocess(image)
        # Not every processor's configuration asks for the conversion that its network needs.
        batch = self._processor(images=image.convert("RGB"), return_tensors="np")
        return np.ascontiguousarray(batch["pixel_values"][0], dtype=np.float32)


def load_tokenizer(folder: Path, *, class_name: str = "AutoTokenizer", **options: Any) -> Any:
    """The tokenizer of a checkpoint folder.

    Args:
        folder: where its files are.
        class_name: the transformers class that reads them; by default what they say themselves.
        options: further arguments of that class.

    Raises:
        CheckpointError: the folder has no vocabulary, or transformers cannot read it.
    """
    import transformers

    tokenizer_class = getattr(transformers, class_name)
    # Without this check transformers 5 makes some tokenizers with an empty vocabulary.
    require_vocabulary(folder)
    try:
        with _quiet(), warnings.catch_warnings():
            # transformers 5.0 opens vocabularies in a way that tokenizers is about to drop.
            warnings.filterwarnings("ignore", ".*will not create from files", DeprecationWarning)
            return tokenizer_class.from_pretrained(folder, **_LOCAL, **options)
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be loaded: {_first_line(error)}"
        ) from error


def _refuse_kernels(checkpoint: Checkpoint) -> None:
    """Refuse a configuration that names compiled code on the hub, which transformers would run.

    Raises:
        CheckpointError: it does.
    """
    parts: list[Any] = [checkpoint.config()]
    while parts:
        part = parts.pop()
        for key, value in part.items():
            named = value.values() if isinstance(value, dict) else (value,)
            if key.endswith("_implementation") and any("/" in str(name) for name in named):
                raise CheckpointError(
                    f"{checkpoint.folder / 'config.json'} asks for code from elsewhere ({key}: "
                    f"{value!r}), which is never run: take that line out of it"
                )
            if isinstance(value, dict):
                parts.append(value)


def _plain(processor: Any) -> dict[str, Any]:
    # Tuples against lists and _private entries differ between releases without any effect.
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
    # Reports and bars of transformers would go between the lines of a command's own output;
    # what matters in them is raised as an error here.
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
