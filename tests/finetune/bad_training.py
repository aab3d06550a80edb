"""Fine-tunings whose decoder crashes, one after another until one gets to its end.

Run as ``bad_training.py FILMS MODEL RUN``, with films.csv beside RUN and the bad decoder on
PYTHONPATH; prints the signals that they ended by. Each is a forked process.
"""

import json
import os
import sys
from pathlib import Path

from featurecache.encoders.loading import load_encoder
from tests.finetune import killed_training

MOST = 6


def main() -> None:
    films, model, target = (Path(argument) for argument in sys.argv[1:4])
    # What takes long to load is loaded here, once for all of them.
    load_encoder(str(model), device="cpu").trainable()
    ended: list[int] = []
    while not target.exists() and len(ended) < MOST:
        process = os.fork()
        if not process:
            killed_training.tune(films, model, target)
            return  # and to the end of the process, which must come
        _, status = os.waitpid(process, 0)
        ended.append(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
    print(json.dumps(ended))


if __name__ == "__main__":
    main()
