"""Features other than the default ones: caches of their own, and what can be done with them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import featurecache as fc
from featurecache.datasets.dataset import Dataset
from featurecache.encoders.checkpoint_encoder import CheckpointEncoder
from featurecache.encoders.encoder import Encoder
from featurecache.errors import UsageError
from tests.extraction.stub_encoder import make_dataset

REFUSED: dict[str, Callable[[fc.Cache], object]] = {
    "embedding": lambda cache: cache.embedding,
    "arrays": lambda cache: cache.arrays(),
    "to_torch": lambda cache: cache.to_torch(),
    "train_head": lambda cache: fc.train_head(cache, "linear"),
    "zero_shot": lambda cache: fc.zero_shot(cache),
    "learning_curve": lambda cache: fc.learning_curve(cache, ["linear"], sizes=[2], seeds=1),
    "align": lambda cache: fc.align(cache),
    "retrieve": lambda cache: fc.retrieve(cache, image="i000"),
    "audit": lambda cache: fc.audit(cache),
    "join": lambda cache: fc.open_cache([cache, cache.path.with_name("tiny.pooled.h5")]),
    "studies": lambda cache: fc.open_cache(cache, level="study", study_features="mean").embedding,
}

CHOOSE = (
    "choose the head attentive, or give the cache of tiny that was extracted without `features`"
)
ADVICE = {
    "train_head": CHOOSE,
    "learning_curve": CHOOSE,
    "studies": "leave out `study_features`, so that the scores of images are joined",
}


def test_several_kinds_share_a_forward_pass_and_the_texts(
    dataset: Dataset, root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int]] = []

    def count(method: str) -> None:
        original = getattr(CheckpointEncoder, method)

        def counted(encoder: Encoder, values: Sequence[object], *args: object) -> object:
            calls.append((method, len(values)))
            return original(encoder, values, *args)

        monkeypatch.setattr(CheckpointEncoder, method, counted)

    options = {"cache_dir": cache, "precision": "exact", "batch_size": 4}
    some = make_dataset(root, dataset.images["id"].tolist()[2:5])
    fc.extract(some, "tiny", features="tokens:2", **options)
    for method in ("embed_features", "encode_texts"):
        count(method)
    kinds = ["projected", "tokens:2", "layers:-1,-2+mean"]
    together = fc.extract(dataset, "tiny", features=kinds, **options)
    assert calls.count(("embed_features", 4)) == 2
    assert calls.count(("embed_features", 2)) == 1
    assert len(calls) == 3 + 1 + 1  # the texts of the first cache, which also has negative ones
    for features, made in zip(kinds, together, strict=True):
        alone = fc.extract(
            dataset, "tiny", features=features, **{**options, "cache_dir": cache / features}
        )
        np.testing.assert_array_equal(made.mapped, alone.mapped)
        assert made.header.encoder_spec == alone.header.encoder_spec
        assert made.texts["signs"].aligned == alone.texts["signs"].aligned
        assert made.texts["signs"].scale == alone.texts["signs"].scale
    with pytest.raises(UsageError, match="give each `model` and `features` once"):
        fc.extract(dataset, "tiny", features=["mean", " MEAN"], **options)


def test_features_get_caches_of_their_own(dataset: Dataset, cache: Path) -> None:
    pooled, tokens = fc.extract(dataset, "tiny", features=["pooled", "tokens:2"], cache_dir=cache)
    default = fc.extract(dataset, "tiny", cache_dir=cache)
    assert sorted(path.name for path in (cache / "set").glob("*.h5")) == [
        "tiny.h5",
        "tiny.pooled.h5",
        "tiny.tokens-2.h5",
    ]
    assert [(one.features, one.n_tokens) for one in (default, pooled, tokens)] == [
        (None, None),
        ("pooled", None),
        ("tokens:2", 4),
    ]
    assert tokens.tokens.shape == (10, 4, 512)
    for made, stored in ((pooled, pooled.embedding), (tokens, tokens.tokens.reshape(10, -1))):
        encoder = fc.load_encoder("tiny", device="cpu", features=made.features)
        assert made.header.encoder_spec == encoder.image_spec
        files = [dataset.root / path for path in dataset.images["path"]]
        want = encoder.encode_images(files)
        np.testing.assert_allclose(stored, want, atol=1e-5, rtol=1e-3)
        assert "features: " + str(made.features) in repr(made)
    assert "4 tokens of 512 float16" in repr(tokens)
    assert not pooled.texts["signs"].aligned
    assert default.texts["signs"].aligned
    with pytest.raises(UsageError, match="holds one vector for each image"):
        _ = pooled.tokens
    for use_texts in (
        fc.zero_shot,
        partial(fc.retrieve, label="Edema"),
        partial(fc.retrieve, text="x"),
    ):
        with pytest.raises(UsageError, match=r"`features` pooled, .* not in the space of any"):
            use_texts(pooled)
    for name, use in REFUSED.items():
        advice = ADVICE.get(name, "give the cache of tiny that was extracted without `features`")
        message = f"holds 4 tokens of each image, but this needs one vector: {advice}"
        with pytest.raises(UsageError, match=message):
            pytest.fail(f"{name} used tokens: {use(tokens)!r}")


def test_estimate_counts_images_bytes_and_time_without_writing(
    dataset: Dataset, root: Path, cache: Path
) -> None:
    options = {"cache_dir": cache, "precision": "exact"}
    some = make_dataset(root, dataset.images["id"].tolist()[2:5])
    fc.extract(some, "tiny", features="pooled", **options)
    before = sorted(path.name for path in (cache / "set").iterdir())
    estimate = fc.estimate_extraction(dataset, "tiny", features=["pooled", "tokens:4"], **options)
    pooled, tokens = estimate.caches
    assert (pooled.path.name, pooled.images, pooled.to_encode) == ("tiny.pooled.h5", 10, 7)
    assert (tokens.path.name, tokens.images, tokens.to_encode) == ("tiny.tokens-4.h5", 10, 10)
    assert (pooled.bytes, tokens.bytes) == (10 * 512 * 2, 10 * 16 * 512 * 2)
    # They share a network: together they take as long as the one that needs all images.
    assert pooled.seconds / 7 == pytest.approx(tokens.seconds / 10)
    assert estimate.seconds == pytest.approx(tokens.seconds)
    assert tokens.basis == "8 images, measured now"
    assert sorted(path.name for path in (cache / "set").iterdir()) == before
    fc.extract(dataset, "tiny", features=["pooled"], **options)
    (finished,) = fc.estimate_extraction(dataset, "tiny", features=["pooled"], **options).caches
    assert (finished.to_encode, finished.seconds, finished.basis) == (0, 0, "nothing to encode")


def test_caches_that_do_not_fit_on_the_disk_are_refused_before_encoding(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Chunks of both, and then one finished file beside them.
    sizes = [10 * 4 * 512 * 2, 10 * 512 * 2]
    needed = sum(sizes) + sizes[0]
    module = "featurecache.extraction.disk_space.shutil.disk_usage"
    options = {"features": ["tokens:2", "pooled"], "cache_dir": cache, "precision": "exact"}
    monkeypatch.setattr(module, lambda folder: SimpleNamespace(free=needed - 1))
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointEncoder, "embed_features", lambda *_: pytest.fail("it encoded"))
        with pytest.raises(UsageError, match=r"40.0 KiB for tiny.tokens-2.h5, 10.0 KiB for"):
            fc.extract(dataset, "tiny", **options)
    assert not [*cache.rglob("*.h5*")]
    monkeypatch.setattr(module, lambda folder: SimpleNamespace(free=needed))
    fc.extract(dataset, "tiny", **options)
