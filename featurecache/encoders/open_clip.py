"""Encoders that the open_clip library runs, such as BiomedCLIP."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.encoders.checkpoint import Checkpoint
from featurecache.encoders.encoder import Array, Encoder, library_versions, text_batches
from featurecache.encoders.inference import InferenceNetwork, to_array
from featurecache.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

EXTRA = "open-clip"


def require_open_clip(name: str) -> None:
    """Refuse early, with the command to type, where open_clip is not installed.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec("open_clip") is None:
        raise UsageError(f"{name} needs open_clip: pip install 'featurecache[{EXTRA}]'")


class OpenClipEncoder(Encoder):
    """A checkpoint with an ``open_clip_config.json``."""

    aligned = True
    has_images = True
    has_text = True

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """Read the configuration and make the image transform; no weights.

        Raises:
            UsageError: open_clip is not installed.
            CheckpointError: the configuration is malformed.
        """
        require_open_clip(name)
        super().__init__(name=name, device=device, precision=precision)
        self._checkpoint = checkpoint
        self._config = checkpoint.config("open_clip_config.json")
        self._transform = self._make_transform()
        self._network = InferenceNetwork(self._load, device=device, precision=precision)

    @cached_property
    def scale(self) -> float | None:
        """``exp(logit_scale)``."""
        logarithm = self._checkpoint.scalar("logit_scale")
        if logarithm is None:
            raise CheckpointError(f"the weights of {self.name} have no logit_scale")
        return math.exp(logarithm)

    @cached_property
    def bias(self) -> float | None:
        """``logit_bias``; None where the checkpoint has none."""
        return self._checkpoint.scalar("logit_bias")

    @property
    def image_spec(self) -> Mapping[str, Any]:
        """See ``Encoder.image_spec``."""
        libraries = library_versions("torch", "open_clip_torch", "torchvision", "pillow")
        return {**self._description(), "pooling": "encode_image", "libraries": libraries}

    @property
    def text_spec(self) -> Mapping[str, Any]:
        """See ``Encoder.text_spec``."""
        libraries = library_versions("torch", "open_clip_torch", "transformers", "tokenizers")
        return {**self._description(), "pooling": "encode_text", "libraries": libraries}

    def preprocess(self, image: "Image") -> Array:
        """See ``Encoder.preprocess``."""
        pixels: Array = self._transform(image.convert("RGB")).numpy()
        return pixels

    def embed_pixels(self, pixels: Array) -> Array:
        """See ``Encoder.embed_pixels``."""
        with self._network.inference() as network:
            return to_array(network.encode_image(self._network.to_device(pixels)))

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """See ``Encoder.encode_texts``; open_clip pads every text to the context length."""
        rows = []
        with self._network.inference() as network:
            for batch in text_batches(texts):
                tokens = self._tokenizer(batch).to(self.device)
                rows.append(to_array(network.encode_text(tokens)))
        return np.concatenate(rows)

    @property
    def _source(self) -> str:
        return f"local-dir:{self._checkpoint.folder}"

    def _make_transform(self) -> Any:
        from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

        try:
            size = self._config["model_cfg"]["vision_cfg"]["image_size"]
            stated = merge_preprocess_dict(PreprocessCfg(), self._config.get("preprocess_cfg", {}))
            return image_transform_v2(PreprocessCfg(**{**stated, "size": size}), is_train=False)
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self._checkpoint.folder / 'open_clip_config.json'} is malformed: {error!r}"
            ) from error

    @cached_property
    def _tokenizer(self) -> Any:
        from open_clip import get_tokenizer

        try:
            return get_tokenizer(self._source)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"the tokenizer of {self.name} cannot be loaded: {error}"
            ) from error

    def _load(self) -> "torch.nn.Module":
        from open_clip import create_model_from_pretrained

        try:
            network: torch.nn.Module = create_model_from_pretrained(
                self._source, precision="fp32", return_transform=False, weights_only=True
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the weights of {self.name} cannot be loaded: {error}"
            ) from error
        return network

    def _description(self) -> dict[str, Any]:
        # The configuration names the pixels, the tokenizer and the context length.
        return {
            "family": "open_clip",
            "model": self.name,
            "weights": self._checkpoint.weight_hashes,
            "config": self._config,
            "precision": self.precision,
        }
