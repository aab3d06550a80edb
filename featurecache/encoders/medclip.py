"""MedCLIP (Wang et al. 2022, arXiv 2210.10163) from its published state dict, without its package.

Vision: Swin-T, its pooled output projected to 512. Text: BERT-base, the mean over three hidden
states and over all tokens, projected to 512.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.encoders.checkpoint import (
    MEDCLIP,
    Checkpoint,
    has_vocabulary,
    open_checkpoint,
    read_json,
    tokenizer_files,
    tokenizer_hashes,
)
from featurecache.encoders.encoder import Array, Encoder, library_versions, text_batches
from featurecache.encoders.hub import TOKENIZER_PATTERNS, hub_folder, local_folder
from featurecache.encoders.inference import InferenceNetwork, to_array
from featurecache.encoders.medclip_download import download_medclip
from featurecache.encoders.medclip_network import (
    SIDE,
    build_network,
    network_parts,
    read_network,
    write_network,
)
from featurecache.encoders.pretrained import load_tokenizer
from featurecache.encoders.seeding import seeded
from featurecache.encoders.trainable import TrainableEncoder
from featurecache.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# Mean and deviation of grey values in [0, 1], from MedCLIP's constants.
MEAN = 0.5862785803043838
DEVIATION = 0.27950088968644304
MAX_TOKENS = 77
# MedCLIP clamps its learned logarithm to at most ln(100) before the exponential.
LOGIT_SCALE_RANGE = (0.0, 4.6052)
POOLED_STATES = (1, 2, -1)

TOKENIZER_NAME = "Bio_ClinicalBERT"
TOKENIZER_HUB_ID = "emilyalsentzer/Bio_ClinicalBERT"


class MedclipEncoder(Encoder):
    """MedCLIP-ViT.

    Its text mean has no mask, so an embedding depends on the padding beside it. Here every text
    is encoded alone, without any padding: the one way that does not depend on the other prompts.
    """

    aligned = True
    has_images = True
    has_text = True

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """Keep the place of the weights; read nothing."""
        super().__init__(name=name, device=device, precision=precision)
        self._checkpoint = checkpoint
        self._network = InferenceNetwork(
            lambda: read_network(checkpoint), device=device, precision=precision
        )

    @cached_property
    def scale(self) -> float | None:
        """``exp(logit_scale)``, the logarithm clamped to [0, 4.6052] as in training."""
        logarithm = self._checkpoint.scalar("logit_scale")
        if logarithm is None:
            raise CheckpointError(f"{self._checkpoint.weights[0]} has no logit_scale")
        lowest, highest = LOGIT_SCALE_RANGE
        return math.exp(min(max(logarithm, lowest), highest))

    @property
    def bias(self) -> float | None:
        """None: MedCLIP has no logit bias."""
        return None

    @property
    def image_spec(self) -> Mapping[str, Any]:
        """See ``Encoder.image_spec``."""
        return {
            **self._description(),
            "processor": {
                "class": "medclip",
                "config": {
                    "pad": "centred on a black square",
                    "side": SIDE,
                    "resample": "bicubic",
                    "mean": MEAN,
                    "std": DEVIATION,
                },
            },
            "pooling": "pooler output, projected",
            "libraries": library_versions("torch", "transformers", "pillow"),
        }

    @property
    def text_spec(self) -> Mapping[str, Any]:
        """See ``Encoder.text_spec``."""
        return {
            **self._description(),
            "tokenizer": {
                "class": type(self._tokenizer).__name__,
                "files": tokenizer_hashes(self._tokenizer_folder),
                "max_tokens": MAX_TOKENS,
                "padding": "none: each text alone",
                "lower_case": self._lower_case,
            },
            "pooling": "unmasked mean of hidden states 1, 2 and last, projected",
            "libraries": library_versions("torch", "transformers", "tokenizers"),
        }

    def preprocess(self, image: "Image") -> Array:
        """See ``Encoder.preprocess``."""
        return _preprocess(image)

    @property
    def picklable_preprocess(self) -> "Callable[[Image], Array]":
        """See ``Encoder.picklable_preprocess``."""
        return _preprocess

    def embed_pixels(self, pixels: Array) -> Array:
        """See ``Encoder.embed_pixels``."""
        with self._network.inference() as network:
            return to_array(_embed_images(network, self._network.to_device(pixels)))

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """See ``Encoder.encode_texts``."""
        with self._network.inference() as network:
            return to_array(self._embed_texts(network, texts))

    def trainable(self, *, init_seed: int | None = None) -> TrainableEncoder:
        """See ``Encoder.trainable``; the tokenizer's files must be at hand, to be saved with it."""
        files = tokenizer_files(self._tokenizer_folder)
        if init_seed is None:
            network = read_network(self._checkpoint)
        else:
            with seeded(init_seed):
                network = build_network()
        return TrainableEncoder(
            module=network.to(self.device),
            parts=network_parts(network),
            embed_images=partial(_embed_images, network),
            embed_texts=partial(self._embed_texts, network),
            write_network=partial(write_network, network),
            files=files,
            log_scale_range=LOGIT_SCALE_RANGE,
        )

    def _embed_texts(self, network: Any, texts: Sequence[str]) -> "torch.Tensor":
        import torch

        tower = network["text_model"]
        rows = []
        for text in (text for batch in text_batches(texts) for text in batch):
            tokens = self._tokenizer(
                text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            ).to(self.device)
            states = tower["model"](**tokens, output_hidden_states=True).hidden_states
            means = [states[layer].mean(dim=1) for layer in POOLED_STATES]
            rows.append(tower["projection_head"](torch.stack(means).mean(dim=0)))
        return torch.cat(rows)

    @cached_property
    def _tokenizer_folder(self) -> Path:
        folder = self._checkpoint.folder
        if has_vocabulary(folder):
            return folder
        local = local_folder(TOKENIZER_NAME)
        return local or hub_folder(
            TOKENIZER_NAME, TOKENIZER_HUB_ID, patterns=list(TOKENIZER_PATTERNS)
        )

    @cached_property
    def _lower_case(self) -> bool:
        # Bio_ClinicalBERT's vocabulary is cased, but as published it has no tokenizer_config.json,
        # so that transformers lower-cased: MedCLIP was trained on lower-cased text. It is stated
        # here because transformers 5.0 has the other default.
        path = self._tokenizer_folder / "tokenizer_config.json"
        return bool(read_json(path).get("do_lower_case", True)) if path.is_file() else True

    @cached_property
    def _tokenizer(self) -> Any:
        # Named, since without a config.json beside it the vocabulary does not say whose it is.
        return load_tokenizer(
            self._tokenizer_folder, class_name="BertTokenizer", do_lower_case=self._lower_case
        )

    def _description(self) -> dict[str, Any]:
        return {
            "family": "medclip",
            "model": self.name,
            "weights": self._checkpoint.weight_hashes,
            "config": {"vision": "swin-tiny-patch4-window7-224", "text": "bert-base"},
            "precision": self.precision,
        }


def _preprocess(image: "Image") -> Array:
    from PIL import Image
    from PIL.Image import Resampling

    grey = image.convert("L")
    side = max(SIDE, *grey.size)
    square = Image.new("L", (side, side), 0)
    square.paste(grey, ((side - grey.width) // 2, (side - grey.height) // 2))
    values = np.asarray(square.resize((SIDE, SIDE), Resampling.BICUBIC), dtype=np.float32)
    plane = (values / np.float32(255) - np.float32(MEAN)) / np.float32(DEVIATION)
    return np.repeat(plane[np.newaxis], 3, axis=0)


def _embed_images(network: Any, pixels: "torch.Tensor") -> "torch.Tensor":
    tower = network["vision_model"]
    embedding: torch.Tensor = tower["projection_head"](tower["model"](pixels).pooler_output)
    return embedding


def find_medclip(weights: Path | None) -> Checkpoint:
    """Find MedCLIP's weights: ``weights``, else ``$FEATURECACHE_MODELS/medclip``, else its zip.

    Args:
        weights: a weight file, or a folder that holds ``model.safetensors`` or
            ``pytorch_model.bin`` directly or one level below.

    Raises:
        CheckpointError: nothing was found and the download failed.
    """
    place = weights or local_folder("medclip")
    if place is None:
        return open_checkpoint(download_medclip(), MEDCLIP)
    if place.is_file():
        return Checkpoint(place.parent, (place,))
    below = {path.parent for name in MEDCLIP.weights for path in place.glob(f"*/{name}")}
    if len(below) == 1 and not any((place / name).is_file() for name in MEDCLIP.weights):
        place = below.pop()
    return open_checkpoint(place, MEDCLIP)
