"""The base of all encoders whose network is read from a checkpoint."""

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.checkpoint import Checkpoint
from featurecache.encoders.encoder import Array, Encoder, library_versions, text_batches
from featurecache.encoders.geometry import Geometry
from featurecache.encoders.inference import InferenceNetwork, to_array, weights_dtype
from featurecache.encoders.openvino import (
    OPENVINO_LIBRARIES,
    OpenVinoNetwork,
    has_openvino,
    require_openvino,
)
from featurecache.encoders.trainable import ModuleGroups, TrainableEncoder
from featurecache.encoders.vision import VisionLayout, VisionOutput
from featurecache.errors import CheckpointError, FeaturecacheWarning, UsageError
from featurecache.execution import EXACT, Execution
from featurecache.features import PROJECTED, Features
from featurecache.io.fingerprint import fingerprint
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from featurecache.encoders.pretrained import ImageProcessor


class CheckpointEncoder(Encoder):
    """An encoder that runs a network of a checkpoint, read at the first use.

    A subclass sets ``_family`` and ``dim``, defines ``_load_network``, and for each modality it
    has a forward pass (``_vision_output``, ``_batch_text_features``) and what else decides an
    embedding (``_image_settings``, ``_text_settings``). One with images also defines what its
    network computes (``_vision_layout``). One that can be trained also defines
    ``_random_network``, ``_module_groups``, ``_write_network`` and ``_companion_files``.
    """

    _family: str
    _processor: "ImageProcessor"
    _image_libraries: tuple[str, ...] = ("torch", "transformers", "pillow")
    _text_libraries: tuple[str, ...] = ("torch", "transformers", "tokenizers")
    """Distributions whose versions may change an embedding."""
    _log_scale_range: tuple[float, float] | None = None
    """Bounds of the learned log scale; None for no bounds."""

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        super().__init__(name=name, device=device, precision=precision)
        self.revision = checkpoint.revision
        self._checkpoint = checkpoint
        self._network = InferenceNetwork(device=device)
        self._openvino = OpenVinoNetwork(precision=precision)

    @abstractmethod
    def _load_network(self) -> Any:
        """Read the network in fp32."""

    @cached_property
    def _vision_layout(self) -> VisionLayout | None:
        """What its image network computes; None if nothing but its embedding can be had."""
        return None

    def _vision_output(
        self, network: Any, pixels: "torch.Tensor", layers: Collection[int]
    ) -> VisionOutput:
        """Compute what features are made of, from a batch of pixels (B, 3, H, W).

        Args:
            network: The network.
            pixels: The pixels.
            layers: The layers whose tokens are needed, -1 for the last; none for the embedding.
        """
        raise NotImplementedError

    def _image_features(
        self, network: Any, pixels: "torch.Tensor", features: Sequence[Features] = ()
    ) -> "torch.Tensor":
        """Embed a batch of pixels, (B, 3, H, W) to (B, D).

        Args:
            network: The network.
            pixels: The pixels.
            features: Several kinds of features, which are concatenated; by default the encoder's.
        """
        import torch

        layout, features = self._vision_layout, features or [self.features]
        assert layout is not None
        output = self._vision_output(network, pixels, {n for one in features for n in one.layers})
        return torch.cat([output.select(one, layout) for one in features], dim=1)

    def _project_tokens(self, network: Any, tokens: "torch.Tensor") -> "torch.Tensor":
        """Pool and project single tokens, (N, W) to (N, D)."""
        raise NotImplementedError

    def project_tokens(self, tokens: NDArray[np.floating]) -> Array:
        """See ``Encoder.project_tokens``."""
        layout = self._vision_layout
        if layout is None or not layout.projected:
            return super().project_tokens(tokens)
        with self._network.inference(self._load_network) as network:
            rows = tokens.reshape(-1, tokens.shape[-1]).astype(np.float32)
            projected = self._project_tokens(network, self._network.to_device(rows))
            return to_array(projected).reshape(*tokens.shape[:-1], -1)

    @property
    def _pixels_shape(self) -> tuple[int, int]:
        """Height and width of preprocessed images."""
        from PIL import Image

        _, height, width = self.preprocess(Image.new("L", (64, 64))).shape
        return height, width

    @property
    def offered_features(self) -> tuple[str, ...]:
        """See ``Encoder.offered_features``."""
        layout = self._vision_layout
        return super().offered_features if layout is None else layout.offered

    @property
    def finest_grid(self) -> int | None:
        """See ``Encoder.finest_grid``."""
        return None if self._vision_layout is None else min(self._vision_layout.grid)

    def use_features(self, features: Features) -> None:
        """See ``Encoder.use_features``."""
        layout = self._vision_layout
        if layout is None or features == layout.default:
            super().use_features(features)
            return
        if reason := layout.why_not(features):
            raise UsageError(
                f"{self.name} does not offer the features {features}, because {reason}: choose "
                f"`features` from {' '.join(layout.offered)}"
            )
        self._features = features
        self.dim, self.n_tokens = layout.dim(features), layout.n_tokens(features)
        self.aligned = features == PROJECTED

    def _batch_text_features(self, network: Any, texts: list[str]) -> "torch.Tensor":
        """Embed at most ``TEXT_BATCH`` texts, to (T, D)."""
        raise NotImplementedError

    def _token_counts(self, texts: list[str]) -> list[int]:
        """Return the number of tokens of each text, with special tokens and without padding."""
        raise NotImplementedError

    def _image_settings(self) -> dict[str, Any]:
        raise NotImplementedError

    def _text_settings(self) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def executions(self) -> tuple[Execution, ...]:
        """See ``Encoder.executions``."""
        if not self.has_images:
            return (EXACT,)
        if self.device != "cpu":
            precisions = ("fp32", "bf16", "fp16", "bf16-weights")
            return tuple(Execution("torch", precision) for precision in precisions)
        executions = (
            EXACT,
            Execution("openvino", "fp32"),
            Execution("torch", "bf16"),
            Execution("openvino", "bf16"),
            Execution("torch", "bf16-weights"),
            Execution("openvino", "int8"),
        )
        return tuple(one for one in executions if one.backend == "torch" or has_openvino())

    def use_backend(self, backend: str) -> None:
        """See ``Encoder.use_backend``."""
        if not self.has_images:
            super().use_backend(backend)
            return
        if backend == "openvino":
            require_openvino()
        execution = Execution(backend, self.precision)
        if execution not in self.executions:
            supported = ", ".join(map(str, self.executions))
            raise UsageError(
                f"{self.name} cannot run as {execution} on {self.device}: choose `backend` and "
                f"`precision` from {supported}"
            )
        self.backend = backend

    @cached_property
    def scale(self) -> float | None:
        """``exp(logit_scale)``; None if images and texts are not aligned.

        Raises:
            CheckpointError: The weights are missing, unreadable, or have no ``logit_scale``.
        """
        if not self.aligned:
            return None
        log_scale = self._checkpoint.scalar("logit_scale")
        if log_scale is None:
            raise CheckpointError(f"the weights of {self.name} have no logit_scale")
        if self._log_scale_range is not None:
            lowest, highest = self._log_scale_range
            log_scale = min(max(log_scale, lowest), highest)
        return math.exp(log_scale)

    @cached_property
    def bias(self) -> float | None:
        """``logit_bias``; None if the checkpoint has none, as those of CLIP."""
        return self._checkpoint.scalar("logit_bias") if self.aligned else None

    @property
    def image_spec(self) -> Mapping[str, Any]:
        """See ``Encoder.image_spec``."""
        if not self.has_images:
            return super().image_spec
        features = {} if self._features is None else {"features": str(self._features)}
        tokens: dict[str, Any] = {}
        if self.n_tokens is not None:
            tokens["tokens"] = self.n_tokens
            if self.geometry is not None:  # without which they have no place in an image
                tokens["geometry"] = self.geometry.to_json()
        return self._network_spec | features | tokens

    @property
    def _network_spec(self) -> dict[str, Any]:
        """The spec of its default features, which those of others add to."""
        resize = {} if self.resize == "published" else {"resize": self.resize}
        execution = {"backend": self.backend, "precision": self.precision}
        libraries = self._image_libraries + (
            OPENVINO_LIBRARIES if self.backend == "openvino" else ()
        )
        return self._spec(libraries) | execution | self._image_settings() | resize

    @property
    def text_spec(self) -> Mapping[str, Any]:
        """See ``Encoder.text_spec``."""
        if not self.has_text:
            return super().text_spec
        return self._spec(self._text_libraries) | self._text_settings()

    def _spec(self, libraries: tuple[str, ...]) -> dict[str, Any]:
        return {
            "family": self._family,
            "model": self.name,
            "weights": self._checkpoint.weight_hashes,
            "libraries": library_versions(*libraries),
        }

    def preprocess(self, image: "Image") -> Array:
        """See ``Encoder.preprocess``."""
        return self._processor(image) if self.has_images else super().preprocess(image)

    @property
    def geometry(self) -> Geometry | None:
        """See ``Encoder.geometry``."""
        return self._processor.geometry if self.has_images else None

    @property
    def picklable_preprocess(self) -> "Callable[[Image], Array] | None":
        """See ``Encoder.picklable_preprocess``."""
        return self._processor.picklable if self.has_images else None

    def embed_pixels(self, pixels: Array) -> Array:
        """See ``Encoder.embed_pixels``."""
        (embedding,) = self.embed_features(pixels, [self.features])
        return embedding

    @property
    def network_id(self) -> str | None:
        """See ``Encoder.network_id``."""
        return fingerprint({**self._network_spec, "device": self.device})

    def embed_features(self, pixels: Array, features: Sequence[Features]) -> list[Array]:
        """See ``Encoder.embed_features``."""
        if not self.has_images:
            raise self._unsupported("embed_features", images=True)
        layout = self._vision_layout
        if self.backend == "openvino":
            is_default = layout is None or list(features) == [layout.default]
            names = [] if is_default else list(map(str, features))
            joined = self._openvino.embed(
                pixels,
                self._network_spec | ({"features": names} if names else {}),
                partial(self._image_module, features),
            )
        else:
            with self._network.inference(self._load_network, precision=self.precision) as network:
                values = self._network.to_device(pixels).to(weights_dtype(self.precision))
                joined = to_array(self._image_features(network, values, features))
        if layout is None:
            return [joined]
        ends = np.cumsum([layout.dim(one) for one in features])
        return np.split(joined, ends[:-1], axis=1)

    def _image_module(self, features: Sequence[Features]) -> "torch.nn.Module":
        """Read the network as a module from pixels to features."""
        from featurecache.encoders.image_module import ImageModule

        return ImageModule(self._load_network(), partial(self._image_features, features=features))

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """See ``Encoder.encode_texts``."""
        if not self.has_text:
            return super().encode_texts(texts)
        texts = list(chain.from_iterable(text_batches(texts)))  # checks them
        self._warn_of_cut_texts(texts)
        with self._network.inference(self._load_network) as network:
            return to_array(self._text_features(network, texts))

    def _warn_of_cut_texts(self, texts: Sequence[str]) -> None:
        if cut := self.too_long(texts):
            warnings.warn(
                f"{self.name} reads {self.max_tokens} tokens of a text, and the end of "
                f"{len(cut)} of {count_noun(len(texts), 'text')} is cut: {shorten(cut[0], 60)!r}",
                FeaturecacheWarning,
                stacklevel=3,
            )

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """See ``Encoder.too_long``."""
        if not self.has_text or self.max_tokens is None:
            return []
        counts = self._token_counts(list(texts))
        limit = self.max_tokens
        return [text for text, count in zip(texts, counts, strict=True) if count > limit]

    def _text_features(self, network: Any, texts: Sequence[str]) -> "torch.Tensor":
        import torch

        if not self.has_text:
            super().encode_texts(texts)
        return torch.cat(
            [self._batch_text_features(network, batch) for batch in text_batches(texts)]
        )

    def trainable(self, *, init_seed: int | None = None) -> TrainableEncoder:
        """See ``Encoder.trainable``."""
        if self.resize != "published":
            # The folder of a fine-tuned encoder holds the published image processor.
            raise UsageError(f"{self.name} is fine-tuned as published: leave out `resize`")
        if self._features is not None:
            raise UsageError(f"{self.name} is fine-tuned as published: leave out `features`")
        files = self._companion_files()
        network = self._load_network() if init_seed is None else self._random_network(init_seed)
        return TrainableEncoder(
            module=network.to(self.device),
            groups=self._module_groups(network),
            embed_images=partial(self._image_features, network),
            embed_texts=partial(self._text_features, network),
            warn_of_cut_texts=self._warn_of_cut_texts,
            write_network=partial(self._write_network, network),
            files=files,
            log_scale_range=self._log_scale_range,
        )

    def _random_network(self, seed: int) -> Any:
        raise NotImplementedError

    def _module_groups(self, network: Any) -> ModuleGroups:
        raise NotImplementedError

    def _write_network(self, network: Any, folder: Path) -> None:
        raise NotImplementedError

    def _companion_files(self) -> tuple[Path, ...]:
        """The files of the image processor and the tokenizer, which are saved with the weights."""
        raise NotImplementedError
