"""Captions."""

import numpy as np
import pytest

from featurecache.errors import UsageError
from featurecache.finetune.captions import caption, captions_of
from featurecache.prompts import PROMPT_SETS


def test_the_captions_of_the_paediatric_study():
    lungs = PROMPT_SETS["lungs"]
    assert caption(["Pneumonia"], lungs) == "a photo of pneumonia lungs."
    assert caption([], lungs) == "a photo of normal lungs."


def test_several_findings_are_joined_and_none_is_said():
    showing = PROMPT_SETS["showing"]
    assert caption(["Effusion", "Mass"], showing) == (
        "A chest X-ray showing pleural effusion and pulmonary mass"
    )
    assert caption([], showing) == "A chest X-ray showing no abnormality"


def test_rows_with_the_same_findings_have_the_same_caption():
    labels = np.array([[1, 0], [0, 1], [1, 0], [0, 0]], dtype=np.int8)
    found = captions_of(labels, ("Effusion", "Mass"), PROMPT_SETS["showing"])
    assert found[0] == found[2]
    assert len(set(found)) == 3


def test_an_unknown_label_has_no_true_caption():
    labels = np.array([[1, 0], [0, -1]], dtype=np.int8)
    with pytest.raises(UsageError, match="Mass is unknown"):
        captions_of(labels, ("Effusion", "Mass"), PROMPT_SETS["showing"])
