"""Decoders that crash the process or never return."""

import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from featurecache.datasets.dataset import Dataset
from featurecache.extraction.update import ExtractionSummary, update_caches
from featurecache.store.reader import read_cache
from tests.extraction.run_extractions import (
    BATCH,
    Extractions,
    crashing,
    crashing_later,
    hanging,
    run_extractions,
)
from tests.extraction.stub_encoder import (
    StubEncoder,
    content,
    make_dataset,
    write_image,
    write_images,
)

IMAGES = 14
CRASHED = "the decoder crashed (SIGSEGV)"


def make_images(root: Path) -> Dataset:
    return make_dataset(root, write_images(root, IMAGES))


def run(dataset: Dataset, cache: Path) -> ExtractionSummary:
    (summary,) = update_caches(dataset, [StubEncoder()], cache_dir=cache, batch_size=BATCH)
    return summary


def without(dataset: Dataset, tmp_path: Path, bad: list[str]) -> dict[str, object]:
    """The result of an undisturbed extraction in which these images are merely damaged."""
    whole = {image_id: (dataset.root / f"{image_id}.png").read_bytes() for image_id in bad}
    for image_id in bad:
        (dataset.root / f"{image_id}.png").write_bytes(b"no image")
    expected = content(read_cache(run(dataset, tmp_path / "undisturbed").path))
    for image_id in bad:
        (dataset.root / f"{image_id}.png").write_bytes(whole[image_id])
    return {name: value for name, value in expected.items() if name != "failures"}


class Case(NamedTuple):
    """A data set with bad images, and what processes made of it.

    ``expected`` is the content of the cache if these images were merely damaged, without reasons.
    """

    work: Path
    dataset: Dataset
    expected: dict[str, object]
    results: list[Any]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """The cases of this file, made by one script."""
    bad = {
        "crashing": {"i005": crashing, "i009": crashing_later},  # when it is preprocessed
        "hanging": dict.fromkeys(("i002", "i003", "i009"), hanging),
        "suspected": dict.fromkeys(("i000", "i001"), crashing),
    }
    works = {name: tmp_path_factory.mktemp(name) for name in bad}
    datasets = {name: make_images(work / "data") for name, work in works.items()}
    # Those that are merely suspected are whole in the end.
    damaged = {name: [] if name == "suspected" else list(images) for name, images in bad.items()}
    expected = {name: without(datasets[name], works[name], damaged[name]) for name in bad}
    for name, images in bad.items():
        for image_id, spoil in images.items():
            spoil(datasets[name].root / f"{image_id}.png")
    results = run_extractions(
        Extractions(works["crashing"], 4),
        Extractions(works["hanging"], 1, seconds=0.3),
        Extractions(works["suspected"], 1),
    )
    return {
        name: Case(works[name], datasets[name], expected[name], found)
        for name, found in zip(bad, results, strict=True)
    }


def test_crashing_images_cost_one_process_each_and_no_other_image(cases: dict[str, Case]) -> None:
    work, dataset, expected, (*deaths, last, again) = cases["crashing"]
    bad = ["i005", "i009"]
    assert deaths == [signal.SIGSEGV] * 2
    assert last["failed"] == dict.fromkeys(bad, CRASHED)
    # A recorded crash is not repeated.
    assert again == {"done": 0, "failed": last["failed"], "written": False}
    made = content(read_cache(work / "cache/set/stub.h5"))
    assert made | expected == made
    assert made["failures"] == last["failed"]

    for image_id in bad:
        write_image(dataset.root / f"{image_id}.png", int(image_id[1:]))
    summary = run(dataset, work / "cache")
    assert (summary.done, summary.failed, summary.images) == (2, {}, IMAGES)
    assert {path.name for path in summary.path.parent.iterdir()} == {"stub.h5", "stub.h5.lock"}


def test_hanging_image_is_recorded_and_process_ends(cases: dict[str, Case]) -> None:
    work, dataset, expected, (result,) = cases["hanging"]
    assert result["failed"] == dict.fromkeys(["i002", "i003", "i009"], "took longer than 0.3 s")
    made = content(read_cache(work / "cache/set/stub.h5"))
    assert made | expected == made
    summary = run(dataset, work / "cache")
    assert (summary.done, summary.failed, summary.images) == (3, {}, IMAGES)


def test_suspected_images_are_decoded_in_subprocess_to_same_pixels(cases: dict[str, Case]) -> None:
    work, dataset, expected, results = cases["suspected"]
    assert results == [signal.SIGSEGV]
    assert (work / "cache/set/stub.h5.parts/crash_journal").stat().st_size
    write_image(dataset.root / "i000.png", 0)
    write_image(dataset.root / "i001.png", 1)
    made = content(read_cache(run(dataset, work / "cache").path))
    assert made["failures"] == {}
    for name in ("embedding", "labels"):
        assert made[name] == expected[name]
