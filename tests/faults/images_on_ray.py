"""Faults of the decoder in Ray's workers; some ten seconds a trial."""

import runpy
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from featurecache.encoders.encoder import Encoder
from featurecache.extraction.ray_engine import encode_on_ray
from tests.faults.images import Films, crashing


def _crashing(seed: int, folder: Path) -> str:
    """Ray begins a worker again, without end; it must not die of the same image again."""
    films = Films(seed, folder)
    for image_id in films.bad:
        crashing(films.path(image_id))
    helpers = Path(__file__).parents[1] / "extraction"
    paths = [str(helpers / "bad_decoder"), str(helpers)]

    # In here, for a worker does not find this module.
    def load() -> Encoder:
        if paths[0] not in sys.path:
            sys.path[:0] = paths  # for the children too
            runpy.run_path(f"{paths[0]}/sitecustomize.py", run_name="sitecustomize")
        from tests.extraction.stub_encoder import StubEncoder

        return StubEncoder()

    summary = films.run(engine=partial(encode_on_ray, loads=[load]))
    films.check_spared(summary.failed, ["the decoder crashed (SIGSEGV)"])
    return "recorded"


FAULTS: Mapping[str, Callable[[int, Path], str]] = {"decoder crashes on Ray": _crashing}
