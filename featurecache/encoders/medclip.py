"""MedCLIP (Wang et al. 2022, arXiv 2210.10163), read from its published state dict.

Vision: Swin-T, its pooled output projected to 512. Text: BERT-base, the mean over three hidden
states and over all tokens, projected to 512. The package ``medclip`` is not needed.
"""

from collections.abc import Callable, Collection
from functools import cached_property
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
from featurecache.encoders.checkpoint_encoder import CheckpointEncoder
from featurecache.encoders.encoder import Array
from featurecache.encoders.geometry import Geometry
from featurecache.encoders.hub import TOKENIZER_PATTERNS, hub_folder, local_folder
from featurecache.encoders.medclip_download import download_medclip
from featurecache.encoders.medclip_network import (
    EMBEDDING_SIZE,
    HIDDEN_SIZE,
    SIDE,
    SWIN,
    build_network,
    module_groups,
    read_network,
    write_network,
)
from featurecache.encoders.preprocessing import check_resize, pad_to_canvas
from featurecache.encoders.pretrained import load_tokenizer
from featurecache.encoders.seeding import seeded
from featurecache.encoders.trainable import ModuleGroups
from featurecache.encoders.vision import VisionLayout, VisionOutput, recorded

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# Mean and standard deviation of gray values in [0, 1], from MedCLIP's constants.
MEAN = 0.5862785803043838
STD = 0.27950088968644304
MAX_TOKENS = 77
LOG_SCALE_RANGE = (0.0, 4.6052)
"""MedCLIP clamps its learned log scale to at most ln(100)."""
POOLED_STATES = (1, 2, -1)
"""Hidden states of BERT that are averaged."""

PADDED = Geometry({"height": SIDE, "width": SIDE}, pad=True, min_side=SIDE)
"""As published: on a black square of at least the side that the network sees."""

TOKENIZER_NAME = "Bio_ClinicalBERT"
TOKENIZER_HUB_ID = "emilyalsentzer/Bio_ClinicalBERT"


class MedclipEncoder(CheckpointEncoder):
    """MedCLIP-ViT.

    Its mean over tokens has no mask, so a text embedding depends on the padding of its batch. Here
    each text is encoded alone, without padding: the only way that is independent of other texts.
    """

    aligned = True
    has_images = True
    has_text = True
    dim = EMBEDDING_SIZE
    max_tokens = MAX_TOKENS
    _family = "medclip"
    _log_scale_range = LOG_SCALE_RANGE

    def _spec(self, libraries: tuple[str, ...]) -> dict[str, Any]:
        config = {"vision": "swin-tiny-patch4-window7-224", "text": "bert-base"}
        return {**super()._spec(libraries), "config": config}

    def _image_settings(self) -> dict[str, Any]:
        return {
            "processor": {
                "class": "medclip",
                "config": {
                    "pad": "centered on a black square",
                    "side": SIDE,
                    "resample": "bicubic",
                    "mean": MEAN,
                    "std": STD,
                },
            },
            "pooling": "pooler output, projected",
        }

    def _text_settings(self) -> dict[str, Any]:
        return {
            "tokenizer": {
                "class": type(self._tokenizer).__name__,
                "files": tokenizer_hashes(self._tokenizer_folder),
                "max_tokens": MAX_TOKENS,
                "padding": "none: each text alone",
                "lower_case": self._lower_case,
            },
            "pooling": "unmasked mean of hidden states 1, 2 and last, projected",
        }

    def use_resize(self, resize: str) -> None:
        """See ``Encoder.use_resize``. As published, MedCLIP pads."""
        check_resize(resize)
        self.resize = "stretch" if resize == "stretch" else "published"

    @property
    def geometry(self) -> Geometry:
        """See ``Encoder.geometry``."""
        return PADDED if self.resize == "published" else Geometry(PADDED.size)

    def preprocess(self, image: "Image") -> Array:
        """See ``Encoder.preprocess``."""
        return self.picklable_preprocess(image)

    @property
    def picklable_preprocess(self) -> "Callable[[Image], Array]":
        """See ``Encoder.picklable_preprocess``."""
        return _preprocess if self.resize == "published" else _normalize

    @cached_property
    def _vision_layout(self) -> VisionLayout:
        stages = range(len(SWIN["depths"]))
        side = SIDE // SWIN["patch_size"] // 2 ** stages[-1]
        return VisionLayout(
            widths=tuple(SWIN["embed_dim"] * 2**stage for stage in stages),
            grid=(side, side),
            class_token=False,
            pooled=HIDDEN_SIZE,
            projected=EMBEDDING_SIZE,
        )

    def _vision_output(
        self, network: Any, pixels: "torch.Tensor", layers: Collection[int]
    ) -> VisionOutput:
        tower = network["vision_model"]
        # The last block of each stage, before its patches are merged for the next stage, whose
        # width the last layer norm does not fit.
        blocks = [stage.blocks[-1] for stage in tower["model"].encoder.layers]
        with recorded(blocks, set(layers) - {-1}) as outputs:
            output = tower["model"](pixels)
        pooled = output.pooler_output
        return VisionOutput(
            {-1: output.last_hidden_state, **outputs}, pooled, tower["projection_head"](pooled)
        )

    def _project_tokens(self, network: Any, tokens: "torch.Tensor") -> "torch.Tensor":
        projected: torch.Tensor = network["vision_model"]["projection_head"](tokens)
        return projected

    def _batch_text_features(self, network: Any, texts: list[str]) -> "torch.Tensor":
        import torch

        tower = network["text_model"]
        rows = []
        for text in texts:
            tokens = self._tokenizer(
                text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            ).to(self.device)
            states = tower["model"](**tokens, output_hidden_states=True).hidden_states
            means = [states[layer].mean(dim=1) for layer in POOLED_STATES]
            rows.append(tower["projection_head"](torch.stack(means).mean(dim=0)))
        return torch.cat(rows)

    def _token_counts(self, texts: list[str]) -> list[int]:
        return [len(ids) for ids in self._tokenizer(texts, verbose=False)["input_ids"]]

    def _load_network(self) -> Any:
        return read_network(self._checkpoint)

    def _random_network(self, seed: int) -> Any:
        with seeded(seed):
            return build_network()

    def _module_groups(self, network: Any) -> ModuleGroups:
        return module_groups(network)

    def _write_network(self, network: Any, folder: Path) -> None:
        write_network(network, folder)

    def _companion_files(self) -> tuple[Path, ...]:
        return tokenizer_files(self._tokenizer_folder)

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
        # The vocabulary of Bio_ClinicalBERT is cased, but as published it has no
        # tokenizer_config.json, so transformers lower-cased: MedCLIP was trained on lower-cased
        # text. It is set explicitly because transformers 5.0 has the other default.
        path = self._tokenizer_folder / "tokenizer_config.json"
        return bool(read_json(path).get("do_lower_case", True)) if path.is_file() else True

    @cached_property
    def _tokenizer(self) -> Any:
        # The class is named because a vocabulary without config.json does not tell its model.
        return load_tokenizer(
            self._tokenizer_folder, class_name="BertTokenizer", do_lower_case=self._lower_case
        )


def _preprocess(image: "Image") -> Array:
    return _normalize(pad_to_canvas(image.convert("L"), PADDED.padded(*image.size)))


def _normalize(image: "Image") -> Array:
    from PIL.Image import Resampling

    resized = image.convert("L").resize((SIDE, SIDE), Resampling.BICUBIC)
    values = np.asarray(resized, dtype=np.float32)
    plane = (values / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return np.repeat(plane[np.newaxis], 3, axis=0)


def find_medclip(weights: Path | None) -> Checkpoint:
    """Find MedCLIP's weights: ``weights``, else ``$FEATURECACHE_MODELS/medclip``, else download.

    Args:
        weights: A weight file, or a folder that holds ``model.safetensors`` or
            ``pytorch_model.bin`` directly or one level below.

    Raises:
        CheckpointError: Nothing was found and the download failed.
    """
    path = weights or local_folder("medclip")
    if path is None:
        return open_checkpoint(download_medclip(), MEDCLIP)
    if path.is_file():
        return Checkpoint(path.parent, (path,))
    subfolders = {file.parent for name in MEDCLIP.weights for file in path.glob(f"*/{name}")}
    if len(subfolders) == 1 and not any((path / name).is_file() for name in MEDCLIP.weights):
        path = subfolders.pop()
    return open_checkpoint(path, MEDCLIP)
