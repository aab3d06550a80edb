"""A decoder that crashes in workers of Ray. A trial takes about ten seconds."""

import runpy
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from featurecache.encoders.encoder import Encoder
from featurecache.extraction.ray_engine import encode_on_ray
from tests.faults.images import ImageFolder, crashing


def _crash(seed: int, folder: Path) -> str:
    """Ray restarts crashed workers without limit: the same image must not crash them again."""
    images = ImageFolder(seed, folder)
    for image_id in images.bad:
        crashing(images.path(image_id))
    helpers = Path(__file__).parents[1] / "extraction"
    paths = [str(helpers / "bad_decoder"), str(helpers)]

    # A local function, because workers cannot import this module.
    def load() -> Encoder:
        if paths[0] not in sys.path:
            sys.path[:0] = paths  # also in subprocesses
            runpy.run_path(f"{paths[0]}/sitecustomize.py", run_name="sitecustomize")
        from tests.extraction.stub_encoder import StubEncoder

        return StubEncoder()

    summary = images.extract(engine=partial(encode_on_ray, loads=[load]))
    images.check_cache(summary.failed, ["the decoder crashed (SIGSEGV)"])
    return "recorded"


FAULTS: Mapping[str, Callable[[int, Path], str]] = {"decoder crashes on Ray": _crash}
