"""Fine-tune in forked processes whose decoder crashes, until one of them finishes.

Run as ``bad_training.py IMAGES MODEL RUN``, with images.csv next to RUN and the bad decoder on
PYTHONPATH; prints the signals that ended the processes.
"""

import json
import os
import sys
from pathlib import Path

from featurecache.encoders.loading import load_encoder
from tests.finetune import killed_training

MAX_PROCESSES = 6


def main() -> None:
    images_root, model, target = (Path(argument) for argument in sys.argv[1:4])
    # Slow imports, once for all processes.
    import pandas  # noqa: F401

    load_encoder(str(model), device="cpu").trainable()
    ended: list[int] = []
    while not target.exists() and len(ended) < MAX_PROCESSES:
        process = os.fork()
        if not process:
            killed_training.tune(images_root, model, target)
            return  # the process must end by itself
        _, status = os.waitpid(process, 0)
        ended.append(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
    print(json.dumps(ended))


if __name__ == "__main__":
    main()
