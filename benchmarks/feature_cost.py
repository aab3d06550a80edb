"""What further kinds of features cost in one extraction.

    python benchmarks/feature_cost.py --data DATA [--model dinov2-small] [--n-images 64]
                                      [--rounds 5]

DATA holds the folder nih. Extractions of one kind of features and of three, from files to finished
caches, take turns on the same images. The time is that of the processor in this process, on one
thread, so that other processes disturb little. Decoding, in a process of its own, is not in it; it
is the same for both, so the ratio is, if anything, too high.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

import featurecache as fc

ONE = ("cls",)
THREE = ("cls+mean", "layers:-1,-2,-3,-4+mean", "tokens:7")


def main() -> None:
    """Extract in turns and print the median ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="dinov2-small")
    parser.add_argument("--n-images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = fc.load_dataset("nih", arguments.data)

    def seconds(features: tuple[str, ...]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            fc.extract(
                dataset,
                arguments.model,
                features=list(features),
                cache_dir=folder,
                limit=arguments.n_images,
                precision="exact",
                device="cpu",
            )
            return time.process_time() - start

    seconds(ONE)  # reads the weights
    one, three = [], []
    for _ in range(arguments.rounds):
        one.append(seconds(ONE))
        three.append(seconds(THREE))
    ratios = [b / a for a, b in zip(one, three, strict=True)]
    print(
        f"{arguments.n_images} images of {arguments.model}, {arguments.rounds} rounds: "
        f"{statistics.median(one):.2f} s for {ONE[0]}, {statistics.median(three):.2f} s for "
        f"{', '.join(THREE)}; ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to "
        f"{max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
