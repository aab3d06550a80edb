"""Encoders of one modality: a vision transformer, or a BERT with sentence pooling."""

from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from featurecache.encoders.checkpoint import Checkpoint, read_json
from featurecache.encoders.encoder import Encoder
from featurecache.encoders.trainable import ModuleGroups
from featurecache.encoders.transformers_encoder import TransformersEncoder
from featurecache.encoders.vision import VisionLayout, VisionOutput, recorded
from featurecache.errors import CheckpointError

if TYPE_CHECKING:
    import torch


class VisionEncoder(TransformersEncoder):
    """A vision transformer; the embedding is its class token after the last layer norm.

    For DINOv2 that is ``pooler_output``. For ViT it is not: its pooler is a further layer, which
    many checkpoints lack.
    """

    model_types = ("dinov2", "dinov2_with_registers", "vit")

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """See ``TransformersEncoder``."""
        super().__init__(checkpoint, name=name, device=device, precision=precision)
        if self._family == "vit":
            self._unused = ("pooler.", "classifier.")
        self.dim = self._config.hidden_size

    def _image_settings(self) -> dict[str, Any]:
        return {
            "config": self._checkpoint.config(),
            "processor": self._processor.spec,
            "pooling": "class token",
        }

    @cached_property
    def _vision_layout(self) -> VisionLayout:
        height, width = self._pixels_shape
        patch = self._config.patch_size
        return VisionLayout(
            widths=(self._config.hidden_size,) * self._config.num_hidden_layers,
            grid=(height // patch, width // patch),
            class_token=True,
            pooled=self._config.hidden_size,
        )

    def _vision_output(
        self, network: Any, pixels: "torch.Tensor", layers: Collection[int]
    ) -> VisionOutput:
        first_patch = 1 + getattr(self._config, "num_register_tokens", 0)

        def tokens(hidden: "torch.Tensor") -> "torch.Tensor":
            import torch

            if first_patch == 1:
                return hidden
            return torch.cat([hidden[:, :1], hidden[:, first_patch:]], dim=1)

        with recorded(self._blocks(network), set(layers) - {-1}) as outputs:
            last = network(pixel_values=pixels).last_hidden_state
        earlier = {layer: tokens(network.layernorm(one)) for layer, one in outputs.items()}
        return VisionOutput({-1: tokens(last), **earlier}, pooled=last[:, 0])

    def _blocks(self, network: Any) -> Any:
        # ViT's blocks have moved between releases of transformers 5; DINOv2's have not.
        return network.layers if hasattr(network, "layers") else network.encoder.layer

    def _module_groups(self, network: Any) -> ModuleGroups:
        blocks = tuple(self._blocks(network))
        return ModuleGroups(
            vision=(network,), blocks=blocks, tail=(network.layernorm,), projections=()
        )


class TextEncoder(TransformersEncoder):
    """A BERT whose embedding is the mean of its tokens, or its class token, as published.

    ``1_Pooling/config.json`` of the sentence-transformers layout says which; without it, the mean
    over the tokens that are not padding. Texts are truncated to ``max_seq_length`` tokens of
    ``sentence_bert_config.json``, else to the number of positions of the network.
    """

    model_types = ("bert",)
    has_images = False
    has_text = True
    _unused = ("pooler.", "cls.")
    trainable = Encoder.trainable

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """See ``TransformersEncoder``."""
        super().__init__(checkpoint, name=name, device=device, precision=precision)
        self._pooling = _published_pooling(checkpoint)
        limits = checkpoint.folder / "sentence_bert_config.json"
        positions: int = self._config.max_position_embeddings
        published = read_json(limits).get("max_seq_length") if limits.is_file() else None
        self.max_tokens = min(positions, published or positions)
        self.dim = self._config.hidden_size

    def _text_settings(self) -> dict[str, Any]:
        return {
            "config": self._checkpoint.config(),
            "tokenizer": self._tokenizer_spec(padding="longest, masked"),
            "pooling": self._pooling,
        }

    def _batch_text_features(self, network: Any, texts: list[str]) -> "torch.Tensor":
        tokens = self._tokenize(texts).to(self.device)
        hidden: torch.Tensor = network(**tokens).last_hidden_state
        if self._pooling == "class token":
            return hidden[:, 0]
        mask = tokens["attention_mask"].unsqueeze(-1)
        mean: torch.Tensor = (hidden.float() * mask).sum(1) / mask.sum(1)
        return mean


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
