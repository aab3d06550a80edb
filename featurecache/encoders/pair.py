"""Two unaligned encoders as one: the images of the first, the texts of the second."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from featurecache.encoders.encoder import Array, Encoder

if TYPE_CHECKING:
    from PIL.Image import Image


class PairEncoder(Encoder):
    """The vision of one encoder and the text of another, in two spaces.

    Its descriptions are those of its parts: embeddings made by a part alone are the same.
    """

    aligned = False
    has_images = True
    has_text = True

    def __init__(self, vision: Encoder, text: Encoder, *, name: str) -> None:
        """Join two encoders.

        Raises:
            ValueError: the parts differ in device or precision.
        """
        if (vision.device, vision.precision) != (text.device, text.precision):
            raise ValueError(f"the parts of {name} differ in device or precision")
        super().__init__(name=name, device=vision.device, precision=vision.precision)
        self._vision = vision
        self._text = text
        self.revision = vision.revision  # that of what embeds the images of a cache

    @property
    def scale(self) -> float | None:
        """None: a cosine between two spaces means nothing."""
        return None

    @property
    def bias(self) -> float | None:
        """None: a cosine between two spaces means nothing."""
        return None

    @property
    def image_spec(self) -> Mapping[str, Any]:
        """The vision part's."""
        return self._vision.image_spec

    @property
    def text_spec(self) -> Mapping[str, Any]:
        """The text part's."""
        return self._text.text_spec

    def preprocess(self, image: "Image") -> Array:
        """See ``Encoder.preprocess``."""
        return self._vision.preprocess(image)

    @property
    def picklable_preprocess(self) -> "Callable[[Image], Array] | None":
        """See ``Encoder.picklable_preprocess``."""
        return self._vision.picklable_preprocess

    def embed_pixels(self, pixels: Array) -> Array:
        """See ``Encoder.embed_pixels``; D is the vision part's."""
        return self._vision.embed_pixels(pixels)

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """See ``Encoder.encode_texts``; D is the text part's."""
        return self._text.encode_texts(texts)
