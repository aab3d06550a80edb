"""What each finding does to a film: the change against the same film without it."""

from collections.abc import Callable

import numpy as np
import pytest

from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom.anatomy import Patient, build, in_view
from featurecache.datasets.phantom.findings import PAINTED, RESHAPING
from featurecache.datasets.phantom.outline import LEFT, RIGHT, Outline
from featurecache.datasets.phantom.radiograph import draw_film
from featurecache.datasets.phantom.shapes import Plane

SEEDS = range(4)


def patient(seed: int) -> Patient:
    return Patient(age=50, sex="FM"[seed % 2], seed=seed)


def pair(label: str, severity: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    healthy, ill = (
        draw_film(patient(seed), findings, view="PA", seed=seed, size=128).astype(float)
        for findings in ({}, {label: severity})
    )
    return healthy, ill


def mean_change(label: str, severity: float, rows: slice, columns: slice) -> float:
    changes = []
    for seed in SEEDS:
        healthy, ill = pair(label, severity, seed)
        changes.append((ill - healthy)[rows, columns].mean())
    return float(np.mean(changes))


# At 128 pixels: the lungs reach from row 20 to row 100, the bases from row 80.
UPPER, MIDDLE, BASES = slice(25, 45), slice(45, 75), slice(78, 100)
LUNGS, HEART = slice(22, 106), slice(50, 84)


def test_every_label_is_drawn_by_one_finding() -> None:
    assert sorted([*RESHAPING, *PAINTED]) == sorted(LABELS)


@pytest.mark.parametrize("label", LABELS)
def test_a_finding_shows_and_the_severe_one_shows_more(label: str) -> None:
    def change(severity: float) -> float:
        pairs = (pair(label, severity, seed) for seed in SEEDS)
        return float(np.mean([np.abs(ill - healthy).mean() for healthy, ill in pairs]))

    mild, severe = change(0.35), change(1.0)
    assert mild > 0.15
    assert severe > 1.15 * mild


@pytest.mark.parametrize("label", [name for name in LABELS if name != "Emphysema"])
def test_a_finding_leaves_the_film_outside_the_chest_alone(label: str) -> None:
    for seed in SEEDS:
        healthy, ill = pair(label, 1.0, seed)
        assert np.array_equal(healthy[:8], ill[:8])
        assert np.array_equal(healthy[-8:], ill[-8:])


@pytest.mark.parametrize(
    ("label", "rows", "columns", "brighter"),
    [
        ("Cardiomegaly", slice(60, 85), slice(36, 98), True),
        ("Edema", MIDDLE, LUNGS, True),
        ("Effusion", BASES, LUNGS, True),
        ("Emphysema", BASES, LUNGS, False),
        ("Fibrosis", BASES, LUNGS, True),
        ("Infiltration", MIDDLE, LUNGS, True),
        ("Consolidation", slice(25, 95), LUNGS, True),
        ("Pneumonia", slice(25, 95), LUNGS, True),
        ("Mass", slice(25, 95), LUNGS, True),
        ("Nodule", slice(25, 95), LUNGS, True),
        ("Atelectasis", BASES, LUNGS, True),
    ],
)
def test_a_finding_brightens_or_darkens_where_it_lies(
    label: str, rows: slice, columns: slice, brighter: bool
) -> None:
    change = mean_change(label, 1.0, rows, columns)
    assert (change > 1.5) if brighter else (change < -1.5)


def change_by_half(label: str, seed: int) -> tuple[float, float]:
    """Least and greatest change of blocks of 8 x 8 pixels, so that the grain averages out."""
    healthy, ill = pair(label, 1.0, seed)
    blocks = (ill - healthy).reshape(16, 8, 16, 8).mean(axis=(1, 3))
    return float(blocks.min()), float(blocks.max())


def test_a_pneumothorax_darkens_beyond_the_edge_of_a_lung_that_whitens() -> None:
    for seed in SEEDS:
        darkest, whitest = change_by_half("Pneumothorax", seed)
        assert darkest < -8
        assert whitest > 8


def test_a_hernia_shows_gas_in_the_shadow_of_the_heart() -> None:
    for seed in SEEDS:
        healthy, ill = pair("Hernia", 1.0, seed)
        assert (ill - healthy)[55:95, HEART].min() < -30


def test_pleural_thickening_whitens_the_wall_and_not_the_middle_of_the_lung() -> None:
    for seed in SEEDS:
        outline = Outline.of(build(patient(seed)), Plane.posed(128))
        healthy, ill = pair("Pleural_Thickening", 1.0, seed)
        middle = np.abs(outline.beside - 0.5 * outline.cage) < 0.01
        rows = slice(50, 80)
        assert np.abs((ill - healthy)[rows][middle[rows]]).mean() < 0.1
        assert (ill - healthy)[rows].max() > 60


def widths(reshape: Callable | None, severity: float) -> tuple[float, float]:
    """The heart's and the rib cage's width as a mask shows them, in units of the plane."""
    anatomy = in_view(build(patient(0)), "PA")
    if reshape is not None:
        anatomy = reshape(anatomy, severity)
    outline = Outline.of(anatomy, Plane.posed(224))
    heart = (outline.mediastinum() > 0.5).any(axis=0).sum() / 224
    return float(heart), 2 * float(outline.cage.max())


def test_cardiomegaly_takes_more_than_half_of_the_chest() -> None:
    heart, cage = widths(None, 0)
    assert heart / cage < 0.5
    ratios = [h / c for h, c in (widths(RESHAPING["Cardiomegaly"], s) for s in (0.35, 0.7, 1))]
    assert 0.5 < ratios[0] < ratios[1] < ratios[2] < 0.75


def test_emphysema_flattens_the_diaphragm_and_narrows_the_heart() -> None:
    anatomy = build(patient(0))
    ill = RESHAPING["Emphysema"](anatomy, 1.0)
    assert ill.dome > anatomy.dome
    assert ill.dome_depth < 0.5 * anatomy.dome_depth
    assert widths(RESHAPING["Emphysema"], 1.0)[0] < widths(None, 0)[0]


def test_the_right_diaphragm_stands_higher_than_the_left() -> None:
    steps = [build(patient(seed)).dome_step for seed in range(50)]
    assert np.mean(np.array(steps) > 0) > 0.95
    outline = Outline.of(build(patient(0)), Plane.posed(128))
    assert outline.diaphragm(RIGHT).min() < outline.diaphragm(LEFT).min()
