"""The interface of every encoder, and what a user subclasses to add one."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.geometry import Geometry
from featurecache.errors import ImageError, UsageError
from featurecache.execution import EXACT, Execution, Probe
from featurecache.features import POOLED, PROJECTED, Features
from featurecache.images.bit_depth import judge_bit_depth, sample_files
from featurecache.images.gray_range import check_bit_depth
from featurecache.images.subprocess_decoder import SubprocessDecoder, Transform
from featurecache.provenance.provenance import Provenance

if TYPE_CHECKING:
    from PIL.Image import Image

    from featurecache.encoders.trainable import TrainableEncoder

Array = NDArray[np.float32]

TEXT_BATCH = 32
"""Texts per forward pass. The embedding of a text does not depend on it."""


class Encoder:
    """A frozen encoder of images, of texts, or of both.

    Load one with ``load_encoder``. To add your own, subclass ``Encoder``, define ``image_spec``,
    ``preprocess`` and ``embed_pixels`` (and ``text_spec`` and ``encode_texts`` if it reads text),
    and pass an instance wherever a model is expected, or register it with ``register_encoder``.

    Creating an encoder reads its configuration; weights are loaded by the first call that needs
    them. ``preprocess`` and ``embed_pixels`` are called from several threads at once. Embeddings
    are not L2-normalized.

    Args:
        name: Name of the encoder. It names the cache file.
        device: Where the network runs: ``cpu``, ``cuda`` or ``mps``.
        precision: Format of the numbers in the image network, such as ``fp32`` or ``bf16``.

    Attributes:
        name: Registry name, ``hf:org/name``, or the name of a folder.
        device: See above.
        precision: See above.
        backend: Library that executes the image network: ``torch`` or ``openvino``.
        dim: Length D of an image embedding; of a text embedding where there are no images.
        has_images: Whether the encoder takes images.
        has_text: Whether the encoder takes texts.
        aligned: Whether images and texts share one embedding space, so that zero-shot
            classification and text-to-image retrieval are meaningful.
        max_tokens: Number of tokens that it reads of a text; the rest is cut. None if unknown.
        provenance: What the encoder may have been trained on.
        probe: The measurement by which its backend and precision were chosen; None if there was
            none.
        execution_reason: Why else they were chosen, in words; empty if they were asked for.
        revision: Commit of the Hugging Face repository the weights come from; None for others.
        resize: How images are resized; see ``load_encoder``.
        n_views: Number of views of an image whose embeddings are averaged; see ``load_encoder``.
        n_tokens: Number T of tokens of an image, whose features are T vectors of length D / T, one
            after the other; None where there is one vector.

    Example:
        >>> import featurecache as fc
        >>> encoder = fc.load_encoder("tiny", device="cpu")
        >>> encoder
        DualEncoder('tiny', dim=128, images and text, aligned, cpu, fp32)
        >>> encoder.encode_texts(["signs of edema", "no signs of edema"]).shape
        (2, 128)
    """

    aligned: bool = False
    has_images: bool = True
    has_text: bool = False
    max_tokens: int | None = None
    n_tokens: int | None = None
    dim: int
    _features: Features | None = None
    """Features other than the default ones."""

    def __init__(self, *, name: str, device: str = "cpu", precision: str = "fp32") -> None:
        self.name = name
        self.device = device
        self.precision = precision
        self.provenance = Provenance()
        self.backend = "torch"
        self.probe: Probe | None = None
        self.execution_reason = ""
        self.revision: str | None = None
        self.resize = "published"
        self.n_views = 1

    def __repr__(self) -> str:
        modalities = [
            word for word, on in (("images", self.has_images), ("text", self.has_text)) if on
        ]
        parts = [
            repr(self.name),
            f"dim={getattr(self, 'dim', '?')}",
            " and ".join(modalities),
            *(["aligned"] if self.aligned else []),
            self.device,
            *([self.backend] if self.backend != "torch" else []),
            self.precision,
            *([f"{self.n_views} views"] if self.n_views > 1 else []),
        ]
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def cache_name(self) -> str:
        """Name of its caches: its own, then what differs, as in ``clip.pad`` or ``clip.cls``."""
        parts = [self.name]
        if self.resize != "published":
            parts.append(self.resize)
        if self._features is not None:
            parts.append(self._features.suffix)
        if self.n_views > 1:
            parts.append(f"views-{self.n_views}")
        return ".".join(parts)

    @property
    def features(self) -> Features:
        """What of its image network it returns; see ``load_encoder``."""
        return self._features or (PROJECTED if self.aligned else POOLED)

    @property
    def offered_features(self) -> tuple[str, ...]:
        """The features that it offers, its default first, as far as its configuration says."""
        return (str(self.features),) if self.has_images else ()

    @property
    def finest_grid(self) -> int | None:
        """Rows, and columns, of the finest grid of patch tokens; None if there are no tokens."""
        return None

    @property
    def execution(self) -> Execution:
        """How its image network is executed."""
        return Execution(self.backend, self.precision)

    @property
    def executions(self) -> tuple[Execution, ...]:
        """How its image network can be executed on its device, the most exact first.

        ``extract`` chooses among them by measuring; ``EXACT`` is all that any encoder has to offer.
        """
        return (EXACT,)

    def use_backend(self, backend: str) -> None:
        """Execute the image network by a library; ``load_encoder`` calls it before any other call.

        Args:
            backend: "torch" or "openvino".

        Raises:
            UsageError: The encoder cannot be executed by it in its precision and on its device, or
                the library is not installed.
        """
        if backend != "torch":
            raise UsageError(f"{self.name} runs without {backend}: leave out `backend`")

    def use_resize(self, resize: str) -> None:
        """Resize images in another way; ``load_encoder`` calls it before any image is embedded.

        Args:
            resize: "published", "pad" or "stretch". ``self.resize`` stays "published" where the
                published preprocessing does the same.

        Raises:
            UsageError: The encoder does not offer a choice.
        """
        if resize != "published":
            raise UsageError(f"{self.name} has a preprocessing of its own: leave out `resize`")

    def use_features(self, features: Features) -> None:
        """Return other features of images; ``load_encoder`` calls it before any other call.

        Args:
            features: The features; see ``parse_features``.

        Raises:
            UsageError: The encoder does not offer them.
        """
        if not self.has_images:
            raise self._unsupported("features", images=True)
        if features != self.features:
            offered = ", ".join(self.offered_features)
            raise UsageError(f"{self.name} does not offer the features {features}, only {offered}")

    @property
    def scale(self) -> float | None:
        """Factor on the cosine similarity in the model's own score; None if not aligned."""
        return None

    @property
    def bias(self) -> float | None:
        """SigLIP's additive logit bias; None if the model has none."""
        return None

    @property
    def image_spec(self) -> Mapping[str, Any]:
        """Everything that decides an image embedding, as a JSON-serializable mapping.

        Embeddings with different specs are never mixed: include the hash of the weights, the
        preprocessing, the precision and the versions of the libraries involved.

        Raises:
            UsageError: The encoder does not take images.
        """
        raise self._unsupported("image_spec", images=True)

    @property
    def text_spec(self) -> Mapping[str, Any]:
        """Everything that decides a text embedding, as a JSON-serializable mapping.

        Raises:
            UsageError: The encoder does not take texts.
        """
        raise self._unsupported("text_spec", images=False)

    def preprocess(self, image: "Image") -> Array:
        """Convert one image to the input of the network.

        Args:
            image: An 8-bit image in mode ``L`` or ``RGB``.

        Returns:
            float32, shape (3, H, W).

        Raises:
            UsageError: The encoder does not take images.
        """
        raise self._unsupported("preprocess", images=True)

    @property
    def geometry(self) -> Geometry | None:
        """Which part of an image ``preprocess`` returns; None if that is not known.

        Only with it can tokens be compared with boxes, or be drawn over the image.
        """
        return None

    @property
    def picklable_preprocess(self) -> "Callable[[Image], Array] | None":
        """A function equivalent to ``preprocess`` that can be sent to a subprocess.

        None if there is none: an image that has to be decoded in a subprocess is then
        preprocessed in this process.
        """
        return None

    def embed_pixels(self, pixels: Array) -> Array:
        """Embed one batch of preprocessed images.

        Args:
            pixels: float32, shape (B, 3, H, W): stacked results of ``preprocess``.

        Returns:
            float32, shape (B, D), not normalized.

        Raises:
            UsageError: The encoder does not take images.
            CheckpointError: The weights cannot be read or do not fit the network.
        """
        raise self._unsupported("embed_pixels", images=True)

    @property
    def network_id(self) -> str | None:
        """Hash of its image network, with preprocessing, execution and device.

        Encoders with the same one differ in their features alone, so that one of them can embed
        images for all by ``embed_features``. None where there is no such encoder.
        """
        return None

    def embed_features(self, pixels: Array, features: Sequence[Features]) -> list[Array]:
        """Embed one batch of preprocessed images as several kinds of features, in one pass.

        Args:
            pixels: See ``embed_pixels``.
            features: Features that the encoder offers.

        Returns:
            For each kind of features, float32 of shape (B, D), not normalized.

        Raises:
            UsageError: The encoder does not take images, or does not offer the features.
            CheckpointError: The weights cannot be read or do not fit the network.
        """
        if list(features) != [self.features]:
            raise UsageError(f"{self.name} embeds images as {self.features} only")
        return [self.embed_pixels(pixels)]

    def project_tokens(self, tokens: NDArray[np.floating]) -> Array:
        """Bring tokens, each on its own, into the space that images share with texts.

        Args:
            tokens: Tokens of the last layer, after its layer norm, as in a cache of ``tokens:G``,
                shape (B, T, W).

        Returns:
            float32, shape (B, T, D): what the model's pooling and projection make of each token
            alone; not normalized.

        Raises:
            UsageError: The model has no such space.
            CheckpointError: The weights cannot be read or do not fit the network.
        """
        raise UsageError(
            f"{self.name} projects images into no space of texts: use a model such as clip"
        )

    def encode_images(
        self,
        images: "Sequence[str | os.PathLike[str] | Image]",
        *,
        batch_size: int = 32,
        bit_depth: int | None = None,
    ) -> Array:
        """Embed image files or PIL images.

        Args:
            images: Paths of image files (PNG, JPEG, TIFF, BMP, WebP, PPM or DICOM), which are
                decoded in a subprocess; PIL images of 8 bits per channel; or a mixture.
            batch_size: Images per forward pass.
            bit_depth: Number of bits in use, 8 to 16, in files that do not define the range of
                their gray values: 16-bit PNG and TIFF, DICOM without a window. By default the
                fewest that hold the values of all given files; a ``FeaturecacheWarning`` says so.

        Returns:
            float32, shape (N, D), in the order of ``images``, not normalized.

        Raises:
            TypeError: ``images`` is a single image.
            ValueError: There are no images.
            UsageError: The encoder does not take images, or ``bit_depth`` is out of range.
            ImageError: An image cannot be used; the message names it.
            CheckpointError: The weights cannot be read or do not fit the network.

        Example:
            >>> import featurecache as fc
            >>> from PIL import Image
            >>> encoder = fc.load_encoder("tiny", device="cpu")
            >>> encoder.encode_images([Image.new("L", (512, 512))]).shape
            (1, 128)
        """
        if isinstance(images, str | os.PathLike) or hasattr(images, "convert"):
            raise TypeError("images is a single image: give a list of paths or PIL images")
        if not len(images):
            raise ValueError("there are no images to encode")
        check_bit_depth(bit_depth)
        paths = (image for image in images if isinstance(image, str | os.PathLike))
        files = [Path(path).expanduser() for path in paths]
        bit_depth = bit_depth or judge_bit_depth(sample_files(files))
        decoder = SubprocessDecoder()
        batches = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            pixels = [self._pixels(image, decoder, bit_depth) for image in batch]
            batches.append(self.embed_pixels(np.stack(pixels)))
        return np.concatenate(batches)

    def _pixels(
        self,
        image: "str | os.PathLike[str] | Image",
        decoder: SubprocessDecoder,
        bit_depth: int | None,
    ) -> Array:
        if isinstance(image, str | os.PathLike):
            path = Path(image).expanduser()
            (pixels,) = decode_and_preprocess(
                decoder, path, [self], bit_depth=bit_depth, name=str(image)
            )
            return pixels
        if not hasattr(image, "convert"):
            raise TypeError(f"images contains a {type(image).__name__}: give paths or PIL images")
        return self.preprocess(_to_gray_or_rgb(image))

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Embed texts; the embedding of one does not depend on the others.

        A ``FeaturecacheWarning`` says how many texts are cut; see ``too_long``.

        Args:
            texts: T texts.

        Returns:
            float32, shape (T, D), not normalized.

        Raises:
            UsageError: The encoder does not take texts.
            CheckpointError: The weights cannot be read or do not fit the network.
        """
        raise self._unsupported("encode_texts", images=False)

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that have more than ``max_tokens`` tokens, of which the end is cut.

        Args:
            texts: T texts.
        """
        return []

    def trainable(self, *, init_seed: int | None = None) -> "TrainableEncoder":
        """Return a copy of the network for training, in fp32; the frozen one is not affected.

        Args:
            init_seed: None for the weights of the checkpoint; a seed for random weights in the
                same architecture, initialized as the library that defines it does.

        Raises:
            UsageError: The encoder cannot be trained.
            CheckpointError: The weights cannot be read or do not fit the network.
        """
        raise UsageError(
            f"{self.name} cannot be trained: choose a CLIP- or SigLIP-shaped model such as clip "
            "or xraysiglip, medclip, or an image-only one such as dinov2-small"
        )

    def _unsupported(self, member: str, *, images: bool) -> Exception:
        """The error for a member that is not defined for a modality."""
        if self.has_images if images else self.has_text:
            return NotImplementedError(f"{type(self).__name__} does not define {member}")
        has, lacks = ("texts", "images") if images else ("images", "texts")
        return UsageError(
            f"{self.name} encodes {has} only: for {lacks} use an image-text model such as clip, "
            "or the pair dinov2-minilm"
        )


def _to_gray_or_rgb(image: "Image") -> "Image":
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("1", "LA"):
        return image.convert("L")
    if image.mode.startswith("I") or image.mode == "F":
        raise ImageError(
            f"a PIL image of mode {image.mode}: its range of values is not known, so give the "
            "path of its file, or convert it to 8 bits"
        )
    return image.convert("RGB")


def text_batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Split texts into lists of at most ``TEXT_BATCH``.

    Raises:
        TypeError: A single string was given instead of a sequence of strings.
        ValueError: There are no texts.
    """
    if isinstance(texts, str):
        raise TypeError("texts is a single string: give a list of strings")
    if not texts:
        raise ValueError("there are no texts to encode")
    for start in range(0, len(texts), TEXT_BATCH):
        yield list(texts[start : start + TEXT_BATCH])


def library_versions(*names: str) -> dict[str, str]:
    """Return the installed versions of the libraries that an embedding depends on.

    The local tag of a build (``+cpu``, ``+cu130``) is left out: it depends on the machine, and one
    cache may be filled from several machines.
    """
    return {name: _installed_version(name) for name in names}


@cache
def _installed_version(name: str) -> str:
    """Return a version without local tag; looking one up takes longer than embedding an image."""
    return version(name).partition("+")[0]


def decode_and_preprocess(
    decoder: SubprocessDecoder,
    source: Path | bytes,
    encoders: Sequence[Encoder],
    *,
    bit_depth: int | None,
    also: Sequence[Transform] = (),
    name: str | None = None,
) -> list[NDArray[Any]]:
    """Decode an image in a subprocess and preprocess it for each encoder.

    Preprocessing runs in the subprocess too, unless one of the encoders has no picklable
    preprocessing.

    Args:
        decoder: The decoder that reads the image.
        source: Path of the image file, or its bytes.
        encoders: The encoders to preprocess for.
        bit_depth: See ``decode_image``.
        also: Further functions of the image, which must be picklable.
        name: Name of the image in error messages; None for the reason alone.

    Returns:
        One array of pixels, float32 of shape (3, H, W), for each encoder; then the results of
        ``also``.

    Raises:
        ImageError: The image cannot be read, or took too long.
        FeaturecacheError: No subprocess could be started, or preprocessing failed otherwise.
    """
    functions = [encoder.picklable_preprocess for encoder in encoders]
    picklable = [function for function in functions if function is not None]
    if len(picklable) == len(functions):
        return decoder.read(source, [*picklable, *also], bit_depth=bit_depth, name=name)
    image = decoder.image(source, bit_depth=bit_depth, name=name)
    return [*(encoder.preprocess(image) for encoder in encoders), *(make(image) for make in also)]
