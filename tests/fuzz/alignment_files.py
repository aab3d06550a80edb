"""Alignments of two encoders."""

from pathlib import Path

import numpy as np

from featurecache.alignment.alignment import Alignment, read_alignment, write_alignment
from featurecache.errors import AlignmentError
from tests.fuzz.changes import changed_safetensors
from tests.fuzz.readers import Reader


def _alignment(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    made = Alignment(
        weight=generator.standard_normal((6, 4)).astype(np.float32),
        offset=generator.standard_normal(4).astype(np.float32),
        scale=10.5,
        bias=-2.25,
        spec={"image_encoder": {"model": "m"}, "method": "ridge", "labels": ["Mass"]},
        trained_on={"films": frozenset({"a.png", "ä.png"})},
    )
    write_alignment(folder / "a.safetensors", made)
    return folder / "a.safetensors"


READERS = {
    "alignment": Reader(_alignment, read_alignment, (AlignmentError,), changed_safetensors),
}
