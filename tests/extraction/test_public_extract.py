"""``fc.extract``: what it accepts, what it decides, and what it returns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import featurecache as fc
from featurecache.datasets.dataset import Dataset
from featurecache.errors import PromptError, UnknownNameError, UsageError
from featurecache.execution import EXACT
from featurecache.extraction.extract import _decoding_threads
from featurecache.prompts import PROMPT_SETS
from featurecache.store.layout import lock_path
from tests.extraction.stub_encoder import StubEncoder, write_images


def test_model_name_gives_cache_with_default_prompts(dataset: Dataset, cache: Path) -> None:
    made = fc.extract(dataset, "tiny", cache_dir=str(cache))
    assert isinstance(made, fc.Cache)
    assert made.path == cache / "set" / "tiny.h5"
    assert made.ids.tolist() == dataset.images["id"].tolist()
    assert list(made.texts) == ["signs"]


@pytest.mark.parametrize(
    ("device", "gpus", "expected"), [("cpu", 0, 2), ("cuda", 0, 9), ("cuda", 2, 4), ("cuda", 8, 2)]
)
def test_gpu_has_a_decoding_thread_for_each_core(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, expected: int
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 9)
    encoder = StubEncoder()
    encoder.device = device
    assert _decoding_threads([encoder], gpus) == expected


def test_list_of_models_gives_list_of_caches(dataset: Dataset, cache: Path) -> None:
    first, second = fc.extract(dataset, [StubEncoder("a"), StubEncoder("b")], cache_dir=cache)
    assert [first.header.model, second.header.model] == ["a", "b"]
    (only,) = fc.extract(dataset, [StubEncoder("a")], cache_dir=cache)
    assert only.path == first.path


def test_folder_of_images_is_a_data_set(root: Path, cache: Path) -> None:
    write_images(root / "normal", 3)
    write_images(root / "pneumonia", 3)
    made = fc.extract(str(root), StubEncoder(), cache_dir=cache)
    assert len(made.ids) == 6
    again = fc.extract(("folder", root), StubEncoder(), cache_dir=cache)
    assert again.path == made.path


def test_prompts_may_be_name_file_or_object(dataset: Dataset, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"name": "mine", "templates": ["{pathology} it is"]}')
    for prompts in ("lungs", file, PROMPT_SETS["showing"]):
        made = fc.extract(dataset, StubEncoder(), prompts=prompts, cache_dir=cache)
    assert sorted(made.texts) == ["lungs", "mine", "showing"]
    with pytest.raises(PromptError):
        fc.extract(dataset, StubEncoder(), prompts=tmp_path / "none.json", cache_dir=cache)


def test_model_without_text_gets_no_prompts_unless_they_are_given(
    dataset: Dataset, cache: Path
) -> None:
    vision = StubEncoder(has_text=False)
    assert fc.extract(dataset, vision, cache_dir=cache).texts == {}
    with pytest.raises(UsageError, match="has no text encoder: leave out `prompts`"):
        fc.extract(dataset, vision, prompts="signs", cache_dir=cache)


def test_prompts_are_for_those_of_several_models_that_have_text(
    dataset: Dataset, cache: Path
) -> None:
    models = [StubEncoder("dual"), StubEncoder("vision", has_text=False)]
    made = fc.extract(dataset, models, prompts="lungs", cache_dir=cache)
    assert [list(one.texts) for one in made] == [["lungs"], []]


def test_execution_is_measured_and_kept(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = "featurecache.extraction.choose_execution"
    monkeypatch.setattr(f"{choose}.is_worthwhile", lambda *args, **options: True)
    monkeypatch.setattr(f"{choose}.fastest_execution", lambda probe, candidates: candidates[1])
    monkeypatch.setattr("featurecache.extraction.probe.MIN_SECONDS", 1e-9)
    made = fc.extract(dataset, "tiny", backend="torch", batch_size=2, cache_dir=cache)
    assert made.header.encoder_spec["precision"] == "bf16"
    precisions = [one["precision"] for one in made.header.probe["measurements"]]
    assert precisions == ["fp32", "bf16", "bf16-weights"]
    # The cache keeps its execution, whatever a new measurement would say.
    monkeypatch.setattr(f"{choose}.fastest_execution", lambda probe, candidates: EXACT)
    assert fc.extract(dataset, "tiny", cache_dir=cache).header.encoder_spec["precision"] == "bf16"


def test_encoder_keeps_its_execution(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = "featurecache.extraction.choose_execution"
    monkeypatch.setattr(f"{choose}.is_worthwhile", lambda *args, **options: True)
    made = fc.extract(dataset, fc.load_encoder("tiny", precision="bf16"), cache_dir=cache)
    assert made.header.encoder_spec["precision"] == "bf16"
    assert made.header.probe is None


def test_shard_is_given_as_text(dataset: Dataset, cache: Path) -> None:
    made = fc.extract(dataset, StubEncoder(), shard="2/3", cache_dir=cache)
    assert made.ids.tolist() == ["i001", "i004", "i007"]
    for text in ("2", "a/b", "0/3", "4/3"):
        with pytest.raises(UsageError, match="give I/N"):
            fc.extract(dataset, StubEncoder(), shard=text, cache_dir=cache)


def test_waiting_for_another_process_is_optional(
    dataset: Dataset, cache: Path, stub_path: Path
) -> None:
    fc.extract(dataset, StubEncoder(), cache_dir=cache)
    with (
        FileLock(lock_path(stub_path)),
        pytest.raises(UsageError, match="another process"),
    ):
        fc.extract(dataset, StubEncoder(), cache_dir=cache)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": []}, UsageError, "give at least one `model`"),
        ({"model": "tiny", "engine": "rya"}, UnknownNameError, "did you mean ray"),
        ({"model": ["tiny", "clip"], "weights": "w"}, UsageError, "give a single `model`"),
        ({"model": StubEncoder(), "weights": "w"}, UsageError, "leave out `weights`"),
        ({"model": "tinny"}, UnknownNameError, "did you mean tiny"),
    ],
)
def test_mistakes_are_reported_before_the_data_set_is_loaded(
    cache: Path, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fc.extract("no such folder", cache_dir=cache, **arguments)
    assert not cache.exists()


def test_encoder_cannot_be_sent_to_ray(dataset: Dataset, cache: Path) -> None:
    with pytest.raises(UsageError, match="cannot be sent to other processes"):
        fc.extract(dataset, StubEncoder(), engine="ray", cache_dir=cache)


def test_cache_records_the_arguments_that_its_embeddings_and_labels_come_from(
    root: Path, cache: Path, tmp_path: Path
) -> None:
    write_images(root / "normal", 3)
    write_images(root / "pneumonia", 3, start=3)
    file = tmp_path / "mine.json"
    file.write_text('{"name": "mine", "templates": ["{pathology} it is"]}')

    def extract(seed: int, **options: Any) -> Mapping[str, Any]:
        data = fc.load_dataset("folder", root, seed=seed)
        options = {"cache_dir": cache, **options}
        return fc.extract(data, StubEncoder(), **options).header.extraction

    first = extract(1, prompts=file, batch_size=2)
    assert first == {
        "data": {
            "dataset": "folder",
            "root": str(root),
            "options": {"seed": 1},
            "pseudonymized": False,
        },
        "model": None,  # an encoder that was made in Python
        "weights": None,
        "prompts": {"mine": str(file)},
        "device": "cpu",
        "backend": "torch",
        "precision": "fp32",
        "resize": "published",
        "features": None,
        "views": None,
        "bit_depth": None,
        "batch_size": 2,
        "limit": None,
        "shard": None,
    }
    # Nothing is encoded: the embeddings are still those of the first call, the splits are not.
    second = extract(2)
    assert second == {
        **first,
        "data": {**first["data"], "options": {"seed": 2}},
        "prompts": {"mine": str(file), "signs": "signs"},
    }
    write_images(root / "normal", 1, start=9)
    assert extract(2)["batch_size"] == 32
    # A smaller sample adds nothing to a larger one.
    limits = [extract(1, cache_dir=tmp_path / "limited", limit=n)["limit"] for n in (4, 3, 5, None)]
    assert limits == [4, 4, 5, None]
