"""Test-time views: the mean of an image's embeddings under small shifts, scales and rotations."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from featurecache.encoders.encoder import Array, Encoder
from featurecache.errors import UsageError
from featurecache.execution import Execution
from featurecache.features import Features

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_VIEWS: Final = 32
SEED: Final = 0
DEGREES: Final = 5.0
"""Largest rotation, to either side."""
SHIFT: Final = 0.05
"""Largest shift, as a fraction of the image's width and height."""
SCALE: Final = 0.05
"""Largest change of size."""


def check_views(views: int) -> None:
    """Check a number of views.

    Raises:
        UsageError: It is not one of 1 to ``MAX_VIEWS``.
    """
    if not 1 <= views <= MAX_VIEWS:
        raise UsageError(f"`views` is {views}: must be 1 to {MAX_VIEWS}")


@dataclass(frozen=True)
class View:
    """How an image is changed. It is never mirrored: left and right matter in a chest X-ray.

    Attributes:
        degrees: Rotation about the center, counterclockwise.
        scale: Factor on the size.
        shift: Shift to the right and down, as fractions of width and height.
    """

    degrees: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def apply(self, image: "Image") -> "Image":
        """Return the changed image, of the same size; what was outside is black."""
        from PIL.Image import Resampling, Transform

        if self == View():
            return image
        width, height = image.size
        angle = math.radians(self.degrees)
        cosine, sine = math.cos(angle) / self.scale, math.sin(angle) / self.scale
        # Pillow asks where each pixel of the result comes from.
        x, y = (0.5 + self.shift[0]) * width, (0.5 + self.shift[1]) * height
        origin = (width / 2 - cosine * x + sine * y, height / 2 - sine * x - cosine * y)
        matrix = (cosine, -sine, origin[0], sine, cosine, origin[1])
        return image.transform(image.size, Transform.AFFINE, matrix, Resampling.BILINEAR)


def draw_views(number: int) -> tuple[View, ...]:
    """Return views: the image as it is, then others, of which a larger number adds more.

    Args:
        number: How many.
    """
    rng = np.random.default_rng(SEED)
    draws = rng.uniform(-1, 1, size=(number - 1, 4))
    return (
        View(),
        *(
            View(DEGREES * turn, 1 + SCALE * size, (SHIFT * right, SHIFT * down))
            for turn, size, right, down in draws.tolist()
        ),
    )


class AveragedViews(Encoder):
    """An encoder that embeds several views of each image and returns their mean.

    The views are the same for all images. The mean is taken of the embeddings as they are, which
    are not normalized.

    Args:
        encoder: Embeds each view.
        views: Number of views, the image itself among them.

    Raises:
        UsageError: The encoder takes no images, or returns tokens, whose places differ from view
            to view.
    """

    def __init__(self, encoder: Encoder, views: int) -> None:
        super().__init__(name=encoder.name, device=encoder.device, precision=encoder.precision)
        if not encoder.has_images:
            raise UsageError(f"{encoder.name} takes no images: leave out `views`")
        if encoder.n_tokens is not None:
            raise UsageError(
                f"tokens of several views are of different places: leave out `views`, or the "
                f"`features` {encoder.features}"
            )
        self._encoder = encoder
        self._views = draw_views(views)
        self.aligned, self.has_text = encoder.aligned, encoder.has_text
        self.max_tokens, self.dim = encoder.max_tokens, encoder.dim
        self.provenance, self.revision = encoder.provenance, encoder.revision
        self.backend, self.resize = encoder.backend, encoder.resize
        self._features, self.n_views = encoder._features, views

    @property
    def features(self) -> Features:
        """Those of the encoder."""
        return self._encoder.features

    @property
    def offered_features(self) -> tuple[str, ...]:
        """Those of the encoder."""
        return self._encoder.offered_features

    @property
    def executions(self) -> tuple[Execution, ...]:
        """Those of the encoder."""
        return self._encoder.executions

    @property
    def scale(self) -> float | None:
        """That of the encoder."""
        return self._encoder.scale

    @property
    def bias(self) -> float | None:
        """That of the encoder."""
        return self._encoder.bias

    @property
    def image_spec(self) -> Mapping[str, Any]:
        """The spec of the encoder and how the views were drawn."""
        changes = {"seed": SEED, "degrees": DEGREES, "shift": SHIFT, "scale": SCALE}
        return {**self._encoder.image_spec, "views": self.n_views, "view_changes": changes}

    @property
    def text_spec(self) -> Mapping[str, Any]:
        """The spec of the encoder."""
        return self._encoder.text_spec

    def preprocess(self, image: "Image") -> Array:
        """Preprocess every view.

        Args:
            image: See ``Encoder.preprocess``.

        Returns:
            float32, shape (views, 3, H, W).
        """
        return _preprocess_views(image, self._views, self._encoder.preprocess)

    @property
    def picklable_preprocess(self) -> "Callable[[Image], Array] | None":
        """See ``Encoder.picklable_preprocess``."""
        preprocess = self._encoder.picklable_preprocess
        if preprocess is None:
            return None
        return partial(_preprocess_views, views=self._views, preprocess=preprocess)

    @property
    def network_id(self) -> str | None:
        """That of the encoder, and the number of views."""
        network = self._encoder.network_id
        return None if network is None else f"{network} {self.n_views} views"

    def embed_features(self, pixels: Array, features: Sequence[Features]) -> list[Array]:
        """See ``Encoder.embed_features``; pixels are of shape (B, views, 3, H, W)."""
        of_views = [
            self._encoder.embed_features(np.ascontiguousarray(pixels[:, view]), features)
            for view in range(pixels.shape[1])
        ]
        return [np.mean(embeddings, axis=0) for embeddings in zip(*of_views, strict=True)]

    def embed_pixels(self, pixels: Array) -> Array:
        """See ``Encoder.embed_pixels``; pixels are of shape (B, views, 3, H, W)."""
        (embedding,) = self.embed_features(pixels, [self.features])
        return embedding

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """See ``Encoder.encode_texts``."""
        return self._encoder.encode_texts(texts)

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """See ``Encoder.too_long``."""
        return self._encoder.too_long(texts)


def _preprocess_views(
    image: "Image", views: Sequence[View], preprocess: "Callable[[Image], Array]"
) -> Array:
    return np.stack([preprocess(view.apply(image)) for view in views])
