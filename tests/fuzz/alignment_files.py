"""Alignments of two encoders."""

from pathlib import Path

import numpy as np

from featurecache.alignment.alignment import Alignment
from featurecache.errors import AlignmentError
from featurecache.provenance.records import ImageRecords
from tests.fuzz.changes import changed_safetensors
from tests.fuzz.readers import Reader


def _alignment(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    alignment = Alignment(
        weight=generator.standard_normal((6, 4)).astype(np.float32),
        offset=generator.standard_normal(4).astype(np.float32),
        scale=10.5,
        bias=-2.25,
        spec={"image_encoder": {"model": "m"}, "method": "ridge", "labels": ["Mass"]},
        trained_on={"nih": ImageRecords.of("nih", ["a.png", "ä.png"])},
    )
    return alignment.save(folder / "a.safetensors")


READERS = {
    "alignment": Reader(_alignment, Alignment.load, (AlignmentError,), changed_safetensors),
}
