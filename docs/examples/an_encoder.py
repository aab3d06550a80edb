"""An encoder of one's own: 64 grey values of a film, less their mean, as its embedding."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL.Image import Image

from featurecache.encoders.encoder import Array, Encoder, library_versions
from featurecache.errors import UsageError


class Thumbnails(Encoder):
    aligned, has_images, has_text = False, True, False
    scale = bias = None

    def __init__(self, side: int = 8) -> None:
        super().__init__(name=f"thumbnails-{side}", device="cpu", precision="fp32")
        self.side = side

    @property
    def image_description(self) -> Mapping[str, Any]:
        return {"thumbnail": self.side, "libraries": library_versions("pillow", "numpy")}

    @property
    def text_description(self) -> Mapping[str, Any]:
        raise UsageError(f"{self.name} reads no text")

    def preprocess(self, image: Image) -> Array:
        grey = np.asarray(image.convert("L").resize((self.side, self.side)), dtype=np.float32)
        return np.broadcast_to(grey, (3, self.side, self.side)).copy()

    def encode_images(self, pixels: Array) -> Array:
        rows = pixels[:, 0].reshape(len(pixels), -1)
        centred: Array = rows - rows.mean(axis=1, keepdims=True)
        return centred

    def encode_texts(self, texts: Sequence[str]) -> Array:
        raise UsageError(f"{self.name} reads no text")
