"""Which views are frontal and lateral."""

import pytest

from featurecache.views import normalize_view, side_of_view

SIDES = {
    "frontal": ["PA", "ap", "Postero-anterior", "FRONTAL", "AP_horizontal", "AP SUPINE", "AP LLD"],
    "lateral": ["L", "lat", "LATERAL", "LL", "RL", "Left lateral", "XTABLE LATERAL"],
    # Also what MIMIC-CXR and PadChest have besides, and codes of hospitals.
    "": [
        "",
        "LAO",
        "RPO",
        "SWIMMERS",
        "COSTAL",
        "EXCLUDE",
        "LLD",
        "left lateral decubitus",
        "W033",
    ],
}


@pytest.mark.parametrize(
    ("view", "side"), [(v, side) for side, views in SIDES.items() for v in views]
)
def test_sides_of_views(view: str, side: str) -> None:
    assert side_of_view(view) == side
    assert side_of_view(normalize_view(view)) == side
