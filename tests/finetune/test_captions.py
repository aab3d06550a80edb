"""Captions: their wording, and the images that they are true of."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featurecache.finetune.captions import scored_captions, write_captions
from featurecache.prompts import PROMPT_SETS

LUNGS, SHOWING, SIGNS = (PROMPT_SETS[name] for name in ("lungs", "showing", "signs"))
NAMES = ("Effusion", "Mass")


def truths(labels, prompts, names=NAMES):
    """Map the first wording of each caption to its truth for each image."""
    captions = write_captions(np.array(labels, dtype=np.int8), names, prompts)
    return {
        words[0]: column.tolist()
        for words, column in zip(captions.texts, captions.truth.T, strict=True)
    }


def test_captions_of_pediatric_study():
    assert truths([[1], [0], [1]], LUNGS, ("Pneumonia",)) == {
        "a photo of pneumonia lungs.": [1, 0, 1],
        "a photo of normal lungs.": [0, 1, 0],
    }


def test_shared_captions_are_true_of_every_image_that_they_fit():
    assert truths([[1, 0], [1, 1], [0, 0], [1, 0]], SHOWING) == {
        "A chest X-ray showing pleural effusion": [1, 1, 0, 1],
        "A chest X-ray without pleural effusion": [0, 0, 1, 0],
        "A chest X-ray showing pulmonary mass": [0, 1, 0, 0],
        "A chest X-ray without pulmonary mass": [1, 0, 1, 1],
        "A chest X-ray showing pleural effusion and pulmonary mass": [0, 1, 0, 0],
        "A chest X-ray showing no abnormality": [0, 0, 1, 0],
    }


def test_caption_about_unknown_label_is_neither_true_nor_false():
    assert truths([[1, -1], [0, -1], [1, 1], [0, 0]], SHOWING) == {
        "A chest X-ray showing pleural effusion": [1, 0, 1, 0],
        "A chest X-ray without pleural effusion": [0, 1, 0, 1],
        "A chest X-ray showing pulmonary mass": [-1, -1, 1, 0],
        "A chest X-ray without pulmonary mass": [-1, -1, 0, 1],
        "A chest X-ray showing pleural effusion and pulmonary mass": [-1, 0, 1, 0],
        "A chest X-ray showing no abnormality": [0, -1, 0, 1],
    }


def test_caption_has_wording_of_each_template():
    captions = write_captions(np.array([[1, 1], [0, 0]], dtype=np.int8), NAMES, SIGNS)
    words = dict(zip([texts[0] for texts in captions.texts], captions.texts, strict=True))
    assert words["signs of pleural effusion and pulmonary mass"][2] == (
        "evidence of pleural effusion and pulmonary mass"
    )
    assert words["no signs of pulmonary mass"][3] == "absence of pulmonary mass"
    assert words["signs of no abnormality"][1] == "indication of no abnormality"


@given(labels=arrays(np.int8, (5, 3), elements=st.sampled_from([1, 0, -1])))
def test_truth_follows_from_labels(labels):
    names = ("Effusion", "Mass", "Edema")
    captions = write_captions(labels, names, SHOWING)
    for words, truth in zip(captions.texts, captions.truth.T, strict=True):
        said = [c for c, name in enumerate(names) if SHOWING.phrase(name) in words[0]]
        if said and "showing" in words[0]:
            shown = (labels[:, said] == 1).all(axis=1)
            assert ((truth == 1) == shown).all()
            assert ((truth == 0) == (labels[:, said] == 0).any(axis=1)).all()


def test_label_is_scored_against_its_absence():
    assert scored_captions(["Mass"], SHOWING) == (
        ["A chest X-ray showing pulmonary mass"],
        ["A chest X-ray without pulmonary mass"],
    )
    assert scored_captions(["Pneumonia"], LUNGS)[1] == ["a photo of normal lungs."]
