"""Extractions that are killed after some images, one in each execution that is named.

python -m tests.extraction.killed_executions MODEL IMAGES CACHE BACKEND:PRECISION ...
"""

import os
import signal
import sys

from featurecache.encoders.loading import load_encoder
from featurecache.extraction import pipeline
from featurecache.extraction.extract import extract

FEATURES = ["projected", "layers:-1,-2+mean", "tokens:2"]
IMAGES = 5
"""Number of finished images after which an extraction is killed."""


def main() -> None:
    model, images, cache, *executions = sys.argv[1:]
    pipeline.FLUSH_SECONDS = 0.0
    load_encoder(model)  # slow imports, once for all processes

    def progress(finished: int, total: int) -> None:
        if finished == IMAGES:
            os.kill(os.getpid(), signal.SIGKILL)

    for execution in executions:
        backend, precision = execution.split(":")
        if not os.fork():  # no library has started threads yet
            extract(
                images,
                model,
                cache_dir=os.path.join(cache, execution),  # noqa: PTH118
                backend=backend,
                precision=precision,
                features=FEATURES,
                batch_size=2,
                progress=progress,
            )
            os._exit(1)
    for _ in executions:
        _, status = os.wait()
        if not os.WIFSIGNALED(status):
            raise SystemExit("an extraction was not killed")


if __name__ == "__main__":
    main()
