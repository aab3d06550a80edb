import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom.anatomy import Patient
from featurecache.datasets.phantom.radiograph import VIEWS, draw_film
from featurecache.errors import UnknownNameError, UsageError

PATIENT = Patient(age=50, sex="F", seed=3)

DIGEST = "a455a55b16802660534a512d35803129383f68211702e95fa0519f83526f3a54"
"""Of four films of generator version 1."""

EVERYTHING = {label: 0.4 + 0.04 * i for i, label in enumerate(LABELS)}

PRINTS = f"""
import hashlib
from featurecache.datasets.phantom.anatomy import Patient
from featurecache.datasets.phantom.radiograph import draw_film
digest = hashlib.sha256()
for age, view in ((50, "PA"), (6, "AP")):
    patient = Patient(age=age, sex="F", seed=3)
    for findings in ({{}}, {EVERYTHING!r}):
        digest.update(draw_film(patient, findings, view=view, seed=5, size=96).tobytes())
print(digest.hexdigest())
"""

findings = st.dictionaries(
    st.sampled_from(LABELS), st.floats(0, 1, allow_nan=False), max_size=len(LABELS)
)


def film(findings: dict[str, float], *, view: str = "PA", seed: int = 5, size: int = 96):
    return draw_film(PATIENT, findings, view=view, seed=seed, size=size)


def test_a_new_process_draws_the_pixels_of_the_generators_version() -> None:
    """Where this fails the films have changed: raise GENERATOR, then pin the new digest."""
    run = subprocess.run(
        # The order of a set of strings would be another under another hash seed.
        [sys.executable, "-c", PRINTS],
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == DIGEST


@pytest.mark.parametrize("view", VIEWS)
def test_a_film_is_grey_and_square_and_uses_the_scale(view: str) -> None:
    pixels = film({}, view=view, size=224)
    assert pixels.shape == (224, 224)
    assert pixels.dtype == np.uint8
    assert pixels.min() < 10
    assert pixels.max() > 200


def test_lungs_are_dark_and_the_heart_lies_on_the_patients_left() -> None:
    pixels = film({}, size=224).astype(float)
    right_lung, left_lung = pixels[70:100, 55:80].mean(), pixels[70:100, 140:165].mean()
    assert max(right_lung, left_lung) < pixels[200:215, 60:160].mean() - 80
    beside_heart = pixels[130:150]
    assert beside_heart[:, 140:152].mean() > beside_heart[:, 72:84].mean() + 30


def test_another_seed_is_another_film_and_the_same_seed_the_same() -> None:
    assert np.array_equal(film({"Mass": 0.7}), film({"Mass": 0.7}))
    assert not np.array_equal(film({"Mass": 0.7}), film({"Mass": 0.7}, seed=6))


@pytest.mark.parametrize("label", LABELS)
def test_severity_0_leaves_every_pixel_as_it_is(label: str) -> None:
    assert np.array_equal(film({label: 0.0}), film({}))


@settings(max_examples=15, deadline=None)
@given(present=findings, absent=st.sets(st.sampled_from(LABELS)))
def test_findings_of_severity_0_change_nothing_whatever_else_is_there(
    present: dict[str, float], absent: set[str]
) -> None:
    expected = film(present, size=48)
    zeros = dict.fromkeys(absent - present.keys(), 0.0)
    assert np.array_equal(film({**zeros, **present}, size=48), expected)


@settings(max_examples=15, deadline=None)
@given(present=findings)
def test_the_order_of_the_findings_does_not_matter(present: dict[str, float]) -> None:
    backwards = dict(reversed(present.items()))
    assert np.array_equal(film(present, size=48), film(backwards, size=48))


def test_a_larger_film_shows_the_same() -> None:
    present = {"Consolidation": 0.8, "Effusion": 0.6}
    small = film(present, size=96).astype(float)
    large = film(present, size=192).reshape(96, 2, 96, 2).mean(axis=(1, 3))
    # Outlines and vessels are sharper on the larger film, and its grain is finer.
    assert np.abs(small - large).mean() < 6


@pytest.mark.parametrize(
    ("findings", "view", "size", "error", "message"),
    [
        ({"Pneumonya": 0.5}, "PA", 96, UnknownNameError, "did you mean Pneumonia"),
        ({}, "LL", 96, UnknownNameError, "unknown view 'LL'"),
        ({"Mass": 1.5}, "PA", 96, UsageError, "severity 1.5 of Mass is not from 0 to 1"),
        ({"Mass": float("nan")}, "PA", 96, UsageError, "severity nan of Mass"),
        ({}, "PA", 8, UsageError, "draw 32 or more"),
    ],
)
def test_what_cannot_be_drawn_is_refused(findings, view, size, error, message) -> None:
    with pytest.raises(error, match=message):
        draw_film(PATIENT, findings, view=view, seed=0, size=size)
