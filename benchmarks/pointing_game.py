"""Whether a head on the tokens of a frozen encoder looks at the finding, on NIH and phantom.

    python benchmarks/pointing_game.py --data DATA --boxes BBox_List_2017.csv --cache CACHE
                                       [--model dinov2-small] [--seeds 5]

DATA holds the folder nih, CACHE keeps the tokens. The head ``attentive`` is trained on a grid of
7 x 7 tokens. Of phantom, the test images are scored, and the threshold of the intersection over
union is chosen on validation. Few images of NIH have boxes: each is scored by heads that were
trained and selected on the other patients, in five folds, and no threshold is chosen. Each image
counts once for each seed; 95 % intervals are over patients.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import featurecache as fc
from featurecache.datasets.boxes import read_box_file
from featurecache.evaluation.label_matching import match_labels
from featurecache.evaluation.localization import boxed_labels
from featurecache.evaluation.trained_model import TrainedModel
from featurecache.metrics.localization import BoxedLabel, Localization, measure_localization
from featurecache.store.records import positions, to_utf8

if TYPE_CHECKING:
    import pandas as pd

FOLDS = 5


def main() -> None:
    """Train, score and print a table for each data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("data", "boxes", "cache"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--model", default="dinov2-small")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()

    def extract(data: fc.Dataset) -> fc.Cache:
        (cache,) = fc.extract(
            data,
            [arguments.model],
            features="tokens:7",
            precision="exact",
            cache_dir=arguments.cache,
        )
        return cache

    phantom = fc.load_dataset("phantom")
    cache = extract(phantom)
    assert phantom.boxes is not None
    pairs = list(score(cache, phantom.boxes, ("test", "val"), arguments.seeds))
    scored, validation = ([one for split in pairs for one in split[which]] for which in (0, 1))
    show("phantom", measure_localization(scored, validation), arguments.seeds)

    def fold(number: int) -> fc.Dataset:
        return fc.load_dataset("nih", arguments.data, split="patient", folds=FOLDS, fold=number)

    cache, boxes = extract(fold(1)), read_box_file(arguments.boxes, notes=[])
    scored = []
    for number in range(1, FOLDS + 1):
        images = fold(number).images
        rows = positions(to_utf8(images["id"]), cache.images.id)
        split = to_utf8(images["split"])[rows]
        of_fold = replace(cache, images=replace(cache.images, split=split))
        pairs = list(score(of_fold, boxes, ("test",), arguments.seeds))
        scored += [one for (of_test,) in pairs for one in of_test]
    show("NIH", measure_localization(scored, []), arguments.seeds)


def score(
    cache: fc.Cache, boxes: "pd.DataFrame", splits: tuple[str, ...], seeds: int
) -> Iterator[list[list[BoxedLabel]]]:
    """Yield, for each seed, the boxed labels of the images of some splits."""
    names = cache.labels.names
    matches = match_labels(names, names)
    for seed in range(seeds):
        run = fc.train_head(cache, "attentive", seed=seed, controls=False, n_bootstrap=0)
        assert isinstance(run.model, TrainedModel)
        yield [
            list(
                boxed_labels(
                    cache,
                    boxes,
                    run.model.attention,
                    np.flatnonzero(cache.splits == split),
                    labels=run.model.labels,
                    matches=matches,
                )
            )
            for split in splits
        ]


def show(name: str, result: Localization, seeds: int) -> None:
    """Print the scores of a data set as rows of a table."""
    print(
        f"\n{name}: {result.n // seeds} positive labels with boxes in {result.n_images} images of"
    )
    print(f"{result.n_patients} patients, {seeds} seeds; threshold {result.threshold}\n")
    print("| label | n | pointing game | center | difference | IoU | center | difference |")
    print("|---|---|---|---|---|---|---|---|")
    gain = result.gain
    cells = []
    for metric in ("pointing_game", "iou"):
        for scores in (result.maps, result.center):
            cells.append(interval(getattr(scores, metric), getattr(scores.ci95, metric)))
        difference = getattr(gain, metric)
        cells.append(interval(difference.difference, difference.ci95, signed=True))
    print(f"| all | {result.n // seeds} | {' | '.join(cells)} |")
    for label, of_label in result.per_label.items():
        cells = []
        for metric in ("pointing_game", "iou"):
            for scores in (of_label.maps, of_label.center):
                cells.append(interval(getattr(scores, metric), getattr(scores.ci95, metric)))
            cells.append("")
        print(f"| {label} | {of_label.n // seeds} | {' | '.join(cells)} |", flush=True)


def interval(value: float | None, ci95: tuple[float, float] | None, *, signed: bool = False) -> str:
    """Return a value with its interval in brackets; a dash where it is undefined."""
    number = "{:+.3f}" if signed else "{:.3f}"
    if value is None:
        return "–"
    text = number.format(value)
    if ci95 is not None:
        text += f" [{number.format(ci95[0])}, {number.format(ci95[1])}]"
    return text.replace("-", "−")


if __name__ == "__main__":
    main()
