"""Captions: what they say, and of which films they are true."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featurecache.finetune.captions import caption_films, scored_captions
from featurecache.prompts import PROMPT_SETS

LUNGS, SHOWING, SIGNS = (PROMPT_SETS[name] for name in ("lungs", "showing", "signs"))
NAMES = ("Effusion", "Mass")


def truths(labels, prompts, names=NAMES):
    """Each caption in its first words, and the list of its truths."""
    found = caption_films(np.array(labels, dtype=np.int8), names, prompts)
    return {
        words[0]: column.tolist() for words, column in zip(found.texts, found.truth.T, strict=True)
    }


def test_the_captions_of_the_paediatric_study():
    assert truths([[1], [0], [1]], LUNGS, ("Pneumonia",)) == {
        "a photo of pneumonia lungs.": [1, 0, 1],
        "a photo of normal lungs.": [0, 1, 0],
    }


def test_every_caption_that_is_true_of_a_film_is_its_own_and_shared_ones_are_never_negatives():
    assert truths([[1, 0], [1, 1], [0, 0], [1, 0]], SHOWING) == {
        "A chest X-ray showing pleural effusion": [1, 1, 0, 1],
        "A chest X-ray without pleural effusion": [0, 0, 1, 0],
        "A chest X-ray showing pulmonary mass": [0, 1, 0, 0],
        "A chest X-ray without pulmonary mass": [1, 0, 1, 1],
        "A chest X-ray showing pleural effusion and pulmonary mass": [0, 1, 0, 0],
        "A chest X-ray showing no abnormality": [0, 0, 1, 0],
    }


def test_what_hangs_on_an_unknown_label_is_neither_true_nor_false():
    assert truths([[1, -1], [0, -1], [1, 1], [0, 0]], SHOWING) == {
        "A chest X-ray showing pleural effusion": [1, 0, 1, 0],
        "A chest X-ray without pleural effusion": [0, 1, 0, 1],
        "A chest X-ray showing pulmonary mass": [-1, -1, 1, 0],
        "A chest X-ray without pulmonary mass": [-1, -1, 0, 1],
        "A chest X-ray showing pleural effusion and pulmonary mass": [-1, 0, 1, 0],
        "A chest X-ray showing no abnormality": [0, -1, 0, 1],
    }


def test_each_caption_is_there_in_the_words_of_each_template():
    found = caption_films(np.array([[1, 1], [0, 0]], dtype=np.int8), NAMES, SIGNS)
    words = dict(zip([texts[0] for texts in found.texts], found.texts, strict=True))
    assert words["signs of pleural effusion and pulmonary mass"][2] == (
        "evidence of pleural effusion and pulmonary mass"
    )
    assert words["no signs of pulmonary mass"][3] == "absence of pulmonary mass"
    assert words["signs of no abnormality"][1] == "indication of no abnormality"


@given(labels=arrays(np.int8, (5, 3), elements=st.sampled_from([1, 0, -1])))
def test_no_film_that_shows_everything_a_caption_says_is_its_negative(labels):
    names = ("Effusion", "Mass", "Edema")
    found = caption_films(labels, names, SHOWING)
    for words, truth in zip(found.texts, found.truth.T, strict=True):
        said = [c for c, name in enumerate(names) if SHOWING.phrase(name) in words[0]]
        if said and "showing" in words[0]:
            shown = (labels[:, said] == 1).all(axis=1)
            assert ((truth == 1) == shown).all()
            assert ((truth == 0) == (labels[:, said] == 0).any(axis=1)).all()


def test_a_label_is_scored_by_its_caption_against_its_absence():
    assert scored_captions(["Mass"], SHOWING) == (
        ["A chest X-ray showing pulmonary mass"],
        ["A chest X-ray without pulmonary mass"],
    )
    assert scored_captions(["Pneumonia"], LUNGS)[1] == ["a photo of normal lungs."]
