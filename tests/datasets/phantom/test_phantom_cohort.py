import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom.cohort import MIN_SEVERITY, cohort, select_test_patients

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_findings_have_the_intended_frequencies(seed: int) -> None:
    images = cohort(600, seed=seed)
    assert len(images) == 600
    for label in LABELS:
        assert 0.045 < np.mean([label in image.findings for image in images]) < 0.20
    assert 0.34 < np.mean([not image.findings for image in images]) < 0.46


@pytest.mark.parametrize("seed", SEEDS)
def test_images_with_findings_are_ap_more_often(seed: int) -> None:
    images = cohort(600, seed=seed)
    sick = np.mean([image.view == "AP" for image in images if image.findings])
    well = np.mean([image.view == "AP" for image in images if not image.findings])
    assert sick > well + 0.2
    assert {image.view for image in images} == {"AP", "PA"}


def test_patients_have_several_images() -> None:
    images = cohort(600, seed=0)
    visits: dict[int, list] = {}
    for image in images:
        visits.setdefault(image.number, []).append(image)
    assert {len(images) for images in visits.values()} == {1, 2, 3, 4, 5}
    assert all(len({image.patient for image in images}) == 1 for images in visits.values())
    assert len({image.seed for image in images}) == len(images)
    assert {image.patient.sex for image in images} == {"F", "M"}
    assert 0.03 < np.mean([image.patient.age < 16 for image in images]) < 0.2


def test_severities_are_in_range() -> None:
    severities = [s for image in cohort(600, seed=0) for s in image.findings.values()]
    assert min(severities) >= MIN_SEVERITY
    assert max(severities) <= 1


@settings(max_examples=20, deadline=None)
@given(few=st.integers(1, 60), more=st.integers(0, 60), seed=st.integers(0, 2**40))
def test_more_images_extend_the_same_sequence(few: int, more: int, seed: int) -> None:
    images = cohort(few, seed=seed)
    assert len({image.name for image in images}) == few
    assert cohort(few + more, seed=seed)[:few] == images


def test_a_fifth_of_the_patients_is_for_testing() -> None:
    images = cohort(600, seed=0)
    patients = {image.number for image in images}
    held_out = select_test_patients(images, seed=0)
    assert held_out < patients
    assert len(held_out) == round(0.2 * len(patients))
    assert select_test_patients(images, seed=1) != held_out
