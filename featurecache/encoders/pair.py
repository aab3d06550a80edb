"""Two unaligned encoders as one: the images of the first, the texts of the second."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from featurecache.encoders.encoder import Array, Encoder
from featurecache.encoders.geometry import Geometry
from featurecache.execution import Execution
from featurecache.features import Features

if TYPE_CHECKING:
    from PIL.Image import Image


class PairEncoder(Encoder):
    """The image encoder of one model and the text encoder of another, in two embedding spaces.

    Its specs are those of its members, so the embeddings of a member alone are the same.
    """

    has_images = True
    has_text = True

    def __init__(self, vision: Encoder, text: Encoder, *, name: str) -> None:
        """Combine two encoders.

        Args:
            vision: Encoder of the images.
            text: Encoder of the texts.
            name: Name of the pair.

        Raises:
            ValueError: The two differ in device or precision.
        """
        if (vision.device, vision.precision) != (text.device, text.precision):
            raise ValueError(f"the members of {name} differ in device or precision")
        super().__init__(name=name, device=vision.device, precision=vision.precision)
        self._vision = vision
        self._text = text
        self.dim = vision.dim
        self.max_tokens = text.max_tokens
        self.revision = vision.revision  # a cache stores the revision of its image encoder

    @property
    def executions(self) -> tuple[Execution, ...]:
        """Those of the image encoder."""
        return self._vision.executions

    def use_backend(self, backend: str) -> None:
        """See ``Encoder.use_backend``; it is about the image encoder."""
        self._vision.use_backend(backend)
        self.backend = self._vision.backend

    def use_resize(self, resize: str) -> None:
        """See ``Encoder.use_resize``."""
        self._vision.use_resize(resize)
        self.resize = self._vision.resize

    @property
    def features(self) -> Features:
        """Those of the image encoder."""
        return self._vision.features

    @property
    def offered_features(self) -> tuple[str, ...]:
        """Those of the image encoder."""
        return self._vision.offered_features

    @property
    def finest_grid(self) -> int | None:
        """That of the image encoder."""
        return self._vision.finest_grid

    def use_features(self, features: Features) -> None:
        """See ``Encoder.use_features``."""
        self._vision.use_features(features)
        self._features = self._vision._features
        self.dim, self.n_tokens = self._vision.dim, self._vision.n_tokens

    @property
    def image_spec(self) -> Mapping[str, Any]:
        """The spec of the image encoder."""
        return self._vision.image_spec

    @property
    def text_spec(self) -> Mapping[str, Any]:
        """The spec of the text encoder."""
        return self._text.text_spec

    @property
    def geometry(self) -> Geometry | None:
        """See ``Encoder.geometry``."""
        return self._vision.geometry

    def preprocess(self, image: "Image") -> Array:
        """See ``Encoder.preprocess``."""
        return self._vision.preprocess(image)

    @property
    def picklable_preprocess(self) -> "Callable[[Image], Array] | None":
        """See ``Encoder.picklable_preprocess``."""
        return self._vision.picklable_preprocess

    @property
    def network_id(self) -> str | None:
        """That of the image encoder."""
        return self._vision.network_id

    def embed_features(self, pixels: Array, features: Sequence[Features]) -> list[Array]:
        """See ``Encoder.embed_features``."""
        return self._vision.embed_features(pixels, features)

    def embed_pixels(self, pixels: Array) -> Array:
        """See ``Encoder.embed_pixels``; D is that of the image encoder."""
        return self._vision.embed_pixels(pixels)

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """See ``Encoder.encode_texts``; D is that of the text encoder."""
        return self._text.encode_texts(texts)

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """See ``Encoder.too_long``."""
        return self._text.too_long(texts)
