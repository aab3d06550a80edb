"""An encoder of one's own: the gray values of a small thumbnail, less their mean."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL.Image import Image

from featurecache.encoders.encoder import Array, Encoder, library_versions


class Thumbnails(Encoder):
    def __init__(self, side: int = 8) -> None:
        super().__init__(name=f"thumbnails-{side}")
        self.side = side
        self.dim = side * side

    @property
    def image_spec(self) -> Mapping[str, Any]:
        return {"thumbnail": self.side, "libraries": library_versions("pillow", "numpy")}

    def preprocess(self, image: Image) -> Array:
        gray = np.asarray(image.convert("L").resize((self.side, self.side)), dtype=np.float32)
        return np.broadcast_to(gray, (3, self.side, self.side)).copy()

    def embed_pixels(self, pixels: Array) -> Array:
        rows = pixels[:, 0].reshape(len(pixels), -1)
        centered: Array = rows - rows.mean(axis=1, keepdims=True)
        return centered
