"""The one interface of every frozen encoder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featurecache.errors import UsageError
from featurecache.provenance import Provenance

if TYPE_CHECKING:
    from PIL.Image import Image

    from featurecache.encoders.trainable import Trainable
    from featurecache.images.subprocess_decoder import SubprocessDecoder

Array = npt.NDArray[np.float32]

TEXT_BATCH = 32
"""Prompts per forward pass; a cache's text embeddings do not depend on it."""


class Encoder(ABC):
    """A frozen encoder: images to embeddings, texts to embeddings, or both.

    Constructing one finds its files and reads its configuration; the weights are loaded at the
    first ``encode_images`` or ``encode_texts``. ``preprocess`` and ``encode_images`` may be called
    from several threads at once. Embeddings are not normalised.

    Attributes:
        name: registry name, ``hf:org/name`` or a folder's name; it names the cache file.
        aligned: images and texts share one space, so that zero-shot scores mean something.
        has_images: ``preprocess``, ``encode_images`` and ``image_description`` work.
        has_text: ``encode_texts`` and ``text_description`` work.
        device: where the network runs: ``cpu``, ``cuda``, ``mps``.
        precision: ``fp32`` or ``bf16``.
        provenance: what its training may have seen; ``load_encoder`` states it.
        bf16_cosine: the least cosine between its embeddings in bf16 and in fp32 on a few films;
            None where nobody measured it.
        revision: the commit of the hub's repository that its weights are of; None for others.
    """

    aligned: bool
    has_images: bool
    has_text: bool

    def __init__(self, *, name: str, device: str, precision: str) -> None:
        self.name = name
        self.device = device
        self.precision = precision
        self.provenance = Provenance()
        self.bf16_cosine: float | None = None
        self.revision: str | None = None

    @property
    @abstractmethod
    def scale(self) -> float | None:
        """The factor on the cosine in the model's own score; None when it is not aligned."""

    @property
    @abstractmethod
    def bias(self) -> float | None:
        """SigLIP's additive logit bias; None where the checkpoint has none."""

    @property
    @abstractmethod
    def image_description(self) -> Mapping[str, Any]:
        """Everything that decides an image embedding, as a value with a canonical JSON.

        Raises:
            UsageError: the encoder takes no images.
        """

    @property
    @abstractmethod
    def text_description(self) -> Mapping[str, Any]:
        """Everything that decides a text embedding, as a value with a canonical JSON.

        Raises:
            UsageError: the encoder takes no texts.
        """

    @abstractmethod
    def preprocess(self, image: "Image") -> Array:
        """One image, grey (L) or RGB, as the network wants it.

        Returns:
            float32, shape (3, H, W).

        Raises:
            UsageError: the encoder takes no images.
        """

    @property
    def preprocessing(self) -> "Callable[[Image], Array] | None":
        """What ``preprocess`` does, as something that can be pickled, for it may run apart.

        None where there is no such thing: then images are decoded apart, and preprocessed here.
        """
        return None

    @abstractmethod
    def encode_images(self, pixels: Array) -> Array:
        """Embed a batch of preprocessed images.

        Args:
            pixels: float32, shape (B, 3, H, W), stacked results of ``preprocess``.

        Returns:
            float32, shape (B, D), not normalised.

        Raises:
            UsageError: the encoder takes no images.
            CheckpointError: the weights cannot be read or do not fit.
        """

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Embed texts; each one's embedding does not depend on the others.

        Returns:
            float32, shape (T, D), not normalised.

        Raises:
            UsageError: the encoder takes no texts.
            CheckpointError: the weights cannot be read or do not fit.
        """

    def trainable(self, *, init_seed: int | None = None) -> "Trainable":
        """The encoder for training: a network of its own in fp32, which the frozen one never sees.

        Args:
            init_seed: None for the checkpoint's weights; a seed for fresh ones in the same
                architecture, by the initialisation of the library that defines it.

        Raises:
            UsageError: this encoder cannot be trained.
            CheckpointError: the weights cannot be read or do not fit.
        """
        raise UsageError(
            f"{self.name} cannot be trained here: take a CLIP- or SigLIP-shaped model such as clip "
            "or xraysiglip, medclip, or an images-only one such as dinov2-small"
        )


def text_batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Split texts into lists of at most ``TEXT_BATCH``.

    Raises:
        TypeError: one string was given where a sequence of strings is needed.
        ValueError: there are no texts.
    """
    if isinstance(texts, str):
        raise TypeError("texts is one string; give a list of strings")
    if not texts:
        raise ValueError("there are no texts to encode")
    for start in range(0, len(texts), TEXT_BATCH):
        yield list(texts[start : start + TEXT_BATCH])


def library_versions(*names: str) -> dict[str, str]:
    """The installed versions of libraries that take part in an embedding.

    A build's local tag (``+cpu``, ``+cu130``) is left out: it names the machine, as ``device``
    does, and one cache may be filled from several machines.
    """
    return {name: version(name).partition("+")[0] for name in names}


def decode_and_preprocess(
    decoder: "SubprocessDecoder",
    source: Path | bytes,
    encoders: Sequence[Encoder],
    *,
    called: str | None = None,
) -> list[Array]:
    """Read an image in a subprocess and preprocess it for each encoder.

    Preprocessing runs in the subprocess too, except that of an encoder which cannot be pickled.

    Args:
        decoder: the decoder that reads the image.
        source: path of the image file, or its bytes.
        encoders: the encoders to preprocess for.
        called: name of the image in error messages; None for the reason alone.

    Returns:
        One array of pixels for each encoder.

    Raises:
        ImageError: the image cannot be read, or took too long.
        FeaturecacheError: no subprocess could be started, or preprocessing failed otherwise.
    """
    portable = [encoder.preprocessing for encoder in encoders]
    known = [make for make in portable if make is not None]
    if len(known) == len(portable):
        return decoder.read(source, known, called=called)
    image = decoder.image(source, called=called)
    return [encoder.preprocess(image) for encoder in encoders]
