"""Encoders that the open_clip library runs, such as BiomedCLIP."""

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from featurecache.encoders.checkpoint import Checkpoint
from featurecache.encoders.checkpoint_encoder import CheckpointEncoder
from featurecache.encoders.encoder import Array, Encoder
from featurecache.encoders.geometry import Geometry
from featurecache.encoders.preprocessing import check_resize
from featurecache.encoders.timm_tokens import TimmTokens
from featurecache.encoders.vision import VisionLayout, VisionOutput, recorded
from featurecache.errors import CheckpointError, UsageError
from featurecache.features import Features

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

EXTRA = "open-clip"

_RESIZE_MODES = {"pad": "longest", "stretch": "squash"}


def require_open_clip(name: str) -> None:
    """Raise with the installation command if open_clip cannot be imported.

    Raises:
        UsageError: open_clip or torchvision, which it needs, is missing or does not fit torch.
    """
    try:
        import open_clip  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"{name} needs open_clip, which cannot be imported ({error}): "
            f"pip install 'featurecache[{EXTRA}]'"
        ) from error


class OpenClipEncoder(CheckpointEncoder):
    """A checkpoint with an ``open_clip_config.json``."""

    aligned = True
    has_images = True
    has_text = True
    _family = "open_clip"
    _image_libraries = ("torch", "open_clip_torch", "torchvision", "pillow")
    _text_libraries = ("torch", "open_clip_torch", "transformers", "tokenizers")
    trainable = Encoder.trainable

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """Read the configuration and create the image transform, but read no weights.

        Raises:
            UsageError: open_clip is not installed.
            CheckpointError: The configuration is malformed.
        """
        require_open_clip(name)
        super().__init__(checkpoint, name=name, device=device, precision=precision)
        self._config = checkpoint.config("open_clip_config.json")
        self._transform = self._make_transform()
        self._source = f"local-dir:{checkpoint.folder}"

    def _spec(self, libraries: tuple[str, ...]) -> dict[str, Any]:
        # The configuration holds the preprocessing, the tokenizer and the context length.
        return {**super()._spec(libraries), "config": self._config}

    def _image_settings(self) -> dict[str, Any]:
        return {"pooling": "encode_image"}

    def _text_settings(self) -> dict[str, Any]:
        return {"pooling": "encode_text"}

    def use_resize(self, resize: str) -> None:
        """See ``Encoder.use_resize``."""
        check_resize(resize)
        self.resize = resize
        self._transform = self._make_transform()

    @property
    def geometry(self) -> Geometry | None:
        """See ``Encoder.geometry``."""
        side, mode = self._settings["size"], self._settings["resize_mode"]
        height, width = (side, side) if isinstance(side, int) else side
        if mode == "shortest":
            if height != width:
                return None
            return Geometry({"shortest_edge": height}, (height, width), round_margins=True)
        return Geometry({"height": height, "width": width}, pad=mode == "longest")

    def preprocess(self, image: "Image") -> Array:
        """See ``Encoder.preprocess``."""
        pixels: Array = self._transform(image.convert("RGB")).numpy()
        return pixels

    @property
    def picklable_preprocess(self) -> "Callable[[Image], Array] | None":
        """None: torchvision's transform would load torch in the subprocess."""
        return None

    @cached_property
    def _skeleton(self) -> Any:
        """The image network on the device "meta"; None if it cannot be built without values."""
        import torch
        from open_clip import CLIP, CLIPTextCfg, CLIPVisionCfg

        settings = {**self._config["model_cfg"]["vision_cfg"], "timm_model_pretrained": False}
        any_text = CLIPTextCfg(vocab_size=1, width=1, heads=1, layers=1)
        try:
            with torch.device("meta"):
                return CLIP(self.dim, CLIPVisionCfg(**settings), any_text).visual.eval()
        except (NotImplementedError, RuntimeError):
            return None

    @cached_property
    def _timm_tokens(self) -> TimmTokens | None:
        """How to get tokens of an image network of timm; None for another one."""
        trunk = getattr(self._skeleton, "trunk", None)
        return None if trunk is None else TimmTokens(trunk, (3, *self._pixels_shape))

    @cached_property
    def _vision_layout(self) -> VisionLayout | None:
        from open_clip.transformer import VisionTransformer

        network = self._skeleton
        if self._timm_tokens is not None:
            trunk, head = network.trunk, network.head
            # Its pooling may be the projection, in the trunk or in the head.
            projects = (len(head) or trunk.num_classes) and not hasattr(head, "pool")
            width = getattr(trunk, "head_hidden_size", trunk.num_features)
            return self._timm_tokens.layout(pooled=width if projects else None, projected=self.dim)
        if not isinstance(network, VisionTransformer):
            return None
        if network.attn_pool is not None or network.pool_type == "none":
            return None  # its last norm is not one of tokens
        blocks, width = network.transformer.resblocks, network.transformer.width
        return VisionLayout(
            widths=(width,) * len(blocks),
            grid=network.grid_size,
            class_token=True,
            pooled=width,
            projected=self.dim,
        )

    def _image_features(
        self, network: Any, pixels: "torch.Tensor", features: Sequence[Features] = ()
    ) -> "torch.Tensor":
        if self._vision_layout is None:
            embedding: torch.Tensor = network.encode_image(pixels)
            return embedding
        return super()._image_features(network, pixels, features)

    def _vision_output(
        self, network: Any, pixels: "torch.Tensor", layers: Collection[int]
    ) -> VisionOutput:
        tower = network.visual
        if self._timm_tokens is not None:
            assert self._vision_layout is not None
            tokens, last = self._timm_tokens.compute(tower.trunk, pixels, layers)
            pooled = None
            if self._vision_layout.pooled:
                pooled = tower.trunk.forward_head(last, pre_logits=True).flatten(1)
            return VisionOutput(tokens, pooled, tower.head(tower.trunk.forward_head(last)))
        with recorded(tower.transformer.resblocks, {*layers, -1}) as outputs:
            projected = network.encode_image(pixels)
        tokens = {layer: tower.ln_post(one) for layer, one in outputs.items()}
        if tower.pool_type == "tok":
            pooled = tokens[-1][:, 0]
        elif tower.final_ln_after_pool:
            pooled = tower.ln_post(outputs[-1][:, 1:].mean(dim=1))
        else:
            pooled = tokens[-1][:, 1:].mean(dim=1)
        return VisionOutput(tokens, pooled, projected)

    def project_tokens(self, tokens: "NDArray[np.floating]") -> Array:
        """See ``Encoder.project_tokens``."""
        pooling = getattr(getattr(self._skeleton, "trunk", None), "global_pool", None)
        is_projected = self._timm_tokens is None or pooling in ("token", "avg")
        if self._vision_layout is None or not is_projected:
            raise UsageError(
                f"{self.name} cannot project patches one by one: use a model such as clip"
            )
        return super().project_tokens(tokens)

    def _project_tokens(self, network: Any, tokens: "torch.Tensor") -> "torch.Tensor":
        tower = network.visual
        if self._timm_tokens is None:
            projected: torch.Tensor = tokens @ tower.proj
        else:
            projected = tower.head(tower.trunk.get_classifier()(tokens))
        return projected

    def _batch_text_features(self, network: Any, texts: list[str]) -> "torch.Tensor":
        # open_clip pads every text to the context length.
        features: torch.Tensor = network.encode_text(self._tokenizer(texts).to(self.device))
        return features

    def _token_counts(self, texts: list[str]) -> list[int]:
        # A tokenizer of Hugging Face is wrapped; open_clip's own has no special tokens yet.
        wrapped = getattr(self._tokenizer, "tokenizer", None)
        if wrapped is None:
            return [len(self._tokenizer.encode(text)) + 2 for text in texts]
        return [len(ids) for ids in wrapped(texts, verbose=False)["input_ids"]]

    def _make_transform(self) -> Any:
        from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

        try:
            model = self._config["model_cfg"]
            self.dim = int(model["embed_dim"])
            self.max_tokens = int(model["text_cfg"].get("context_length", 77))
            settings = merge_preprocess_dict(
                PreprocessCfg(), self._config.get("preprocess_cfg", {})
            )
            settings["size"] = model["vision_cfg"]["image_size"]
            if self.resize != "published":
                settings |= {"resize_mode": _RESIZE_MODES[self.resize], "fill_color": 0}
            self._settings = settings
            return image_transform_v2(PreprocessCfg(**settings), is_train=False)
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

    def _load_network(self) -> Any:
        from open_clip import create_model_from_pretrained

        try:
            return create_model_from_pretrained(
                self._source, precision="fp32", return_transform=False, weights_only=True
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the weights of {self.name} cannot be loaded: {error}"
            ) from error
