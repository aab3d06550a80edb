"""A cache is continued with other versions of the libraries if they embed its images alike."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from featurecache.errors import CacheError, FeaturecacheWarning
from featurecache.extraction.update import update_caches
from featurecache.prompts import PROMPT_SETS
from featurecache.store.merge import Shard, merge_caches
from featurecache.store.reader import read_cache
from tests.extraction.stub_encoder import StubEncoder, make_dataset, write_images

SIGNS = PROMPT_SETS["signs"]


class Upgraded(StubEncoder):
    """The stub encoder with some version of torch, which may turn its embeddings a little."""

    def __init__(self, torch: str = "2.13", *, turn: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.torch = torch
        self.turn = turn

    @property
    def image_spec(self) -> Mapping[str, Any]:
        return {**super().image_spec, "libraries": {"torch": self.torch}}

    @property
    def text_spec(self) -> Mapping[str, Any]:
        return {**super().text_spec, "libraries": {"torch": self.torch}}

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        embedding = super().embed_pixels(pixels)
        embedding[:, 0] *= 1 + self.turn
        return embedding


def run(dataset, cache, encoder, **options):
    (summary,) = update_caches(dataset, [encoder], cache_dir=cache, prompts=SIGNS, **options)
    return summary


@pytest.fixture
def made(dataset, cache):
    """The cache of a data set, made with torch 2.12."""
    return run(dataset, cache, Upgraded("2.12"))


def test_updates_without_the_encoder_go_through(dataset, cache, made) -> None:
    """Also if the new versions embed otherwise: new labels and splits, fewer images, a deletion."""
    before = read_cache(made.path)
    embedding = np.array(before.embedding[:7])
    new = Upgraded(turn=1.0)
    changed = replace(
        dataset,
        images=dataset.images.assign(split="train"),
        labels=1 - dataset.labels.clip(lower=0),
    ).take(np.arange(7))
    summary = run(changed, cache, new, prune=True)
    after = read_cache(summary.path)
    assert summary.changed == {"label": 7, "split": 4, "removed": 3}
    assert (new.batches, new.texts) == ([], [])
    assert (after.fingerprint, after.header.libraries) == (before.fingerprint, ())
    np.testing.assert_array_equal(after.embedding, embedding)
    assert run(changed, cache, new).written is False


def test_versions_that_embed_alike_are_accepted_and_recorded(root, cache, made) -> None:
    larger = make_dataset(root, [f"i{n:03d}" for n in range(10)] + write_images(root, 3, start=10))
    new = Upgraded()
    with pytest.warns(FeaturecacheWarning, match=r"'2.12' against '2.13'.*8 of its images"):
        summary = run(larger, cache, new)
    assert [len(batch) for batch in new.batches] == [8, 3]
    stored = read_cache(summary.path).header
    assert stored.encoder_spec["libraries"] == {"torch": "2.12"}
    assert stored.libraries == ({"torch": "2.13"},)
    # They are compared once; both versions continue the cache.
    larger = make_dataset(root, [*larger.images["id"], *write_images(root, 1, start=13)])
    again = Upgraded()
    assert run(larger, cache, again).done == 1
    assert again.encoded == [13]
    assert run(larger, cache, Upgraded("2.12")).written is False


@pytest.mark.parametrize("texts", [False, True])
def test_versions_that_embed_otherwise_are_refused(root, cache, made, texts) -> None:
    content = made.path.read_bytes()
    dataset = make_dataset(root, [f"i{n:03d}" for n in range(10)])
    prompts = replace(SIGNS, templates=("a {pathology}",)) if texts else SIGNS
    if not texts:
        dataset = make_dataset(root, [*dataset.images["id"], *write_images(root, 1, start=10)])
    with pytest.raises(CacheError, match=r"torch: '2.12' against '2.13'\), and they change"):
        update_caches(dataset, [Upgraded(turn=0.1)], cache_dir=cache, prompts=prompts)
    for number in range(10):
        (root / f"i{number:03d}.png").unlink()
    with pytest.raises(CacheError, match="none of its images can be read"):
        update_caches(dataset, [Upgraded()], cache_dir=cache, prompts=prompts)
    assert made.path.read_bytes() == content


def test_other_weights_are_refused_whatever_the_versions(dataset, cache, made) -> None:
    with pytest.raises(CacheError, match=r"checkpoint: 'one' against 'two'"):
        run(dataset, cache, Upgraded(checkpoint="two"))


def test_merged_shards_name_all_versions(root, dataset, cache) -> None:
    options = {"shard": Shard(1, 2), "limit": 3}
    paths = [run(dataset, cache, Upgraded("2.12"), shard=Shard(2, 2)).path]
    run(dataset, cache, Upgraded("2.12"), **options)
    with pytest.warns(FeaturecacheWarning, match="3 of its images"):
        paths.append(run(dataset, cache, Upgraded(), shard=Shard(1, 2)).path)
    assert read_cache(merge_caches(paths)[0]).header.libraries == ({"torch": "2.13"},)
