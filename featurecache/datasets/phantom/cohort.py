"""Who is filmed, how often, in which view, and what is found."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom.anatomy import ADULT, Patient
from featurecache.datasets.phantom.randomness import Part, stream

WEIGHTS: Mapping[str, float] = {
    "Infiltration": 1.4,
    "Effusion": 1.3,
    "Atelectasis": 1.2,
    "Hernia": 0.8,
}
"""How often a finding is drawn, where that is not 1.

Flattened: in ChestX-ray14 an infiltration is 88 times as frequent as a hernia, and some hundred
films would hold none.
"""

ILL = 0.62
"""Share of the patients who are ill."""

FOUND = {True: 0.85, False: 0.20}
"""Chance that a film of somebody who is ill, or is not, shows a finding: about 60 % overall."""

FINDINGS_PER_FILM = (0.40, 0.30, 0.20, 0.10)
"""Chances that a film with findings shows one, two, three or four."""

FILMS_PER_PATIENT = (0.40, 0.25, 0.15, 0.12, 0.08)
"""Chances that a patient comes once, twice ... five times."""

LYING = {True: 0.60, False: 0.25}
"""Chance that a film with, or without, findings is taken AP: the sick are filmed in bed.

A model can learn the view in place of the findings, as it can from real films.
"""

CHILDREN = 0.10
"""Share of the patients who are children."""

LEAST_SEVERE = 0.35
"""A finding that is labelled can be seen: severities are uniform from here to 1."""

TEST_FRACTION = 0.2
"""Share of the patients whose films are test images."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """One film to draw.

    Attributes:
        number: Of the patient, from 1.
        follow_up: Of the visit, from 0.
        patient: Who is filmed.
        view: "PA" or "AP".
        findings: Severities by label, in the order of ``nih.LABELS``.
        seed: Of the film.
    """

    number: int
    follow_up: int
    patient: Patient
    view: str
    findings: Mapping[str, float]
    seed: int

    @property
    def name(self) -> str:
        """The image's file name, as ChestX-ray14 forms it."""
        return f"{self.number:08d}_{self.follow_up:03d}.png"


def cohort(images: int, *, seed: int) -> list[Film]:
    """The first N films of an endless row of patients; a larger N adds films to the same ones."""
    films: list[Film] = []
    number = 0
    while len(films) < images:
        number += 1
        films += _visits(number, seed)
    return films[:images]


def held_out(films: list[Film], *, seed: int) -> set[int]:
    """The numbers of the patients, a fifth of all, whose films are test images."""
    numbers = sorted({film.number for film in films})
    order = stream(seed, Part.COHORT).permutation(len(numbers))
    return {numbers[i] for i in order[: max(round(TEST_FRACTION * len(numbers)), 1)]}


def _visits(number: int, seed: int) -> list[Film]:
    rng = stream(seed, Part.PATIENT, number)
    child = rng.random() < CHILDREN
    patient = Patient(
        age=int(rng.integers(2, ADULT) if child else np.clip(rng.normal(52, 17), ADULT, 94)),
        sex=str(rng.choice(("F", "M"))),
        seed=_seed(rng),
    )
    ill = bool(rng.random() < ILL)
    visits = 1 + int(rng.choice(len(FILMS_PER_PATIENT), p=FILMS_PER_PATIENT))
    return [_film(number, follow_up, patient, ill, seed) for follow_up in range(visits)]


def _film(number: int, follow_up: int, patient: Patient, ill: bool, seed: int) -> Film:
    rng = stream(seed, Part.FILM, number, follow_up)
    findings = _findings(rng) if rng.random() < FOUND[ill] else {}
    return Film(
        number=number,
        follow_up=follow_up,
        patient=patient,
        view="AP" if rng.random() < LYING[bool(findings)] else "PA",
        findings=findings,
        seed=_seed(rng),
    )


def _findings(rng: np.random.Generator) -> dict[str, float]:
    weights = np.array([WEIGHTS.get(label, 1.0) for label in LABELS])
    count = 1 + int(rng.choice(len(FINDINGS_PER_FILM), p=FINDINGS_PER_FILM))
    drawn = rng.choice(len(LABELS), count, replace=False, p=weights / weights.sum())
    return {LABELS[i]: float(rng.uniform(LEAST_SEVERE, 1)) for i in sorted(drawn)}


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**32))
