"""Dual encoders in the shape of CLIP or SigLIP: two towers with one embedding space."""

from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any

from featurecache.encoders.checkpoint import Checkpoint
from featurecache.encoders.trainable import ModuleGroups
from featurecache.encoders.transformers_encoder import TransformersEncoder
from featurecache.encoders.vision import VisionLayout, VisionOutput, map_tokens, recorded
from featurecache.errors import CheckpointError

if TYPE_CHECKING:
    import torch

JOINED = "vision-text-dual-encoder"
JOINED_TOWERS = ("bit", "bert")


class DualEncoder(TransformersEncoder):
    """A model of type ``clip``, ``siglip`` or ``vision-text-dual-encoder``.

    The last joins two networks as CLIP joins its towers: here a BiT, a residual convolutional
    network with group norm, and a BERT. Image size, token length and preprocessing are read from
    the checkpoint. Whether there is a logit bias is read from the weights, because checkpoints
    named after SigLIP exist in CLIP's shape.
    """

    model_types = ("clip", "siglip", JOINED)
    aligned = True
    has_images = True
    has_text = True

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """See ``TransformersEncoder``."""
        super().__init__(checkpoint, name=name, device=device, precision=precision)
        self._is_siglip = self._family == "siglip"
        if self._is_siglip:
            # It pools the last position, which is padding of a short text. A tokenizer of SigLIP 2
            # whose files do not say so would pad on the left.
            self._tokenizer.padding_side = "right"
        self.max_tokens = self._config.text_config.max_position_embeddings
        self.dim = (
            self._config.vision_config.hidden_size
            if self._is_siglip
            else self._config.projection_dim
        )

    def _check_config(self) -> None:
        super()._check_config()
        if self._family != JOINED:
            return
        towers = (self._config.vision_config.model_type, self._config.text_config.model_type)
        if towers != JOINED_TOWERS:
            raise CheckpointError(
                f"{self.name} joins the towers {' and '.join(towers)}; of the {JOINED}s only those "
                f"of {' and '.join(JOINED_TOWERS)} are supported"
            )

    def _image_settings(self) -> dict[str, Any]:
        return {
            "config": self._config_without("text_config"),
            "processor": self._processor.spec,
            "pooling": "image features",
        }

    def _text_settings(self) -> dict[str, Any]:
        return {
            "config": self._config_without("vision_config"),
            "tokenizer": self._tokenizer_spec(
                padding="to max_tokens" if self._is_siglip else "longest, masked",
                lower_case=self._lower_case,
            ),
            "pooling": "text features",
        }

    def _config_without(self, tower: str) -> dict[str, Any]:
        config = self._checkpoint.config()
        config.pop(tower, None)
        return config

    @cached_property
    def _vision_layout(self) -> VisionLayout:
        config = self._config.vision_config
        height, width = self._pixels_shape
        if self._family == JOINED:
            widths = tuple(config.hidden_sizes)
            # The first convolution, the pooling after it and all stages but the first halve a map,
            # down to a limit.
            stride = min(2 ** (len(widths) + 1), config.output_stride)
        else:
            widths = (config.hidden_size,) * config.num_hidden_layers
            stride = config.patch_size
        return VisionLayout(
            widths=widths,
            grid=(height // stride, width // stride),
            class_token=self._family == "clip",
            pooled=None if self._is_siglip else widths[-1],
            projected=self.dim,
        )

    def _vision_output(
        self, network: Any, pixels: "torch.Tensor", layers: Collection[int]
    ) -> VisionOutput:
        tower = network.vision_model
        with recorded(self._blocks(tower), set(layers) - {-1}) as outputs:
            output = tower(pixel_values=pixels)
        last, pooled = output.last_hidden_state, output.pooler_output
        if self._family == JOINED:
            maps = {-1: last, **outputs}
            # Pooled maps have shape (B, D, 1, 1), which transformers' own method would pass on to
            # a linear layer as they are.
            pooled = pooled.flatten(1)
            projected = network.visual_projection(pooled)
            return VisionOutput(
                {layer: map_tokens(one) for layer, one in maps.items()}, pooled, projected
            )
        tokens = {layer: tower.post_layernorm(one) for layer, one in outputs.items()}
        if self._is_siglip:  # its pooling head is the projection
            return VisionOutput({-1: last, **tokens}, projected=pooled)
        if -1 in layers:  # transformers applies CLIP's last layer norm to the class token only
            tokens[-1] = tower.post_layernorm(last)
        return VisionOutput(tokens, pooled, network.visual_projection(pooled))

    def _project_tokens(self, network: Any, tokens: "torch.Tensor") -> "torch.Tensor":
        if self._is_siglip:  # attention over a single token
            pooled: torch.Tensor = network.vision_model.head(tokens.unsqueeze(1))
            return pooled
        projected: torch.Tensor = network.visual_projection(tokens)
        return projected

    def _blocks(self, tower: Any) -> Any:
        return tower.encoder.stages if self._family == JOINED else tower.encoder.layers

    def _batch_text_features(self, network: Any, texts: list[str]) -> "torch.Tensor":
        # SigLIP pools the last position, padding or not, and was trained with every text padded to
        # the full length. CLIP and BERT pool a token of the text itself.
        tokens = self._tokenize(texts, padding="max_length" if self._is_siglip else "longest")
        # SigLIP attends to its padding: the mask that its tokenizer offers would be wrong.
        names = {"input_ids"} if self._is_siglip else {"input_ids", "attention_mask"}
        inputs = {key: value.to(self.device) for key, value in tokens.items() if key in names}
        return _tensor(network.get_text_features(**inputs))

    def _token_counts(self, texts: list[str]) -> list[int]:
        return super()._token_counts(self._normalized(texts))

    def _tokenize(self, texts: list[str], *, padding: str = "longest") -> Any:
        return super()._tokenize(self._normalized(texts), padding=padding)

    def _normalized(self, texts: list[str]) -> list[str]:
        return [text.lower() for text in texts] if self._lower_case else texts

    @property
    def _lower_case(self) -> bool:
        # SigLIP was trained on lower-cased text. The tokenizer of SigLIP 1 does that itself, and
        # removes punctuation. The Gemma tokenizer of SigLIP 2 need not, and keeps punctuation, as
        # its authors do: "lower|tok(model=gemma, eos=sticky)" in big_vision's SigLIP2_demo. (That
        # open_clip removes it from the same texts is a choice of open_clip.)
        return self._is_siglip and self._tokenizer.init_kwargs.get("do_lower_case", True)

    def _module_groups(self, network: Any) -> ModuleGroups:
        tower = network.vision_model
        if self._is_siglip:  # its pooling head is the projection
            return ModuleGroups(
                vision=(tower,),
                blocks=tuple(self._blocks(tower)),
                tail=(tower.post_layernorm, tower.head),
                projections=(tower.head, network.text_model.head),
            )
        norm = tower.norm if self._family == JOINED else tower.post_layernorm
        return ModuleGroups(
            vision=(tower, network.visual_projection),
            blocks=tuple(self._blocks(tower)),
            tail=(norm, network.visual_projection),
            projections=(network.visual_projection, network.text_projection),
        )


def _tensor(features: Any) -> "torch.Tensor":
    """Return the features: a tensor in transformers 4, inside an output object in 5."""
    projected: torch.Tensor = getattr(features, "pooler_output", features)
    return projected
