"""A process that extracts on Ray with an encoder that never finishes a segment."""

import sys
from functools import partial
from pathlib import Path

STORED = "stored a batch\n"
"""Printed to stderr when a batch has been added to the cache."""


def _extract(folder: Path, batch_size: int) -> None:
    from featurecache.extraction.ray_engine import encode_on_ray
    from featurecache.extraction.update import update_caches
    from tests.extraction.stub_encoder import StubEncoder, make_dataset

    # A local function, because workers cannot import this module.
    def load() -> StubEncoder:
        import time

        from tests.extraction.stub_encoder import Array, StubEncoder

        class Stuck(StubEncoder):
            """Encodes one batch."""

            def embed_pixels(self, pixels: Array) -> Array:
                if self.batches:
                    time.sleep(600)
                return super().embed_pixels(pixels)

        return Stuck()

    def progress(finished: int, _: int) -> None:
        if finished == batch_size:
            print(STORED, end="", file=sys.stderr, flush=True)

    update_caches(
        make_dataset(folder / "data", sorted(path.stem for path in (folder / "data").iterdir())),
        [StubEncoder()],
        cache_dir=folder / "cache",
        batch_size=batch_size,
        engine=partial(encode_on_ray, loads=[load]),
        progress=progress,
    )


if __name__ == "__main__":
    import typer

    from featurecache.cli.errors import RESUMABLE, with_exit_code

    folder, size = Path(sys.argv[1]), int(sys.argv[2])
    app = typer.Typer()
    app.command()(with_exit_code(lambda: _extract(folder, size), interrupted=RESUMABLE))
    app([])
