"""Encoders of two towers, for images and for texts, that meet in one space."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from featurecache.encoders.checkpoint import Checkpoint, tokenizer_files, tokenizer_hashes
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
from featurecache.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

JOINED = "vision-text-dual-encoder"
MODEL_TYPES = ("clip", "siglip", JOINED)
JOINED_TOWERS = ("bit", "bert")


class DualEncoder(Encoder):
    """An encoder whose checkpoint says ``clip``, ``siglip`` or ``vision-text-dual-encoder``.

    The last joins two networks as CLIP joins its own, here a BiT, which is a residual
    convolutional network with group norm, and a BERT. Sizes, token lengths and pixels come from
    the checkpoint. Whether there is a logit bias is asked of its weights: checkpoints named after
    SigLIP exist in CLIP's shape.
    """

    aligned = True
    has_images = True
    has_text = True

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """Read the configuration, the image processor and the tokenizer; no weights.

        Raises:
            CheckpointError: a file is missing or malformed, or the model is of another shape.
        """
        super().__init__(name=name, device=device, precision=precision)
        config = load_config(checkpoint)
        if config.model_type not in MODEL_TYPES:
            raise CheckpointError(
                f"{name} has model_type {config.model_type!r} in its config.json, "
                f"where one of {', '.join(MODEL_TYPES)} is needed"
            )
        if config.model_type == JOINED:
            _check_joined(config, name)
        self._checkpoint = checkpoint
        self._shape: str = config.model_type
        self._max_tokens: int = config.text_config.max_position_embeddings
        self._processor = ImageProcessor(checkpoint.folder)
        self._tokenizer = load_tokenizer(checkpoint.folder)
        self._network = InferenceNetwork(
            lambda: load_network(checkpoint), device=device, precision=precision
        )

    @cached_property
    def scale(self) -> float | None:
        """``exp(logit_scale)``."""
        logarithm = self._checkpoint.scalar("logit_scale")
        if logarithm is None:
            raise CheckpointError(f"the weights of {self.name} have no logit_scale")
        return math.exp(logarithm)

    @cached_property
    def bias(self) -> float | None:
        """``logit_bias``; None for CLIP's shape."""
        return self._checkpoint.scalar("logit_bias")

    @property
    def image_spec(self) -> Mapping[str, Any]:
        """See ``Encoder.image_spec``."""
        config = self._checkpoint.config()
        config.pop("text_config", None)
        return {
            "family": self._shape,
            "model": self.name,
            "weights": self._checkpoint.weight_hashes,
            "config": config,
            "processor": self._processor.description,
            "pooling": "image features",
            "precision": self.precision,
            "libraries": library_versions("torch", "transformers", "pillow"),
        }

    @property
    def text_spec(self) -> Mapping[str, Any]:
        """See ``Encoder.text_spec``."""
        config = self._checkpoint.config()
        config.pop("vision_config", None)
        return {
            "family": self._shape,
            "model": self.name,
            "weights": self._checkpoint.weight_hashes,
            "config": config,
            "tokenizer": {
                "class": type(self._tokenizer).__name__,
                "files": tokenizer_hashes(self._checkpoint.folder),
                "max_tokens": self._max_tokens,
                "padding": "to max_tokens" if self._shape == "siglip" else "longest, masked",
                "padding_side": self._tokenizer.padding_side,
                "lower_case": self._lower_case,
            },
            "pooling": "text features",
            "precision": self.precision,
            "libraries": library_versions("torch", "transformers", "tokenizers"),
        }

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
            return to_array(_embed_images(network, self._network.to_device(pixels)))

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """See ``Encoder.encode_texts``."""
        with self._network.inference() as network:
            return to_array(self._embed_texts(network, texts))

    def trainable(self, *, init_seed: int | None = None) -> TrainableEncoder:
        """See ``Encoder.trainable``."""
        if init_seed is None:
            network = load_network(self._checkpoint)
        else:
            network = random_network(self._checkpoint, seed=init_seed)
        folder = self._checkpoint.folder
        return TrainableEncoder(
            module=network.to(self.device),
            parts=_PARTS[self._shape](network),
            embed_images=partial(_embed_images, network),
            embed_texts=partial(self._embed_texts, network),
            write_network=partial(write_network, network),
            files=(*processor_files(folder), *tokenizer_files(folder)),
        )

    def _embed_texts(self, network: Any, texts: Sequence[str]) -> "torch.Tensor":
        import torch

        batches = (self._tokenize(batch).to(self.device) for batch in text_batches(texts))
        return torch.cat([_tensor(network.get_text_features(**tokens)) for tokens in batches])

    @property
    def _lower_case(self) -> bool:
        # SigLIP was trained on lower-cased text. SigLIP 1's tokenizer does it itself, the Gemma
        # tokenizer of SigLIP 2 does not; done twice it does no harm.
        return self._shape == "siglip" and self._tokenizer.init_kwargs.get("do_lower_case", True)

    def _tokenize(self, texts: list[str]) -> Any:
        if self._lower_case:
            texts = [text.lower() for text in texts]
        tokens = self._tokenizer(
            texts,
            # SigLIP pools the last position, padding or not, and was trained with every text
            # padded to the full length; the others pool a token of the text itself.
            padding="max_length" if self._shape == "siglip" else "longest",
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        )
        # SigLIP attends to its padding: a mask, which its tokenizer offers, would be wrong.
        wanted = ("input_ids",) if self._shape == "siglip" else ("input_ids", "attention_mask")
        for key in tokens.keys() - set(wanted):
            del tokens[key]
        return tokens


def _check_joined(config: Any, name: str) -> None:
    towers = (config.vision_config.model_type, config.text_config.model_type)
    if towers != JOINED_TOWERS:
        raise CheckpointError(
            f"{name} joins the towers {' and '.join(towers)}; of the {JOINED}s only those of "
            f"{' and '.join(JOINED_TOWERS)} are supported"
        )


def _embed_images(network: Any, pixels: "torch.Tensor") -> "torch.Tensor":
    if network.config.model_type == JOINED:
        # Pooled maps have one pixel left, (B, D, 1, 1), which transformers' own method passes on to
        # a linear layer.
        pooled = network.vision_model(pixel_values=pixels).pooler_output.flatten(1)
        embedding: torch.Tensor = network.visual_projection(pooled)
        return embedding
    return _tensor(network.get_image_features(pixel_values=pixels))


def _tensor(features: Any) -> "torch.Tensor":
    """The features themselves (transformers 4) or those in an output object (transformers 5)."""
    projected: torch.Tensor = getattr(features, "pooler_output", features)
    return projected


def _clip_parts(network: Any) -> ModuleGroups:
    tower = network.vision_model
    return ModuleGroups(
        vision=(tower, network.visual_projection),
        blocks=tuple(tower.encoder.layers),
        tail=(tower.post_layernorm, network.visual_projection),
        projections=(network.visual_projection, network.text_projection),
    )


def _siglip_parts(network: Any) -> ModuleGroups:
    tower = network.vision_model
    return ModuleGroups(
        vision=(tower,),
        blocks=tuple(tower.encoder.layers),
        tail=(tower.post_layernorm, tower.head),
        projections=(tower.head, network.text_model.head),
    )


def _joined_parts(network: Any) -> ModuleGroups:
    tower = network.vision_model
    return ModuleGroups(
        vision=(tower, network.visual_projection),
        blocks=tuple(tower.encoder.stages),
        tail=(tower.norm, network.visual_projection),
        projections=(network.visual_projection, network.text_projection),
    )


_PARTS = {"clip": _clip_parts, "siglip": _siglip_parts, JOINED: _joined_parts}
