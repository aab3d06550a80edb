"""The simulated patients: number of images, view and findings of each."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom.anatomy import ADULT_AGE, Patient
from featurecache.datasets.phantom.randomness import Stream, random_stream

WEIGHTS: Mapping[str, float] = {
    "Infiltration": 1.4,
    "Effusion": 1.3,
    "Atelectasis": 1.2,
    "Hernia": 0.8,
}
"""Relative frequency of findings, if not 1.

Flatter than in ChestX-ray14, where infiltrations are 88 times as frequent as hernias: a few hundred
images would contain no hernia.
"""

SICK_FRACTION = 0.62
"""Fraction of the patients who are sick."""

FINDING_PROBABILITY = {True: 0.85, False: 0.20}
"""Probability that an image of a sick (or healthy) patient has findings: about 60 % overall."""

FINDINGS_PER_IMAGE = (0.40, 0.30, 0.20, 0.10)
"""Probabilities that an image with findings has one, two, three or four."""

IMAGES_PER_PATIENT = (0.40, 0.25, 0.15, 0.12, 0.08)
"""Probabilities that a patient has one to five images."""

AP_PROBABILITY = {True: 0.60, False: 0.25}
"""Probability that an image with (or without) findings is AP: sick patients are imaged in bed.

So a model can learn the view instead of the findings, as with real data.
"""

CHILD_FRACTION = 0.10
"""Fraction of the patients who are children."""

MIN_SEVERITY = 0.35
"""Severities are uniform between this and 1, so every labeled finding is visible."""

TEST_FRACTION = 0.2
"""Fraction of the patients in the test split."""


@dataclass(frozen=True, kw_only=True)
class Radiograph:
    """Description of one image to generate.

    Attributes:
        number: Number of the patient, from 1.
        follow_up: Number of the patient's image, from 0.
        patient: The patient.
        view: "PA" or "AP"; or "LATERAL" of the second image of a study.
        findings: Severities by label, in the order of ``nih.LABELS``.
        seed: Seed of the image.
    """

    number: int
    follow_up: int
    patient: Patient
    view: str
    findings: Mapping[str, float]
    seed: int

    @property
    def name(self) -> str:
        """File name, in the style of ChestX-ray14."""
        return f"{self.study}{'_lateral' if self.view == 'LATERAL' else ''}.png"

    @property
    def study(self) -> str:
        """Name of the study that the image belongs to."""
        return f"{self.number:08d}_{self.follow_up:03d}"


def cohort(n_images: int, *, seed: int) -> list[Radiograph]:
    """Return the first images of an endless sequence of patients.

    Args:
        n_images: Number of images; a larger number adds images to the same ones.
        seed: Seed of all random numbers.
    """
    images: list[Radiograph] = []
    number = 0
    while len(images) < n_images:
        number += 1
        images += _images_of(number, seed)
    return images[:n_images]


def select_test_patients(images: list[Radiograph], *, seed: int) -> set[int]:
    """Select a fifth of the patients for testing.

    Args:
        images: All images.
        seed: Seed of the selection.

    Returns:
        Numbers of the test patients.
    """
    numbers = sorted({image.number for image in images})
    order = random_stream(seed, Stream.COHORT).permutation(len(numbers))
    return {numbers[i] for i in order[: max(round(TEST_FRACTION * len(numbers)), 1)]}


def _images_of(number: int, seed: int) -> list[Radiograph]:
    rng = random_stream(seed, Stream.PATIENT, number)
    child = rng.random() < CHILD_FRACTION
    patient = Patient(
        age=int(
            rng.integers(2, ADULT_AGE) if child else np.clip(rng.normal(52, 17), ADULT_AGE, 94)
        ),
        sex=str(rng.choice(("F", "M"))),
        seed=_seed(rng),
    )
    sick = bool(rng.random() < SICK_FRACTION)
    n_images = 1 + int(rng.choice(len(IMAGES_PER_PATIENT), p=IMAGES_PER_PATIENT))
    return [_image(number, follow_up, patient, sick, seed) for follow_up in range(n_images)]


def _image(number: int, follow_up: int, patient: Patient, sick: bool, seed: int) -> Radiograph:
    rng = random_stream(seed, Stream.IMAGE, number, follow_up)
    findings = _findings(rng) if rng.random() < FINDING_PROBABILITY[sick] else {}
    return Radiograph(
        number=number,
        follow_up=follow_up,
        patient=patient,
        view="AP" if rng.random() < AP_PROBABILITY[bool(findings)] else "PA",
        findings=findings,
        seed=_seed(rng),
    )


def _findings(rng: np.random.Generator) -> dict[str, float]:
    weights = np.array([WEIGHTS.get(label, 1.0) for label in LABELS])
    count = 1 + int(rng.choice(len(FINDINGS_PER_IMAGE), p=FINDINGS_PER_IMAGE))
    chosen = rng.choice(len(LABELS), count, replace=False, p=weights / weights.sum())
    return {LABELS[i]: float(rng.uniform(MIN_SEVERITY, 1)) for i in sorted(chosen)}


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**32))
