import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom.cohort import LEAST_SEVERE, cohort, held_out

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_600_films_hold_enough_of_each_finding_and_of_none(seed: int) -> None:
    films = cohort(600, seed=seed)
    assert len(films) == 600
    for label in LABELS:
        assert 0.045 < np.mean([label in film.findings for film in films]) < 0.20
    assert 0.34 < np.mean([not film.findings for film in films]) < 0.46


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sick_are_filmed_ap_more_often(seed: int) -> None:
    films = cohort(600, seed=seed)
    sick = np.mean([film.view == "AP" for film in films if film.findings])
    well = np.mean([film.view == "AP" for film in films if not film.findings])
    assert sick > well + 0.2
    assert {film.view for film in films} == {"AP", "PA"}


def test_patients_come_back_and_stay_themselves() -> None:
    films = cohort(600, seed=0)
    visits: dict[int, list] = {}
    for film in films:
        visits.setdefault(film.number, []).append(film)
    assert {len(films) for films in visits.values()} == {1, 2, 3, 4, 5}
    assert all(len({film.patient for film in films}) == 1 for films in visits.values())
    assert len({film.seed for film in films}) == len(films)
    assert {film.patient.sex for film in films} == {"F", "M"}
    assert 0.03 < np.mean([film.patient.age < 16 for film in films]) < 0.2


def test_every_labelled_finding_is_severe_enough_to_be_seen() -> None:
    severities = [s for film in cohort(600, seed=0) for s in film.findings.values()]
    assert min(severities) >= LEAST_SEVERE
    assert max(severities) <= 1


@settings(max_examples=20, deadline=None)
@given(few=st.integers(1, 60), more=st.integers(0, 60), seed=st.integers(0, 2**40))
def test_more_films_begin_with_the_same(few: int, more: int, seed: int) -> None:
    films = cohort(few, seed=seed)
    assert len({film.name for film in films}) == few
    assert cohort(few + more, seed=seed)[:few] == films


def test_a_fifth_of_the_patients_is_for_held_out() -> None:
    films = cohort(600, seed=0)
    patients = {film.number for film in films}
    chosen = held_out(films, seed=0)
    assert chosen < patients
    assert len(chosen) == round(0.2 * len(patients))
    assert held_out(films, seed=1) != chosen
