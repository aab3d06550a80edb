"""Labels are matched by name and by the vocabulary, as matched by hand."""

import pytest

from featurecache.datasets.nih import LABELS as NIH
from featurecache.datasets.release import CHEXPERT_LABELS as CHEXPERT
from featurecache.errors import UsageError
from featurecache.evaluation.label_matching import match_labels, match_warnings
from featurecache.metrics.metrics import LabelMatch

TRAINED = ("Opacity", "Mass")
PRESENT = ("Mass", "Pneumonia", "Edema")


def same(*labels: str) -> LabelMatch:
    return LabelMatch(labels=[*labels], kind="same")


def union(*labels: str) -> LabelMatch:
    return LabelMatch(labels=[*labels], kind="union")


def near(*labels: str) -> LabelMatch:
    return LabelMatch(labels=[*labels], kind="near")


SHARED = ("Atelectasis", "Cardiomegaly", "Pneumonia", "Pneumothorax", "Consolidation", "Edema")


def test_nih_to_chexpert():
    assert match_labels(NIH, CHEXPERT, trained_on=["nih"], datasets=["chexpert"]) == {
        **{label: same(label) for label in SHARED},
        "Effusion": same("Pleural Effusion"),
        "Pleural_Thickening": near("Pleural Other"),
    }


def test_chexpert_to_nih():
    assert match_labels(CHEXPERT, NIH, trained_on=["chexpert"], datasets=["nih"]) == {
        **{label: same(label) for label in SHARED},
        "Pleural Effusion": same("Effusion"),
        "Lung Lesion": union("Mass", "Nodule"),
        "Pleural Other": near("Pleural_Thickening"),
    }


def test_padchest_is_matched_by_exact_names():
    padchest = (
        *("pericardial effusion", "pleural effusion", "loculated pleural effusion"),
        *("emphysema", "subcutaneous emphysema", "nodule", "pseudonodule", "pulmonary edema"),
        *("kerley lines", "costophrenic angle blunting", "interstitial pattern"),
    )
    assert match_labels(NIH, padchest, trained_on=["nih"], datasets=["padchest"]) == {
        "Effusion": union("pleural effusion", "loculated pleural effusion"),
        "Emphysema": same("emphysema"),
        "Nodule": union("nodule"),
        "Edema": same("pulmonary edema"),
        "Infiltration": near("interstitial pattern"),
    }
    # One kind of effusion is not effusion.
    assert match_labels(padchest, NIH, trained_on=["padchest"], datasets=["nih"]) == {
        "emphysema": same("Emphysema"),
        "pulmonary edema": same("Edema"),
        "interstitial pattern": near("Infiltration"),
        "costophrenic angle blunting": near("Effusion"),
    }


def test_names_of_other_data_sets_are_known_in_ones_own_but_not_what_is_near():
    own = ("Pleural Effusion", "Target", "Lung Opacity")
    assert match_labels(["Effusion", "Pneumonia"], own, trained_on=["nih"], datasets=["ward"]) == {
        "Effusion": same("Pleural Effusion")
    }
    matches = match_labels(["Pneumonia"], own, trained_on=["nih"], datasets=["rsna"])
    assert matches == {"Pneumonia": near("Target")}
    # With its mapping file, images of rsna are those of nih.
    assert match_labels(["Target"], ["Pneumonia"], trained_on=["nih"]) == {
        "Target": near("Pneumonia")
    }


def test_the_airspace_opacity_of_mimic_is_the_lung_opacity_of_chexpert():
    trained, present = ("Lung Opacity", "Edema"), ("Airspace Opacity", "Edema")
    matches = match_labels(trained, present, trained_on=["chexpert"], datasets=["mimic-cxr-jpg"])
    assert matches == {"Lung Opacity": same("Airspace Opacity"), "Edema": same("Edema")}


def test_the_closest_of_several_labels_is_meant_and_none_of_equally_close_ones():
    trained = ("Nodule/Mass", "Lung tumor", "Lung Lesion")
    both = {"trained_on": ["vindr-cxr", "chexpert"], "datasets": ["chexpert"]}
    assert match_labels(trained, ["Lung Lesion"], **both) == {"Lung Lesion": same("Lung Lesion")}
    with pytest.raises(UsageError, match="no label means the same"):
        match_labels(trained[:2], ["Lung Lesion"], **both)


def test_a_given_map_is_all_that_is_scored():
    assert match_labels(TRAINED, PRESENT, {"Opacity": ["Pneumonia", "Edema"]}) == {
        "Opacity": LabelMatch(labels=["Pneumonia", "Edema"], kind="map")
    }


@pytest.mark.parametrize(
    ("label_map", "words"),
    [
        ({"Nodule": "Mass"}, "'Nodule', which was not trained"),
        ({"Mass": "Nodule"}, "no label 'Nodule'"),
        ({"Mass": []}, "no label ''"),
        ({"Mass": "Mass", "Opacity": "Mass"}, "one label of the data set twice"),
        ({"Mass": ["Pneumonia", "Edema"], "Opacity": "Mass"}, "one label of the data set twice"),
    ],
)
def test_an_invalid_map_is_refused_with_the_labels_of_both_sides(label_map, words):
    with pytest.raises(UsageError, match=words) as caught:
        match_labels(TRAINED, PRESENT, label_map)
    assert "trained: Opacity, Mass; in the data set: Mass, Pneumonia, Edema" in str(caught.value)


def test_no_label_in_common_is_refused_with_the_labels_of_both_sides():
    with pytest.raises(UsageError, match="trained: Hernia; in the data set: Edema"):
        match_labels(["Hernia"], ["Edema"])


def test_what_is_near_and_what_is_not_scored_are_warnings_unless_a_map_was_given():
    matches = {"Mass": same("Mass"), "Pleural_Thickening": near("Pleural Other", "Pleura")}
    trained = ("Mass", "Pleural_Thickening", "Hernia", "Fibrosis")
    assert match_warnings(matches, trained) == [
        "scored against labels that mean something similar, not the same: Pleural_Thickening "
        "(Pleural Other or Pleura)",
        "not scored, because no label of the data set means the same: Hernia, Fibrosis",
    ]
    assert match_warnings({"Mass": LabelMatch(labels=["Edema"], kind="map")}, trained) == []
