"""Prompt sets are encoded for the labels and encoded again only when they change."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featurecache.datasets.dataset import Dataset
from featurecache.extraction.update import ExtractionSummary, update_caches
from featurecache.prompts import PromptSet
from featurecache.store.reader import read_cache
from featurecache.store.verify import verify_cache
from tests.extraction.stub_encoder import DIM, StubEncoder, expected_text

PROMPTS = PromptSet(
    name="mine",
    templates=("signs of {pathology}", "{pathology} of the lung"),
    negatives=("no {pathology}",),
    negative_prompts={"Mass": ("clear lungs",)},
)
POSITIVE = [
    ["signs of pulmonary mass", "pulmonary mass of the lung"],
    ["signs of pulmonary edema", "pulmonary edema of the lung"],
]
NEGATIVE = [["clear lungs"], ["no pulmonary edema"]]


def run(
    dataset: Dataset, cache: Path, prompts: PromptSet | None, **options: bool
) -> tuple[ExtractionSummary, StubEncoder]:
    encoder = StubEncoder(**options)
    (summary,) = update_caches(dataset, [encoder], cache_dir=cache, prompts=prompts)
    return summary, encoder


def mean_direction(texts: list[str]) -> np.ndarray:
    """The ensemble of one label, from its definition."""
    total = np.zeros(DIM)
    for text in texts:
        vector = expected_text(text).astype(np.float64)
        total += vector / np.sqrt((vector**2).sum())
    return total / np.sqrt((total**2).sum())


def test_prompts_are_encoded_and_stored(dataset: Dataset, cache: Path, stub_path: Path) -> None:
    summary, _ = run(dataset, cache, PROMPTS)
    assert summary.prompts == "mine, encoded"
    text = read_cache(stub_path).text("mine")
    assert text.name == "mine"
    assert text.labels == ("Mass", "Edema")
    assert text.templates == ("signs of {pathology}", "{pathology} of the lung", "no {pathology}")
    assert (text.aligned, text.scale, text.bias) == (True, 10.0, -2.5)
    assert text.negative is not None
    for texts, prompts in ((text.positive, POSITIVE), (text.negative, NEGATIVE)):
        assert texts.prompts == tuple(map(tuple, prompts))
        assert texts.embedding.dtype == texts.ensemble.dtype == np.float32
        np.testing.assert_array_equal(
            texts.embedding, [[expected_text(prompt) for prompt in row] for row in prompts]
        )
        np.testing.assert_allclose(
            texts.ensemble, [mean_direction(row) for row in prompts], rtol=1e-6
        )
    assert verify_cache(stub_path) == []


def test_text_set_stores_the_spec_of_its_encoder(
    dataset: Dataset, cache: Path, stub_path: Path
) -> None:
    _, encoder = run(dataset, cache, PROMPTS)
    assert read_cache(stub_path).text().encoder_spec == dict(encoder.text_spec)


def test_prompt_set_without_negatives(dataset: Dataset, cache: Path, stub_path: Path) -> None:
    _, encoder = run(dataset, cache, PromptSet("plain", ("{pathology}",)))
    assert encoder.texts == [["pulmonary mass", "pulmonary edema"]]
    assert read_cache(stub_path).text().negative is None


def test_same_prompts_are_not_encoded_again(dataset: Dataset, cache: Path, stub_path: Path) -> None:
    run(dataset, cache, PROMPTS)
    before = stub_path.read_bytes()
    summary, encoder = run(dataset, cache, PROMPTS)
    assert (encoder.texts, summary.prompts) == ([], "mine, reused")
    assert stub_path.read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"templates": ("signs of {pathology}", "evidence of {pathology}")},
        {"negatives": ("without {pathology}",)},
        {"negatives": (), "negative_prompts": {}},
        {"phrases": {"Mass": "lump"}},
        {"prompts": {"Edema": ("wet lungs", "water in the lungs")}},
    ],
)
def test_changed_prompts_encode_only_texts(
    dataset: Dataset, cache: Path, stub_path: Path, changes: dict[str, object]
) -> None:
    other = PromptSet("other", ("x {pathology}",))
    run(dataset, cache, PROMPTS)
    run(dataset, cache, other)
    before = read_cache(stub_path)
    before_embedding = before.embedding
    prompts = replace(PROMPTS, **changes)
    summary, encoder = run(dataset, cache, prompts)
    assert encoder.batches == []
    assert summary.prompts == "mine, encoded"
    labels = ("Mass", "Edema")
    asked = [text for texts in encoder.texts for text in texts]
    wanted = prompts.positive_texts(labels) + prompts.negative_texts(labels)
    assert asked == [text for texts in wanted for text in texts]
    after = read_cache(stub_path)
    np.testing.assert_array_equal(after.embedding, before_embedding)
    assert set(after.texts) == {"mine", "other"}
    assert after.texts["other"].fingerprint == before.texts["other"].fingerprint
    assert after.texts["mine"].fingerprint != before.texts["mine"].fingerprint
    assert after.texts["mine"].positive.prompts == tuple(map(tuple, prompts.positive_texts(labels)))


def test_cached_texts_are_kept_without_prompts(
    dataset: Dataset, cache: Path, stub_path: Path
) -> None:
    run(dataset, cache, PROMPTS)
    before = stub_path.read_bytes()
    summary, encoder = run(dataset, cache, None)
    assert (encoder.texts, summary.prompts) == ([], "none requested")
    assert stub_path.read_bytes() == before


def test_new_labels_encode_their_prompts(dataset: Dataset, cache: Path, stub_path: Path) -> None:
    run(dataset, cache, PROMPTS)
    labels = ("Hernia", "Mass", "Edema")
    grown = replace(dataset, labels=np.zeros((10, 3), np.int8), label_names=labels)
    summary, encoder = run(grown, cache, PROMPTS)
    assert (encoder.batches, summary.prompts) == ([], "mine, encoded")
    text = read_cache(stub_path).text()
    assert text.labels == labels
    assert text.positive.prompts[0] == ("signs of hiatal hernia", "hiatal hernia of the lung")


def test_renamed_labels_are_stored_by_new_names(
    dataset: Dataset, cache: Path, stub_path: Path
) -> None:
    prompts = PromptSet("plain", ("{pathology}",))
    run(dataset, cache, prompts)
    renamed = replace(dataset, label_names=("Pulmonary_Mass", "Pulmonary_Edema"))
    run(renamed, cache, prompts)
    text = read_cache(stub_path).text()
    assert text.labels == ("Pulmonary_Mass", "Pulmonary_Edema")
    assert text.positive.prompts == (("pulmonary mass",), ("pulmonary edema",))


def test_encoder_without_text_gets_no_prompts(
    dataset: Dataset, cache: Path, stub_path: Path
) -> None:
    summary, encoder = run(dataset, cache, PROMPTS, has_text=False)
    assert encoder.texts == []
    assert summary.prompts == "none: the model has no text encoder"
    assert read_cache(stub_path).texts == {}
    assert summary.images == 10
