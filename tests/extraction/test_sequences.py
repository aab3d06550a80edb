"""Whatever happens to a data set, its cache ends like one from a single extraction."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.datasets.dataset import Dataset
from featurecache.extraction.update import update_caches
from featurecache.prompts import PROMPT_SETS
from featurecache.store.chunks import ChunkFolder
from featurecache.store.layout import chunks_path
from featurecache.store.reader import read_cache
from featurecache.store.verify import verify_cache
from tests.extraction.stub_encoder import (
    NOT_FINITE,
    StubEncoder,
    content,
    make_dataset,
    touch,
    write_image,
)

SLOTS = 12
IMAGES = st.integers(1, SLOTS - 1)
STEPS = st.one_of(
    st.tuples(st.just("put"), IMAGES, st.integers(0, 255)),
    st.tuples(st.just("spoil"), IMAGES, st.sampled_from(["no image", "nan", "missing"])),
    st.tuples(st.just("touch"), IMAGES, st.none()),
    st.tuples(st.just("remove"), IMAGES, st.none()),
    st.tuples(st.just("run"), st.none(), st.none()),
    st.tuples(st.just("limit"), st.integers(1, SLOTS), st.none()),
    st.tuples(st.just("interrupt"), st.integers(0, SLOTS), st.none()),
    st.tuples(st.just("prompts"), st.none(), st.sampled_from(["showing", "lungs"])),
)


class Stopped(Exception):  # noqa: N818
    """Interrupts an extraction."""


def stop_at(position: int) -> Callable[[int, int], None]:
    def progress(finished: int, total: int) -> None:
        if finished == position:
            raise Stopped

    return progress


def run(
    dataset: Dataset,
    cache: Path,
    *,
    prompts: str | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    update_caches(
        dataset,
        [StubEncoder()],
        cache_dir=cache,
        prompts=PROMPT_SETS[prompts] if prompts else None,
        limit=limit,
        batch_size=2,
        prune=True,
        progress=progress,
    )


@settings(max_examples=8, deadline=None)
@given(
    steps=st.lists(STEPS, min_size=2, max_size=14),
    labels=st.lists(st.sampled_from([1, 0, -1]), min_size=SLOTS, max_size=SLOTS),
)
def test_any_sequence_ends_like_a_fresh_extraction(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, int, object]],
    labels: list[int],
) -> None:
    folder = tmp_path_factory.mktemp("sequence")
    root, cache = folder / "data", folder / "cache"
    present = {0}  # one image is always present and readable
    write_image(root / "i000.png", 7)
    prompts: set[str] = set()

    def dataset() -> Dataset:
        ids = [f"i{slot:03d}" for slot in sorted(present)]
        values = np.array([[labels[slot]] for slot in sorted(present)], np.int8)
        return make_dataset(root, ids, labels=values, label_names=("Mass",))

    for step, slot, value in steps:
        path = root / f"i{slot or 0:03d}.png"
        match step:
            case "put":
                write_image(path, int(str(value)))
                present.add(slot)
            case "spoil" if slot in present:
                # A missing file keeps its embedding, so the result would depend on history.
                if value == "missing" and slot in stored(cache):
                    continue
                if value == "missing":
                    path.unlink(missing_ok=True)
                elif value == "nan":
                    write_image(path, NOT_FINITE)
                else:
                    path.write_bytes(b"no image")
            case "touch" if path.exists() and slot:
                touch(path)
            case "remove":
                present.discard(slot)
            case "run":
                run(dataset(), cache)
            case "limit":
                run(dataset(), cache, limit=slot)
            case "interrupt":
                with contextlib.suppress(Stopped):
                    run(dataset(), cache, progress=stop_at(slot))
            case "prompts":
                run(dataset(), cache, prompts=str(value))
                prompts.add(str(value))

    run(dataset(), cache)
    fresh = folder / "fresh"
    for name in sorted(prompts) or [None]:
        run(dataset(), fresh, prompts=name)
    made = cache / "set" / "stub.h5"
    assert content(read_cache(made)) == content(read_cache(fresh / "set" / "stub.h5"))
    assert verify_cache(made) == []


def stored(cache: Path) -> set[int]:
    """The slots that have an embedding in the cache or its chunks."""
    path = cache / "set" / "stub.h5"
    ids = set(read_cache(path).ids.tolist()) if path.exists() else set()
    folder = ChunkFolder(chunks_path(path), StubEncoder().image_spec, "set")
    for part in folder.read():
        ids |= set(part.id.tolist())
    return {int(image_id[1:]) for image_id in ids}
