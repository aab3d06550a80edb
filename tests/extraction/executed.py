"""A stub encoder that can be executed in several ways, of given speeds and exactness."""

import numpy as np

from featurecache.execution import EXACT, Execution
from tests.extraction.stub_encoder import StubEncoder


class Executed(StubEncoder):
    """Embeds as a ``StubEncoder``, with a rotation by an angle unless it is exact.

    Args:
        backend: Its backend.
        precision: Its precision.
        angle: Angle between an exact embedding and another one, in radians.
        seconds: Duration of a batch.
        made: List that the encoder is added to.
        ways: The executions that it supports.
    """

    def __init__(
        self,
        *,
        backend: str = "torch",
        precision: str = "fp32",
        angle: float = 0.0,
        seconds: float = 0.0,
        made: list | None = None,
        ways: tuple[Execution, ...] = (EXACT, Execution("torch", "bf16")),
    ) -> None:
        super().__init__(seconds=seconds)
        self.backend = "torch" if backend == "auto" else backend
        self.precision = "fp32" if precision in ("auto", "exact") else precision
        self.angle, self.ways = angle, ways
        if made is not None:
            made.append(self)

    @property
    def executions(self):
        return self.ways

    @property
    def image_spec(self):
        return {**super().image_spec, "backend": self.backend, "precision": self.precision}

    def embed_pixels(self, pixels):
        rows = super().embed_pixels(pixels)
        if self.execution == EXACT:
            return rows
        # Rotated in the plane of the row and an orthogonal direction.
        away = np.zeros_like(rows)
        away[:, 0], away[:, 1] = rows[:, 1], -rows[:, 0]
        away *= (np.linalg.norm(rows, axis=1) / np.linalg.norm(away, axis=1))[:, np.newaxis]
        return np.cos(self.angle) * rows + np.sin(self.angle) * away
