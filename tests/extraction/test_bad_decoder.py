"""Decoders that crash the process or never return."""

import signal
from pathlib import Path

from featurecache.datasets.dataset import Dataset
from featurecache.extraction.update import ExtractionSummary, update_caches
from featurecache.store.reader import read_cache
from tests.extraction.run_extractions import (
    BATCH,
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


def test_crashing_images_cost_one_process_each_and_no_other_image(
    tmp_path: Path,
) -> None:
    dataset = make_images(tmp_path / "data")
    bad = ["i005", "i009"]
    expected = without(dataset, tmp_path, bad)
    crashing(dataset.root / "i005.png")
    crashing_later(dataset.root / "i009.png")  # when it is preprocessed
    *deaths, last, again = run_extractions(tmp_path, 4)
    assert deaths == [signal.SIGSEGV] * 2
    assert last["failed"] == dict.fromkeys(bad, CRASHED)
    # A recorded crash is not repeated.
    assert again == {"done": 0, "failed": last["failed"], "written": False}
    made = content(read_cache(tmp_path / "cache/set/stub.h5"))
    assert made | expected == made
    assert made["failures"] == last["failed"]

    for image_id in bad:
        write_image(dataset.root / f"{image_id}.png", int(image_id[1:]))
    summary = run(dataset, tmp_path / "cache")
    assert (summary.done, summary.failed, summary.images) == (2, {}, IMAGES)
    assert {path.name for path in summary.path.parent.iterdir()} == {"stub.h5", "stub.h5.lock"}


def test_hanging_image_is_recorded_and_process_ends(tmp_path: Path) -> None:
    dataset = make_images(tmp_path / "data")
    bad = ["i002", "i003", "i009"]
    expected = without(dataset, tmp_path, bad)
    for image_id in bad:
        hanging(dataset.root / f"{image_id}.png")
    (result,) = run_extractions(tmp_path, 1, seconds=0.3)
    assert result["failed"] == dict.fromkeys(bad, "took longer than 0.3 s")
    made = content(read_cache(tmp_path / "cache/set/stub.h5"))
    assert made | expected == made
    summary = run(dataset, tmp_path / "cache")
    assert (summary.done, summary.failed, summary.images) == (3, {}, IMAGES)


def test_suspected_images_are_decoded_in_subprocess_to_same_pixels(tmp_path: Path) -> None:
    dataset = make_images(tmp_path / "data")
    expected = content(read_cache(run(dataset, tmp_path / "undisturbed").path))
    crashing(dataset.root / "i000.png")
    crashing(dataset.root / "i001.png")
    assert run_extractions(tmp_path, 1) == [signal.SIGSEGV]
    assert (tmp_path / "cache/set/stub.h5.parts/crash_journal").stat().st_size
    write_image(dataset.root / "i000.png", 0)
    write_image(dataset.root / "i001.png", 1)
    made = content(read_cache(run(dataset, tmp_path / "cache").path))
    for name in ("embedding", "labels", "failures"):
        assert made[name] == expected[name]
