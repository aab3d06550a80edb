from collections.abc import Callable

import numpy as np
import pytest

from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom.anatomy import Patient, anatomy_in_view, build_anatomy
from featurecache.datasets.phantom.findings import ANATOMY_FINDINGS, LAYER_FINDINGS
from featurecache.datasets.phantom.outline import LEFT, RIGHT, Outline
from featurecache.datasets.phantom.radiograph import draw_radiograph
from featurecache.datasets.phantom.shapes import Plane

SEEDS = range(4)


def patient(seed: int) -> Patient:
    return Patient(age=50, sex="FM"[seed % 2], seed=seed)


def pair(label: str, severity: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    healthy, sick = (
        draw_radiograph(patient(seed), findings, view="PA", seed=seed, size=128).astype(float)
        for findings in ({}, {label: severity})
    )
    return healthy, sick


def mean_change(label: str, severity: float, rows: slice, columns: slice) -> float:
    changes = []
    for seed in SEEDS:
        healthy, sick = pair(label, severity, seed)
        changes.append((sick - healthy)[rows, columns].mean())
    return float(np.mean(changes))


# At 128 pixels, the lungs are in rows 20 to 100, their bases below row 80.
UPPER, MIDDLE, BASES = slice(25, 45), slice(45, 75), slice(78, 100)
LUNGS, HEART = slice(22, 106), slice(50, 84)


def test_every_label_has_one_function() -> None:
    assert sorted([*ANATOMY_FINDINGS, *LAYER_FINDINGS]) == sorted(LABELS)


@pytest.mark.parametrize("label", LABELS)
def test_change_grows_with_severity(label: str) -> None:
    def change(severity: float) -> float:
        pairs = (pair(label, severity, seed) for seed in SEEDS)
        return float(np.mean([np.abs(sick - healthy).mean() for healthy, sick in pairs]))

    mild, severe = change(0.35), change(1.0)
    assert mild > 0.15
    assert severe > 1.15 * mild


@pytest.mark.parametrize("label", [name for name in LABELS if name != "Emphysema"])
def test_finding_changes_nothing_outside_the_chest(label: str) -> None:
    for seed in SEEDS:
        healthy, sick = pair(label, 1.0, seed)
        assert np.array_equal(healthy[:8], sick[:8])
        assert np.array_equal(healthy[-8:], sick[-8:])


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
def test_finding_brightens_or_darkens_its_region(
    label: str, rows: slice, columns: slice, brighter: bool
) -> None:
    change = mean_change(label, 1.0, rows, columns)
    assert (change > 1.5) if brighter else (change < -1.5)


def change_by_block(label: str, seed: int) -> tuple[float, float]:
    """Return the minimum and maximum change of 8 x 8 blocks, which average out the noise."""
    healthy, sick = pair(label, 1.0, seed)
    blocks = (sick - healthy).reshape(16, 8, 16, 8).mean(axis=(1, 3))
    return float(blocks.min()), float(blocks.max())


def test_pneumothorax_darkens_beyond_a_brighter_lung() -> None:
    for seed in SEEDS:
        darkest, whitest = change_by_block("Pneumothorax", seed)
        assert darkest < -8
        assert whitest > 8


def test_hernia_has_gas_behind_the_heart() -> None:
    for seed in SEEDS:
        healthy, sick = pair("Hernia", 1.0, seed)
        assert (sick - healthy)[55:95, HEART].min() < -30


def test_pleural_thickening_brightens_only_the_wall() -> None:
    for seed in SEEDS:
        outline = Outline.of(build_anatomy(patient(seed)), Plane.posed(128))
        healthy, sick = pair("Pleural_Thickening", 1.0, seed)
        middle = np.abs(outline.beside - 0.5 * outline.cage) < 0.01
        rows = slice(50, 80)
        assert np.abs((sick - healthy)[rows][middle[rows]]).mean() < 0.1
        assert (sick - healthy)[rows].max() > 60


def widths(reshape: Callable | None, severity: float) -> tuple[float, float]:
    """Return the widths of the heart and the rib cage, in units of the plane."""
    anatomy = anatomy_in_view(build_anatomy(patient(0)), "PA")
    if reshape is not None:
        anatomy = reshape(anatomy, severity)
    outline = Outline.of(anatomy, Plane.posed(224))
    heart = (outline.mediastinum() > 0.5).any(axis=0).sum() / 224
    return float(heart), 2 * float(outline.cage.max())


def test_cardiomegaly_exceeds_half_of_the_chest() -> None:
    heart, cage = widths(None, 0)
    assert heart / cage < 0.5
    ratios = [
        h / c for h, c in (widths(ANATOMY_FINDINGS["Cardiomegaly"], s) for s in (0.35, 0.7, 1))
    ]
    assert 0.5 < ratios[0] < ratios[1] < ratios[2] < 0.75


def test_emphysema_flattens_the_diaphragm_and_narrows_the_heart() -> None:
    anatomy = build_anatomy(patient(0))
    sick = ANATOMY_FINDINGS["Emphysema"](anatomy, 1.0)
    assert sick.dome > anatomy.dome
    assert sick.dome_depth < 0.5 * anatomy.dome_depth
    assert widths(ANATOMY_FINDINGS["Emphysema"], 1.0)[0] < widths(None, 0)[0]


def test_right_diaphragm_is_higher_than_left() -> None:
    steps = [build_anatomy(patient(seed)).dome_step for seed in range(50)]
    assert np.mean(np.array(steps) > 0) > 0.95
    outline = Outline.of(build_anatomy(patient(0)), Plane.posed(128))
    assert outline.diaphragm(RIGHT).min() < outline.diaphragm(LEFT).min()
