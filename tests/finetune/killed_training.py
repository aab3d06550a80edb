"""Fine-tune in forked processes that are killed by SIGKILL, and in ones whose decoder crashes.

Run as ``killed_training.py FOLDER MODEL SEED`` with the bad decoder on PYTHONPATH: makes the runs
FOLDER/disturbed, of FOLDER/images, and FOLDER/crashed, of FOLDER/bad-images. Prints a JSON report:
the steps after which processes were killed, and the signals that ended those of the bad images.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from featurecache.datasets.csv import load_csv
from featurecache.encoders.loading import load_encoder
from featurecache.finetune import training
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.run import train_encoder

KILLS = 3
MAX_PROCESSES = 6
CONFIG = FinetuneConfig(
    "contrastive", epochs=2, batch_size=12, micro_batch_size=6, learning_rate=1e-3, precision="fp32"
)


def tune(images_root: Path, model: Path, target: Path, pipe: int | None = None) -> None:
    """Fine-tune; write a byte into ``pipe`` at each step."""
    # Every step is saved, so that most processes continue in the middle of an epoch.
    training.SAVE_SECONDS = 0.0
    train_encoder(
        load_csv(
            target.with_name("images.csv"),
            images_root=images_root,
            labels=["Opacity", "Nodule"],
            patient="patient",
            split="split",
        ),
        load_encoder(str(model), device="cpu"),
        CONFIG,
        target=target,
        workers=1,
        n_bootstrap=0,
        progress=None if pipe is None else lambda *_: os.write(pipe, b"x") and None,
    )


def kill_at_random(images_root: Path, model: Path, target: Path, rng: random.Random) -> int | None:
    """Kill a process within its first steps; return their number, or None if it finished."""
    steps, pipe = os.pipe()
    process = os.fork()
    if not process:
        tune(images_root, model, target, pipe)
        os._exit(0)
    os.close(pipe)
    os.read(steps, 1)
    time.sleep(rng.uniform(0, 0.08))
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    seen = 1 + len(os.read(steps, 4096))
    os.close(steps)
    return seen if os.WIFSIGNALED(status) else None


def tune_despite_crashes(images_root: Path, model: Path, target: Path) -> list[int]:
    """Start processes until one finishes; return the signals that ended them, 0 for none."""
    ended: list[int] = []
    while not target.exists() and len(ended) < MAX_PROCESSES:
        process = os.fork()
        if not process:
            tune(images_root, model, target)
            sys.exit()  # the process must end by itself
        _, status = os.waitpid(process, 0)
        ended.append(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
    return ended


def main() -> None:
    folder, model, rng = Path(sys.argv[1]), Path(sys.argv[2]), random.Random(int(sys.argv[3]))
    images_root, disturbed = folder / "images", folder / "disturbed"
    # Slow imports, once for all processes.
    import pandas  # noqa: F401

    load_encoder(str(model), device="cpu").trainable()
    killed = [kill_at_random(images_root, model, disturbed, rng) for _ in range(KILLS)]
    ended = tune_despite_crashes(folder / "bad-images", model, folder / "crashed")
    if not disturbed.exists():
        tune(images_root, model, disturbed)
    kills = [steps for steps in killed if steps is not None]
    print(json.dumps({"kills": kills, "ended": ended}))


if __name__ == "__main__":
    main()
