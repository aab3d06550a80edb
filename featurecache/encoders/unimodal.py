"""Encoders of one modality: a vision network, or a BERT with sentence pooling."""

from collections.abc import Collection, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from featurecache.encoders.checkpoint import Checkpoint, read_json
from featurecache.encoders.encoder import Encoder
from featurecache.encoders.trainable import ModuleGroups
from featurecache.encoders.transformers_encoder import TransformersEncoder
from featurecache.encoders.vision import VisionLayout, VisionOutput, map_tokens, recorded
from featurecache.errors import CheckpointError

if TYPE_CHECKING:
    import torch

_UNUSED = {
    "clip_vision_model": ("visual_projection.",),
    "ijepa": ("pooler.", "classifier."),
    "vit": ("pooler.", "classifier."),
    "vit_mae": ("decoder.",),
}
"""Prefixes of weights beside the vision transformer, by model type."""

_POOLING = {
    "ijepa": "mean of the patch tokens",
    "siglip_vision_model": "attention pooling",
}
"""The pooling where it is not the class token, by model type."""


class VisionEncoder(TransformersEncoder):
    """A vision transformer; the embedding is what its authors pool its tokens to.

    For most that is the class token after the last layer norm. (ViT's pooler is a further layer,
    which many checkpoints lack.) I-JEPA has no class token: its embedding is the mean of the patch
    tokens, and SigLIP's is that of its attention pooling. A masked autoencoder sees all patches, in
    their order: masking them at random is part of its training.
    """

    model_types = (
        "clip_vision_model",
        "dinov2",
        "dinov2_with_registers",
        "dinov3_vit",
        "ijepa",
        "siglip_vision_model",
        "vit",
        "vit_mae",
    )

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """See ``TransformersEncoder``."""
        super().__init__(checkpoint, name=name, device=device, precision=precision)
        self._unused = _UNUSED.get(self._family, ())
        if self._family in ("ijepa", "vit"):
            self._options = {"add_pooling_layer": False}
        self._class_token = self._family not in ("ijepa", "siglip_vision_model")
        if not getattr(self._config, "vision_use_head", True):
            raise CheckpointError(
                f"{name} has no pooling head (vision_use_head in its config.json), so it is not "
                "known what its embedding is: give a checkpoint with one"
            )
        self.dim = self._config.hidden_size

    def _image_settings(self) -> dict[str, Any]:
        return {
            "config": self._checkpoint.config(),
            "processor": self._processor.spec,
            "pooling": _POOLING.get(self._family, "class token"),
        }

    @cached_property
    def _vision_layout(self) -> VisionLayout:
        height, width = self._pixels_shape
        patch = self._config.patch_size
        return VisionLayout(
            widths=(self._config.hidden_size,) * self._config.num_hidden_layers,
            grid=(height // patch, width // patch),
            class_token=self._class_token,
            pooled=self._config.hidden_size,
        )

    def _vision_output(
        self, network: Any, pixels: "torch.Tensor", layers: Collection[int]
    ) -> VisionOutput:
        n_registers = getattr(self._config, "num_register_tokens", 0)

        def tokens(hidden: "torch.Tensor") -> "torch.Tensor":
            import torch

            if not n_registers:
                return hidden
            return torch.cat([hidden[:, :1], hidden[:, 1 + n_registers :]], dim=1)

        norm = self._norm(network)
        with recorded(self._blocks(network), set(layers) - {-1}) as outputs:
            output = network(pixel_values=pixels, **self._forward_options(network, pixels))
        last = output.last_hidden_state
        all_tokens = {layer: tokens(norm(one)) for layer, one in outputs.items()}
        if self._family != "clip_vision_model":
            all_tokens[-1] = tokens(last)
        elif -1 in layers:  # transformers applies CLIP's last layer norm to the class token only
            all_tokens[-1] = norm(last)
        if self._family == "ijepa":
            pooled = last.mean(dim=1)
        elif self._family.endswith("_vision_model"):
            pooled = output.pooler_output
        else:
            pooled = last[:, 0]
        return VisionOutput(all_tokens, pooled)

    def _forward_options(self, network: Any, pixels: "torch.Tensor") -> dict[str, Any]:
        if self._family != "vit_mae":
            return {}
        import torch

        # Patches are sorted by this "noise", and as many as ``mask_ratio`` says are dropped.
        network.config.mask_ratio = 0.0
        n_patches = network.embeddings.patch_embeddings.num_patches
        order = torch.arange(n_patches, dtype=torch.float32, device=pixels.device)
        return {"noise": order.expand(pixels.shape[0], n_patches)}

    def _tower(self, network: Any) -> Any:
        # Where CLIP's and SigLIP's modules are inside in transformers 5.0.
        return getattr(network, "vision_model", network)

    def _blocks(self, network: Any) -> Any:
        # The blocks of some have moved between releases of transformers 5.
        for names in ("layers", "layer", "encoder.layers", "encoder.layer", "model.layer"):
            module = self._tower(network)
            for name in names.split("."):
                module = getattr(module, name, None)
            if module is not None:
                return module
        raise CheckpointError(f"{self.name}: this release of transformers is not supported")

    def _norm(self, network: Any) -> Any:
        tower = self._tower(network)
        names = ("layernorm", "post_layernorm", "norm")
        return next(getattr(tower, name) for name in names if hasattr(tower, name))

    def _module_groups(self, network: Any) -> ModuleGroups:
        head = (self._tower(network).head,) if self._family == "siglip_vision_model" else ()
        return ModuleGroups(
            vision=(network,),
            blocks=tuple(self._blocks(network)),
            tail=(self._norm(network), *head),
            projections=(),
        )


class ConvNextEncoder(TransformersEncoder):
    """A DINOv3 ConvNeXt; the embedding is the mean of its last map, after the last layer norm."""

    model_types = ("dinov3_convnext",)

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """See ``TransformersEncoder``."""
        super().__init__(checkpoint, name=name, device=device, precision=precision)
        self.dim = self._config.hidden_sizes[-1]

    def _image_settings(self) -> dict[str, Any]:
        return {
            "config": self._checkpoint.config(),
            "processor": self._processor.spec,
            "pooling": "mean of the last map",
        }

    @cached_property
    def _vision_layout(self) -> VisionLayout:
        height, width = self._pixels_shape
        widths = tuple(self._config.hidden_sizes)
        stride = 2 ** (len(widths) + 1)  # the stem has 4, each further stage 2
        return VisionLayout(
            widths=widths,
            grid=(height // stride, width // stride),
            class_token=False,
            pooled=widths[-1],
        )

    def _vision_output(
        self, network: Any, pixels: "torch.Tensor", layers: Collection[int]
    ) -> VisionOutput:
        with recorded(self._stages(network), set(layers) - {-1}) as outputs:
            last = network(pixel_values=pixels).last_hidden_state
        # Its first token is the mean of the map. The norm fits the width of the last stage only.
        earlier = {layer: map_tokens(maps) for layer, maps in outputs.items()}
        return VisionOutput({-1: last[:, 1:], **earlier}, pooled=last[:, 0])

    def _stages(self, network: Any) -> Any:
        return getattr(network, "model", network).stages

    def _module_groups(self, network: Any) -> ModuleGroups:
        return ModuleGroups(
            vision=(network,),
            blocks=tuple(self._stages(network)),
            tail=(network.layer_norm,),
            projections=(),
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
    _options: Mapping[str, Any] = MappingProxyType({"add_pooling_layer": False})
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
