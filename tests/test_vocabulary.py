"""The vocabulary agrees with the labels that the data sets have."""

from dataclasses import asdict

import pytest

from featurecache.datasets import chestx_det, covid_radiography, nih_google
from featurecache.datasets.nih import LABELS
from featurecache.errors import UnknownNameError
from featurecache.vocabulary import Meanings, meanings_of, vocabulary

CHEXPERT = {
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"),
    *("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
    *("Pleural Other", "Fracture", "Support Devices"),
}


def labels_of(dataset: str) -> set[str]:
    """Return all labels of a data set in the vocabulary."""
    return {
        name
        for sets in vocabulary(dataset).values()
        for names in asdict(sets[dataset]).values()
        for name in names
    }


def test_names_are_those_of_the_data_sets() -> None:
    assert labels_of("nih") == labels_of("phantom") == {*LABELS, "No Finding"}
    assert labels_of("chexpert") == labels_of("brax") == CHEXPERT
    assert labels_of("mimic-cxr-jpg") == {*CHEXPERT, "Airspace Opacity"}
    assert labels_of("chexpert-plus") == CHEXPERT
    assert labels_of("padchest-gr") == labels_of("padchest")
    assert labels_of("kermany") == {"Pneumonia"}
    assert labels_of("chestx-det") == set(chestx_det.LABELS)
    assert labels_of("nih-google") == set(nih_google.LABELS)
    assert labels_of("covid-radiography") == set(covid_radiography.CLASSES)
    assert labels_of("montgomery") == labels_of("shenzhen") == {"Tuberculosis"}


def test_labels_that_only_look_alike_are_no_finding() -> None:
    alike = {"subcutaneous emphysema", "pericardial effusion", "pseudonodule", "mediastinal mass"}
    assert not alike & labels_of("padchest")


def test_a_label_means_a_finding_in_one_way() -> None:
    for finding, sets in vocabulary().items():
        for name, labels in sets.items():
            names = [*labels.same, *labels.union, *labels.near]
            assert names, (finding, name)
            assert len(names) == len(set(names)), (finding, name)
            assert len(labels.union) != 1, (finding, name)
            assert not (labels.same and labels.union), (finding, name)


def test_unknown_data_set_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown .* 'padches': did you mean padchest"):
        vocabulary("padches")


def test_a_name_means_a_finding_in_the_same_way_in_all_data_sets() -> None:
    for finding, sets in vocabulary().items():
        kinds: dict[str, str] = {}
        for labels in sets.values():
            for kind, names in asdict(labels).items():
                assert {kinds.setdefault(name, kind) for name in names} <= {kind}, finding


def test_findings_come_before_those_that_include_them() -> None:
    findings = vocabulary()
    order = [*findings]
    labels = {
        (finding, name): {*means.same, *means.union}
        for finding, sets in findings.items()
        for name, means in sets.items()
    }
    for (part, name), names in labels.items():
        for whole in order[: order.index(part)]:
            assert not names < labels.get((whole, name), set()) or not names, (part, whole)


def test_kinds_are_looked_up_in_the_data_sets_only_and_the_same_in_all() -> None:
    labels = ["Nodule", "Edema", "kerley lines", "Tumor"]
    assert meanings_of(labels, ["ward"]) == {
        "edema": Meanings(same=("Edema",)),
        "nodule": Meanings(same=("Nodule",)),
    }
    assert meanings_of(labels, ["nih", "padchest"]) == {
        "edema": Meanings(same=("Edema",), near=("kerley lines",)),
        "nodule": Meanings(same=("Nodule",)),
        "nodule_or_mass": Meanings(union=("Nodule",)),
        "lung_lesion": Meanings(union=("Nodule",)),
    }
