"""Encoders that the timm library runs: any of its networks, from a folder in its own layout."""

import difflib
import sys
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from featurecache.encoders.checkpoint import Checkpoint, check_keys, read_tensors
from featurecache.encoders.checkpoint_encoder import CheckpointEncoder
from featurecache.encoders.encoder import Array, Encoder
from featurecache.encoders.geometry import Geometry
from featurecache.encoders.preprocessing import Preprocessing, check_resize, timm_preprocessing
from featurecache.encoders.timm_tokens import TimmTokens
from featurecache.encoders.vision import VisionLayout, VisionOutput
from featurecache.errors import CheckpointError, UsageError
from featurecache.features import Features

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

EXTRA: Final = "timm"


def require_timm(name: str) -> None:
    """Raise with the installation command if timm cannot be imported.

    Raises:
        UsageError: timm or torchvision, which it needs, is missing or does not fit torch.
    """
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"{name} needs timm, which cannot be imported ({error}): "
            f"pip install 'featurecache[{EXTRA}]'"
        ) from error


def hub_id_of(name: str) -> str:
    """Return the Hugging Face repository that holds the weights of a model of timm.

    Args:
        name: Name of a model as timm lists it, such as ``vit_base_patch16_224.augreg_in21k``.

    Raises:
        UsageError: timm is not installed, or has no such model, or no weights of it on the hub.
    """
    require_timm(f"timm:{name}")
    import timm

    if "/" in name:
        repository = name.rpartition(":")[2]
        raise UsageError(f"{name} is no name of timm: for a repository on the hub, hf:{repository}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        config = None
        reason = f": {error}"
    else:
        reason = ""
    if config is None:
        near = difflib.get_close_matches(name, timm.list_models(pretrained=True), n=1)
        hint = f"; did you mean timm:{near[0]}?" if near else ""
        raise UsageError(f"timm has no model {name!r}{reason}{hint}")
    hub_id: str = config.hf_hub_id or ""
    if not hub_id.startswith("timm/"):
        raise UsageError(
            f"timm has no weights of {name} in its own layout on the hub: give a folder of them as "
            "`weights`"
        )
    return hub_id


class TimmEncoder(CheckpointEncoder):
    """A network of timm; the embedding is what its classifier gets: ``pre_logits`` of its head.

    ``config.json`` says the architecture and the preprocessing, as timm writes it for the hub
    (``architecture``, ``model_args``, ``pretrained_cfg``). A network for one channel sees the gray
    values of the image.
    """

    _family = "timm"
    _image_libraries = ("torch", "timm", "pillow")
    trainable = Encoder.trainable

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """Read the configuration and build the network without weights.

        Raises:
            UsageError: timm is not installed.
            CheckpointError: timm has no such architecture, or its preprocessing is not supported.
        """
        require_timm(name)
        import torch
        from timm.data import resolve_data_config

        super().__init__(checkpoint, name=name, device=device, precision=precision)
        self._config = checkpoint.config()
        with torch.device("meta"):
            self._skeleton = self._build()
        self._data_config = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in resolve_data_config(
                pretrained_cfg=dict(self._skeleton.pretrained_cfg)
            ).items()
        }
        self._n_channels = int(self._data_config["input_size"][0])
        self._published = timm_preprocessing(self._data_config, source=name)
        self._preprocess: Preprocessing = self._published
        self.dim = int(getattr(self._skeleton, "head_hidden_size", self._skeleton.num_features))

    def _build(self) -> Any:
        import timm

        try:
            return timm.create_model(
                f"local-dir:{self._checkpoint.folder}", pretrained=False
            ).eval()
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"timm cannot build the network of {self._checkpoint.folder / 'config.json'}: "
                f"{error}"
            ) from error

    def _image_settings(self) -> dict[str, Any]:
        return {
            "config": self._config,
            "processor": {"class": "timm", "config": self._data_config},
            "pooling": "pre_logits",
        }

    def use_resize(self, resize: str) -> None:
        """See ``Encoder.use_resize``."""
        check_resize(resize)
        resized = self._published.resized(resize)
        is_same = resized.geometry == self._published.geometry
        self.resize = "published" if is_same else resize
        self._preprocess = self._published if is_same else resized

    @property
    def geometry(self) -> Geometry:
        """See ``Encoder.geometry``."""
        return self._preprocess.geometry

    def preprocess(self, image: "Image") -> Array:
        """See ``Encoder.preprocess``."""
        return self._preprocess(image)

    @property
    def picklable_preprocess(self) -> "Callable[[Image], Array]":
        """See ``Encoder.picklable_preprocess``."""
        return self._preprocess

    @cached_property
    def _vision_layout(self) -> VisionLayout | None:
        return self._tokens.layout(pooled=self.dim)

    @cached_property
    def _tokens(self) -> TimmTokens:
        return TimmTokens(self._skeleton, (self._n_channels, *self._pixels_shape))

    def _image_features(
        self, network: Any, pixels: "torch.Tensor", features: Sequence[Features] = ()
    ) -> "torch.Tensor":
        if self._vision_layout is None:
            return self._pooled(network, network.forward_features(self._channels(pixels)))
        return super()._image_features(network, pixels, features)

    def _vision_output(
        self, network: Any, pixels: "torch.Tensor", layers: Collection[int]
    ) -> VisionOutput:
        tokens, last = self._tokens.compute(network, self._channels(pixels), layers)
        return VisionOutput(tokens, self._pooled(network, last))

    def _channels(self, pixels: "torch.Tensor") -> "torch.Tensor":
        # All three have the same gray values if the network sees one.
        return pixels[:, : self._n_channels]

    def _pooled(self, network: Any, features: "torch.Tensor") -> "torch.Tensor":
        pooled: torch.Tensor = network.forward_head(features, pre_logits=True)
        return pooled.flatten(1)

    def _load_network(self) -> Any:
        self._checkpoint.require_weights()
        network = self._build()
        state = {
            key: tensor
            for path in self._checkpoint.weights
            for key, tensor in read_tensors(path).items()
        }
        load_weights(network, state, source=str(self._checkpoint.folder))
        return network


def load_weights(network: Any, state: "dict[str, torch.Tensor]", *, source: str) -> None:
    """Load a state dict into a network of timm; every weight must fit.

    Those of a classifier are left out if the network has none.

    Args:
        network: The network.
        state: The weights, with timm's names, or with those that timm knows to rename.
        source: Where they come from, for messages.

    Raises:
        CheckpointError: A key is missing or unexpected, or a tensor has another shape.
    """
    expected = network.state_dict()
    if state.keys() != expected.keys():
        adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        state = state if adapt is None else adapt(state, network)
    if not network.num_classes:
        names = network.pretrained_cfg.get("classifier") or ()
        classifiers = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
        state = {key: one for key, one in state.items() if not key.startswith(classifiers)}
    check_keys(
        source,
        missing=expected.keys() - state.keys(),
        unexpected=state.keys() - expected.keys(),
    )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # a tensor of another shape
        raise CheckpointError(f"the weights in {source} do not fit: {error}") from error
