"""Prompt sets: their texts, their files, and ensembles of their embeddings."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from featurecache.errors import PromptError, UnknownNameError
from featurecache.prompts import PROMPT_SETS, PromptSet, ensemble, load_prompts, mega_vector

WORDING = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "pulmonary edema",
    "Effusion": "pleural effusion",
    "Emphysema": "emphysema",
    "Fibrosis": "pulmonary fibrosis",
    "Hernia": "hiatal hernia",
    "Infiltration": "pulmonary infiltration",
    "Mass": "pulmonary mass",
    "Nodule": "pulmonary nodule",
    "Pleural_Thickening": "pleural thickening",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
}
"""The 14 findings of ChestX-ray14, and how a report writes them."""


# --- the built-in sets -------------------------------------------------------------------------


@pytest.mark.parametrize("label", WORDING)
def test_positive_texts_use_radiologists_phrases(label: str) -> None:
    wording = WORDING[label]
    assert PROMPT_SETS["signs"].positive_texts([label]) == [
        [
            f"signs of {wording}",
            f"indication of {wording}",
            f"evidence of {wording}",
            f"presence of {wording}",
        ]
    ]
    assert PROMPT_SETS["showing"].positive_texts([label]) == [[f"A chest X-ray showing {wording}"]]


@pytest.mark.parametrize("label", sorted(set(WORDING) - {"Cardiomegaly"}))
def test_negative_texts_use_radiologists_phrases(label: str) -> None:
    wording = WORDING[label]
    assert PROMPT_SETS["signs"].negative_texts([label]) == [
        [
            f"no signs of {wording}",
            f"no indication of {wording}",
            f"no evidence of {wording}",
            f"absence of {wording}",
        ]
    ]
    assert PROMPT_SETS["showing"].negative_texts([label]) == [[f"A chest X-ray without {wording}"]]


def test_negative_texts_of_cardiomegaly_describe_the_heart() -> None:
    assert PROMPT_SETS["signs"].negative_texts(["Cardiomegaly"]) == [
        [
            "heart size is normal",
            "normal heart size",
            "the heart is not enlarged",
            "no enlargement of the heart",
        ]
    ]
    assert PROMPT_SETS["showing"].negative_texts(["Cardiomegaly"]) == [
        ["A chest X-ray showing a normal heart size"]
    ]


def test_lungs_compares_pneumonia_with_normal_lungs() -> None:
    lungs = PROMPT_SETS["lungs"]
    assert lungs.positive_texts(["Pneumonia"]) == [["a photo of pneumonia lungs."]]
    assert lungs.negative_texts(["Pneumonia"]) == [["a photo of normal lungs."]]


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_built_in_set_has_a_text_for_every_label_and_template(name: str) -> None:
    prompts = PROMPT_SETS[name]
    assert prompts.name == name
    positive = prompts.positive_texts(list(WORDING))
    negative = prompts.negative_texts(list(WORDING))
    assert [len(texts) for texts in positive] == [len(prompts.templates)] * 14
    assert [len(texts) for texts in negative] == [len(prompts.negatives)] * 14
    for text in (text for texts in positive + negative for text in texts):
        assert text == " ".join(text.split())
        assert not re.search(r"[{}_]", text)
    assert len({tuple(texts) for texts in positive}) == 14  # no two labels read the same


def test_texts_follow_the_order_of_labels() -> None:
    prompts = PROMPT_SETS["showing"]
    assert [texts[0].split()[-1] for texts in prompts.positive_texts(["Mass", "Edema"])] == [
        "mass",
        "edema",
    ]


# --- custom sets -------------------------------------------------------------------------------


def test_label_without_phrase_is_lower_cased_with_spaces() -> None:
    prompts = PromptSet(name="x", templates=("{pathology}: {pathology}",))
    assert prompts.positive_texts(["Enlarged_Cardiomediastinum"]) == [
        ["enlarged cardiomediastinum: enlarged cardiomediastinum"]
    ]


def test_set_without_negatives_has_no_negative_texts() -> None:
    assert PromptSet(name="x", templates=("{pathology}",)).negative_texts(["Mass"]) == []


def test_custom_phrases_replace_the_built_in_ones() -> None:
    prompts = PromptSet(name="x", templates=("{pathology}",), phrases={"Mass": "a lump"})
    assert prompts.positive_texts(["Mass", "Edema"]) == [["a lump"], ["edema"]]


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "a/b", "../x", "ü", "x" * 65, "x\n"])
def test_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(PromptError, match="letters, digits"):
        PromptSet(name=name, templates=("{pathology}",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"templates": []}, "has no templates"),
        ({"templates": ["{pathology}", " "]}, "has an empty template"),
        ({"negatives": ["no {pathology}", ""]}, "has an empty template"),
        ({"templates": ["signs of disease"]}, "'signs of disease' without {pathology}"),
        ({"templates": ["{pathology} in {place}"]}, "only {pathology} is replaced"),
        ({"templates": ["signs of {patology}"]}, "only {pathology} is replaced"),
        ({"negatives": ["no {patology}"]}, "only {pathology} is replaced"),
        ({"negatives": ["no {pathology"]}, "only {pathology} is replaced"),
        (
            {"prompts": {"Mass": ["a mass", "a lump"]}},
            "has 2 prompts for 'Mass': give 1, as many as there are templates",
        ),
        ({"prompts": {"Mass": []}}, "has 0 prompts for 'Mass': give 1"),
        ({"prompts": {"Mass": [" "]}}, "has prompts for 'Mass' with the text ' '"),
        (
            {"prompts": {"Mass": ["a {pathology}"]}},
            "with the text 'a {pathology}'",
        ),
        (
            {"negative_prompts": {"Mass": ["no mass"]}},
            "has 1 negative_prompts for 'Mass': give 0",
        ),
        (
            {"negatives": ["no {pathology}"], "negative_prompts": {"Mass": ["x", "y"]}},
            "has 2 negative_prompts for 'Mass': give 1",
        ),
        ({"color": "red"}, "unknown key 'color'; use name, templates, negatives, phrases"),
        ({"templates": "{pathology}"}, "templates: Input should be a valid list"),
        ({"templates": ["{pathology}", 3]}, "templates.1: Input should be a valid string"),
        ({"negatives": {"a": "b"}}, "negatives: Input should be a valid list"),
        ({"prompts": ["a"]}, "prompts: Input should be a valid dictionary"),
        ({"prompts": {"Mass": "a mass"}}, "prompts.Mass: Input should be a valid list"),
        ({"negative_prompts": 1}, "negative_prompts: Input should be a valid dictionary"),
        (
            {"negative_prompts": {"Mass": [1]}},
            "negative_prompts.Mass.0: Input should be",
        ),
        ({"phrases": ["Mass"]}, "phrases: Input should be a valid dictionary"),
        ({"phrases": {"Mass": 1}}, "phrases.Mass: Input should be a valid string"),
        ({"phrases": {"Mass": " "}}, "a phrase is empty"),
        ({"name": 7}, "name: Input should be a valid string"),
        ({"name": "signs"}, "the name 'signs' is built in"),
        ({"name": "my prompts"}, "prompt set name 'my prompts'"),
    ],
)
@pytest.mark.parametrize("format", ["json", "toml"])
def test_file_with_invalid_content_is_refused(
    tmp_path: Path, content: dict[str, object], message: str, format: str
) -> None:
    path = tmp_path / f"mine.{format}"
    document = {"templates": ["{pathology}"], **content}
    path.write_text(json.dumps(document) if format == "json" else toml(document))
    with pytest.raises(PromptError, match=re.escape(message)):
        load_prompts(str(path))


def toml(document: dict[str, object]) -> str:
    """Write a document two levels deep as TOML; strings, lists and numbers are as in JSON."""
    flat = {key: value for key, value in document.items() if not isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in flat.items()]
    for key, value in document.items():
        if isinstance(value, dict):
            lines += [f"[{key}]", *(f"{inner} = {json.dumps(v)}" for inner, v in value.items())]
    return "\n".join(lines)


DOCUMENT: dict[str, object] = {
    "name": "clinic-1",
    "templates": ["signs of {pathology}", "Röntgen: {pathology}"],
    "negatives": ["no {pathology}"],
    "phrases": {"Mass": "lung mass"},
    "prompts": {"Cardiomegaly": ["the heart is enlarged", "a large heart"]},
    "negative_prompts": {"Cardiomegaly": ["heart size is normal"]},
}


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("name", ["mine.json", "mine.toml", "MINE.JSON"])
def test_file_can_define_every_attribute(tmp_path: Path, name: str, mark: str) -> None:
    path = tmp_path / name
    text = toml(DOCUMENT) if name.endswith("toml") else json.dumps(DOCUMENT, ensure_ascii=False)
    path.write_text(mark + text, encoding="utf-8")
    prompts = load_prompts(str(path))
    assert prompts.name == "clinic-1"
    assert prompts.positive_texts(["Mass", "Effusion", "Cardiomegaly"]) == [
        ["signs of lung mass", "Röntgen: lung mass"],
        ["signs of pleural effusion", "Röntgen: pleural effusion"],
        ["the heart is enlarged", "a large heart"],
    ]
    assert prompts.negative_texts(["Mass", "Cardiomegaly"]) == [
        ["no lung mass"],
        ["heart size is normal"],
    ]


def test_name_defaults_to_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "clinic.json").write_text('{"templates": ["{pathology}"]}')
    assert load_prompts(str(tmp_path / "clinic.json")).name == "clinic"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", b""),
        ("a.json", b'{"templates": ["{pathology}"'),
        ("a.json", b'{"templates": ["{pathology}"], "templates": ["no {pathology}"]}'),
        ("a.json", b'{"templates": ["{pathology}"], "phrases": {"Mass": "a", "Mass": "b"}}'),
        ("a.json", '{"templates": ["Röntgen {pathology}"]}'.encode("latin-1")),
        ("a.toml", b"templates = ['{pathology}'"),
        ("a.toml", b"templates = ['{pathology}']\ntemplates = ['no {pathology}']"),
        ("a.toml", b"\xff\xfe"),
    ],
)
def test_unparsable_file_is_refused(tmp_path: Path, name: str, text: bytes) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(PromptError, match=rf"{name} cannot be parsed: \S"):
        load_prompts(str(tmp_path / name))


def test_duplicate_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"templates": ["{pathology}"], "phrases": {"A": "a", "B": "b", "B": "c"}}')
    with pytest.raises(PromptError, match="the key 'B' occurs more than once"):
        load_prompts(str(path))


@pytest.mark.parametrize("text", ["[]", '"signs"', "null", "3"])
def test_json_file_without_an_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(PromptError, match="is malformed"):
        load_prompts(str(tmp_path / "a.json"))


@pytest.mark.parametrize("text", ["{}", '{"negatives": ["no {pathology}"]}'])
def test_file_without_templates_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(PromptError, match="prompt set 'a' has no templates"):
        load_prompts(str(tmp_path / "a.json"))


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"gone\.json: No such file"):
        load_prompts(str(tmp_path / "gone.json"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(PromptError, match=r"folder\.toml: Is a directory"):
        load_prompts(str(tmp_path / "folder.toml"))


def test_prompts_are_found_by_name_path_or_given_as_a_set(tmp_path: Path) -> None:
    (tmp_path / "clinic.json").write_text('{"templates": ["{pathology}"]}')
    clinic = load_prompts(tmp_path / "clinic.json")
    assert load_prompts(clinic) is clinic
    assert load_prompts("signs") is PROMPT_SETS["signs"]
    with pytest.raises(UnknownNameError, match="unknown prompt set 'sign': did you mean signs"):
        load_prompts("sign")
    with pytest.raises(UnknownNameError, match=r"choose from FILE\.json, FILE\.toml, lungs"):
        load_prompts("prompts.yaml")


# --- ensembles ---------------------------------------------------------------------------------


def ensemble_of_plain_floats(embeddings: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """norm(mean_k norm(e_ck)), without NumPy."""

    def unit(vector: Sequence[float]) -> list[float]:
        length = math.sqrt(math.fsum(value * value for value in vector))
        return [value / length for value in vector]

    result = []
    for prompts in embeddings:
        units = [unit(prompt) for prompt in prompts]
        result.append(unit([math.fsum(column) / len(units) for column in zip(*units, strict=True)]))
    return result


def test_ensemble_is_the_normalized_mean_of_directions() -> None:
    # (3, 4) and (0, 10) have the directions (.6, .8) and (0, 1), whose sum is (.6, 1.8).
    result = ensemble(np.asarray([[[3.0, 4.0], [0.0, 10.0]]]))
    assert result.tolist() == [pytest.approx([1 / math.sqrt(10), 3 / math.sqrt(10)], abs=1e-7)]
    assert result.dtype == np.float32


def test_ensemble_of_one_prompt_is_its_direction() -> None:
    np.testing.assert_allclose(ensemble(np.asarray([[[0.0, -5.0]]])), [[0.0, -1.0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ensemble_equals_computation_in_plain_python(dtype: type[np.floating]) -> None:
    embeddings = (np.random.default_rng(0).normal(size=(14, 4, 64)) * 30).astype(dtype)
    expected = ensemble_of_plain_floats(embeddings.astype(float).tolist())
    np.testing.assert_allclose(ensemble(embeddings), expected, atol=1e-7)


SMALL = st.floats(-4, 4, width=32)
EMBEDDINGS = arrays(np.float32, array_shapes(min_dims=3, max_dims=3, max_side=4), elements=SMALL)


def has_directions(embeddings: NDArray[np.floating]) -> bool:
    """Return whether every prompt, and the mean of every label, is far from zero."""
    wide = embeddings.astype(float)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    if (lengths < 1e-3).any():
        return False
    return bool((np.linalg.norm((wide / lengths).mean(axis=1), axis=-1) > 1e-2).all())


@given(EMBEDDINGS, st.floats(1e-3, 1e3), st.data())
def test_ensemble_has_unit_length_and_ignores_lengths_of_prompts(
    embeddings: NDArray[np.float32], scale: float, data: st.DataObject
) -> None:
    assume(has_directions(embeddings))
    result = ensemble(embeddings)
    np.testing.assert_allclose(np.linalg.norm(result.astype(float), axis=-1), 1, atol=1e-6)
    labels, prompts, _ = embeddings.shape
    c, k = data.draw(st.integers(0, labels - 1)), data.draw(st.integers(0, prompts - 1))
    scaled = embeddings.astype(np.float64)
    scaled[c, k] *= scale
    np.testing.assert_allclose(ensemble(scaled), result, atol=1e-6)


@given(EMBEDDINGS, st.randoms(use_true_random=False))
def test_ensemble_ignores_the_order_of_prompts(
    embeddings: NDArray[np.float32], random: "np.random.Generator"
) -> None:
    assume(has_directions(embeddings))
    order = list(range(embeddings.shape[1]))
    random.shuffle(order)
    np.testing.assert_allclose(ensemble(embeddings[:, order]), ensemble(embeddings), atol=1e-6)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, -math.inf])
def test_ensemble_of_embedding_without_direction_is_refused(value: float) -> None:
    embeddings = np.ones((3, 2, 4))
    embeddings[1, 1] = value
    with pytest.raises(ValueError, match="zero or not finite"):
        ensemble(embeddings)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ensemble_of_prompts_that_cancel_out_is_refused(dtype: type[np.floating]) -> None:
    opposed = np.asarray([[[1.0, 2.0], [-3.0, -6.0]]], dtype)
    angles = np.deg2rad([10, 130, 250])  # a star: its sum is a rounding error, not a zero
    star = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None].astype(dtype)
    for embeddings in (opposed, star):
        with pytest.raises(ValueError, match="cancel out"):
            ensemble(embeddings)


def test_mega_vector_concatenates_labels() -> None:
    ensembles = np.asarray([[1, 2, 3], [4, 5, 6]], np.float64)
    result = mega_vector(ensembles)
    assert result.dtype == np.float32
    assert result.tolist() == [1, 2, 3, 4, 5, 6]
    assert mega_vector(np.asfortranarray(ensembles)).tolist() == [1, 2, 3, 4, 5, 6]
