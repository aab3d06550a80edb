import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom.anatomy import Patient
from featurecache.datasets.phantom.radiograph import draw_radiograph, draw_with_boxes
from featurecache.errors import UnknownNameError, UsageError

PATIENT = Patient(age=50, sex="F", seed=3)

DIGEST = "a455a55b16802660534a512d35803129383f68211702e95fa0519f83526f3a54"
"""Of four images of generator versions 1 and 2."""

EVERYTHING = {label: 0.4 + 0.04 * i for i, label in enumerate(LABELS)}

PRINTS = f"""
import hashlib
from featurecache.datasets.phantom.anatomy import Patient
from featurecache.datasets.phantom.radiograph import draw_radiograph
digest = hashlib.sha256()
for age, view in ((50, "PA"), (6, "AP")):
    patient = Patient(age=age, sex="F", seed=3)
    for findings in ({{}}, {EVERYTHING!r}):
        digest.update(draw_radiograph(patient, findings, view=view, seed=5, size=96).tobytes())
print(digest.hexdigest())
"""

findings = st.dictionaries(
    st.sampled_from(LABELS), st.floats(0, 1, allow_nan=False), max_size=len(LABELS)
)


def image(findings: dict[str, float], *, view: str = "PA", seed: int = 5, size: int = 96):
    return draw_radiograph(PATIENT, findings, view=view, seed=seed, size=size)


def test_pixels_match_the_generator_version() -> None:
    """If this fails, the images have changed: increase GENERATOR, then pin the new digest."""
    run = subprocess.run(
        # Another hash seed changes the order of sets of strings.
        [sys.executable, "-c", PRINTS],
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == DIGEST


@pytest.mark.parametrize("label", [label for label in LABELS if label != "Emphysema"])
def test_boxes_are_where_the_finding_changes_the_pixels(label: str) -> None:
    pixels, boxes = draw_with_boxes(PATIENT, {label: 1.0}, view="PA", seed=5, size=96)
    assert np.array_equal(pixels, image({label: 1.0}))
    change = np.abs(pixels.astype(float) - image({}))
    # A larger heart stays where it was, so that its middle changes little.
    large = change > (0.25 if label == "Cardiomegaly" else 0.5) * change.max()
    inside = np.zeros_like(large)
    for name, left, top, width, height in boxes:
        box = np.s_[top : top + height, left : left + width]
        assert name == label
        assert large[box].any()
        inside[box] = True
    assert large[inside].sum() > 0.9 * large.sum()
    assert inside.mean() < 0.45


def test_emphysema_and_lateral_views_have_no_boxes() -> None:
    for findings, view in (({"Emphysema": 1.0}, "PA"), ({"Effusion": 1.0}, "LATERAL"), ({}, "AP")):
        assert draw_with_boxes(PATIENT, findings, view=view, seed=5, size=96)[1] == []


@pytest.mark.parametrize("view", ["PA", "AP"])
def test_image_is_gray_square_and_uses_the_full_range(view: str) -> None:
    pixels = image({}, view=view, size=224)
    assert pixels.shape == (224, 224)
    assert pixels.dtype == np.uint8
    assert pixels.min() < 10
    assert pixels.max() > 200


def test_lungs_are_dark_and_the_heart_is_on_the_left() -> None:
    pixels = image({}, size=224).astype(float)
    right_lung, left_lung = pixels[70:100, 55:80].mean(), pixels[70:100, 140:165].mean()
    assert max(right_lung, left_lung) < pixels[200:215, 60:160].mean() - 80
    beside_heart = pixels[130:150]
    assert beside_heart[:, 140:152].mean() > beside_heart[:, 72:84].mean() + 30


def test_seed_determines_the_image() -> None:
    assert np.array_equal(image({"Mass": 0.7}), image({"Mass": 0.7}))
    assert not np.array_equal(image({"Mass": 0.7}), image({"Mass": 0.7}, seed=6))


@pytest.mark.parametrize("label", LABELS)
def test_severity_0_changes_no_pixel(label: str) -> None:
    assert np.array_equal(image({label: 0.0}), image({}))


@settings(max_examples=15, deadline=None)
@given(present=findings, absent=st.sets(st.sampled_from(LABELS)))
def test_severity_0_changes_nothing_beside_other_findings(
    present: dict[str, float], absent: set[str]
) -> None:
    expected = image(present, size=48)
    zeros = dict.fromkeys(absent - present.keys(), 0.0)
    assert np.array_equal(image({**zeros, **present}, size=48), expected)


@settings(max_examples=15, deadline=None)
@given(present=findings)
def test_order_of_findings_does_not_matter(present: dict[str, float]) -> None:
    backwards = dict(reversed(present.items()))
    assert np.array_equal(image(present, size=48), image(backwards, size=48))


def test_resolution_does_not_change_the_content() -> None:
    present = {"Consolidation": 0.8, "Effusion": 0.6}
    small = image(present, size=96).astype(float)
    large = image(present, size=192).reshape(96, 2, 96, 2).mean(axis=(1, 3))
    # The larger image is sharper and its noise is finer.
    assert np.abs(small - large).mean() < 6


@pytest.mark.parametrize(
    ("findings", "view", "size", "error", "message"),
    [
        ({"Pneumonya": 0.5}, "PA", 96, UnknownNameError, "did you mean Pneumonia"),
        ({}, "LL", 96, UnknownNameError, "unknown view 'LL'"),
        ({"Mass": 1.5}, "PA", 96, UsageError, "severity of Mass is 1.5: give a number from 0 to 1"),
        ({"Mass": float("nan")}, "PA", 96, UsageError, "severity of Mass is nan"),
        ({}, "PA", 8, UsageError, "image size is 8 pixels: give 32 or more"),
    ],
)
def test_invalid_arguments_are_refused(findings, view, size, error, message) -> None:
    with pytest.raises(error, match=message):
        draw_radiograph(PATIENT, findings, view=view, seed=0, size=size)
