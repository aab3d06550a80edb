"""Encoders of one modality: a vision transformer, or a BERT with sentence pooling."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from featurecache.encoders.checkpoint import Checkpoint, read_json, tokenizer_hashes
from featurecache.encoders.encoder import Array, Encoder, library_versions, text_batches
from featurecache.encoders.inference import InferenceNetwork, to_array
from featurecache.encoders.pretrained import (
    ImageProcessor,
    load_config,
    load_network,
    load_tokenizer,
    processor_files,
    random_network,
    write_network,
)
from featurecache.encoders.trainable import ModuleGroups, TrainableEncoder
from featurecache.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

VISION_TYPES = ("dinov2", "dinov2_with_registers", "vit")
TEXT_TYPES = ("bert",)

# Modules of published checkpoints that neither the class token nor the mean of the tokens passes
# through. They are not built, and a checkpoint may have them or not.
_UNUSED: Mapping[str, tuple[str, ...]] = {
    "vit": ("pooler.", "classifier."),
    "bert": ("pooler.", "cls."),
}


class _Unimodal(Encoder):
    """What the encoders of one modality share: one checkpoint, no joint space."""

    aligned = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        name: str,
        device: str,
        precision: str,
        model_types: tuple[str, ...],
    ) -> None:
        super().__init__(name=name, device=device, precision=precision)
        self._config = load_config(checkpoint)
        self._shape: str = self._config.model_type
        if self._shape not in model_types:
            raise CheckpointError(
                f"{name} has model_type {self._shape!r} in its config.json, "
                f"where one of {', '.join(model_types)} is needed"
            )
        self._checkpoint = checkpoint
        self._unused = _UNUSED.get(self._shape, ())
        self._options = {"add_pooling_layer": False} if self._unused else {}
        self._network = InferenceNetwork(self._load, device=device, precision=precision)

    @property
    def scale(self) -> float | None:
        """None: one modality has nothing to be compared with."""
        return None

    @property
    def bias(self) -> float | None:
        """None: one modality has nothing to be compared with."""
        return None

    def _load(self) -> "torch.nn.Module":
        return load_network(self._checkpoint, unused=self._unused, **self._options)

    def _description(self) -> dict[str, Any]:
        return {
            "family": self._shape,
            "model": self.name,
            "weights": self._checkpoint.weight_hashes,
            "config": self._checkpoint.config(),
            "precision": self.precision,
        }


class VisionEncoder(_Unimodal):
    """A vision transformer; the embedding is its class token after the last layer norm.

    For DINOv2 that is ``pooler_output``. For ViT it is not: its pooler is a further layer, which
    many checkpoints lack.
    """

    has_images = True
    has_text = False

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """Read the configuration and the image processor; no weights.

        Raises:
            CheckpointError: a file is missing or malformed, or the model is of another shape.
        """
        super().__init__(
            checkpoint, name=name, device=device, precision=precision, model_types=VISION_TYPES
        )
        self._processor = ImageProcessor(checkpoint.folder)

    @property
    def image_spec(self) -> Mapping[str, Any]:
        """See ``Encoder.image_spec``."""
        return {
            **self._description(),
            "processor": self._processor.description,
            "pooling": "class token",
            "libraries": library_versions("torch", "transformers", "pillow"),
        }

    @property
    def text_spec(self) -> Mapping[str, Any]:
        """Refused: there is no text tower."""
        raise self._no_text()

    def preprocess(self, image: "Image") -> Array:
        """See ``Encoder.preprocess``."""
        return self._processor(image)

    @property
    def picklable_preprocess(self) -> "Callable[[Image], Array]":
        """See ``Encoder.picklable_preprocess``."""
        return self._processor.portable

    def embed_pixels(self, pixels: Array) -> Array:
        """See ``Encoder.embed_pixels``."""
        with self._network.inference() as network:
            return to_array(_class_token(network, self._network.to_device(pixels)))

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Refused: there is no text tower."""
        raise self._no_text()

    def trainable(self, *, init_seed: int | None = None) -> TrainableEncoder:
        """See ``Encoder.trainable``."""
        if init_seed is None:
            network = self._load()
        else:
            network = random_network(self._checkpoint, seed=init_seed, **self._options)
        return TrainableEncoder(
            module=network.to(self.device),
            parts=_vision_parts(network),
            embed_images=partial(_class_token, network),
            embed_texts=self._refuse_texts,
            write_network=partial(write_network, network),
            files=processor_files(self._checkpoint.folder),
        )

    def _refuse_texts(self, texts: Sequence[str]) -> "torch.Tensor":
        raise self._no_text()

    def _no_text(self) -> UsageError:
        return UsageError(
            f"{self.name} encodes images only: for texts use an image-text model such as clip, "
            "or the pair dinov2-minilm"
        )


class TextEncoder(_Unimodal):
    """A BERT whose embedding is the mean of its tokens, or its class token, as published.

    ``1_Pooling/config.json`` of the sentence-transformers layout says which; without it, the mean
    over the tokens that are not padding. At most ``max_seq_length`` tokens of
    ``sentence_bert_config.json`` are read, else as many as the network has positions.
    """

    has_images = False
    has_text = True

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """Read the configuration and the tokenizer; no weights.

        Raises:
            CheckpointError: a file is missing or malformed, or the model is of another shape.
        """
        super().__init__(
            checkpoint, name=name, device=device, precision=precision, model_types=TEXT_TYPES
        )
        self._pooling = _published_pooling(checkpoint)
        self._tokenizer = load_tokenizer(checkpoint.folder)
        limits = checkpoint.folder / "sentence_bert_config.json"
        positions: int = self._config.max_position_embeddings
        stated = read_json(limits).get("max_seq_length") if limits.is_file() else None
        self._max_tokens = min(positions, stated or positions)

    @property
    def image_spec(self) -> Mapping[str, Any]:
        """Refused: there is no vision tower."""
        raise self._no_images()

    @property
    def text_spec(self) -> Mapping[str, Any]:
        """See ``Encoder.text_spec``."""
        return {
            **self._description(),
            "tokenizer": {
                "class": type(self._tokenizer).__name__,
                "files": tokenizer_hashes(self._checkpoint.folder),
                "max_tokens": self._max_tokens,
                "padding": "longest, masked",
                "padding_side": self._tokenizer.padding_side,
            },
            "pooling": self._pooling,
            "libraries": library_versions("torch", "transformers", "tokenizers"),
        }

    def preprocess(self, image: "Image") -> Array:
        """Refused: there is no vision tower."""
        raise self._no_images()

    def embed_pixels(self, pixels: Array) -> Array:
        """Refused: there is no vision tower."""
        raise self._no_images()

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """See ``Encoder.encode_texts``."""
        rows = []
        with self._network.inference() as network:
            for batch in text_batches(texts):
                tokens = self._tokenizer(
                    batch,
                    padding="longest",
                    truncation=True,
                    max_length=self._max_tokens,
                    return_tensors="pt",
                ).to(self.device)
                hidden = network(**tokens).last_hidden_state
                if self._pooling == "class token":
                    rows.append(to_array(hidden[:, 0]))
                else:
                    mask = tokens["attention_mask"].unsqueeze(-1)
                    rows.append(to_array((hidden.float() * mask).sum(1) / mask.sum(1)))
        return np.concatenate(rows)

    def _no_images(self) -> UsageError:
        return UsageError(
            f"{self.name} encodes texts only: for images use an image-text model such as clip, "
            "or the pair dinov2-minilm"
        )


def _class_token(network: Any, pixels: "torch.Tensor") -> "torch.Tensor":
    token: torch.Tensor = network(pixel_values=pixels).last_hidden_state[:, 0]
    return token


def _vision_parts(network: Any) -> ModuleGroups:
    # ViT's blocks have moved between releases of transformers 5; DINOv2's have not.
    blocks = network.layers if hasattr(network, "layers") else network.encoder.layer
    return ModuleGroups(
        vision=(network,), blocks=tuple(blocks), tail=(network.layernorm,), projections=()
    )


def _published_pooling(checkpoint: Checkpoint) -> Literal["mean", "class token"]:
    path = checkpoint.folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    modes = {
        key for key, on in read_json(path).items() if key.startswith("pooling_") and on is True
    }
    if modes == {"pooling_mode_mean_tokens"}:
        return "mean"
    if modes == {"pooling_mode_cls_token"}:
        return "class token"
    raise CheckpointError(
        f"{path} asks for {', '.join(sorted(modes)) or 'no pooling'}: only the mean of the tokens "
        "or the class token, alone, is supported"
    )
