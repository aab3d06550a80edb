"""Small synthetic data sets in the layouts of NIH and Kermany."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from featurecache.datasets.phantom.folder import generate_phantom

TABLE = "Data_Entry_2017_v2020.csv"
FINDINGS = ("Cardiomegaly", "Consolidation", "Effusion", "Infiltration", "Mass", "Pneumonia")
"""Findings that are kept, because the duration of a study grows with their number."""
PNEUMONIA_FINDINGS = ("Consolidation", "Infiltration", "Pneumonia")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``nih``, and ``kermany``: other images, with pneumonia or no finding.

    The patients of ``kermany`` have numbers that the real data set does not use: ``tiny`` was
    trained on some of those, and no patient of its training may be scored.
    """
    root = tmp_path_factory.mktemp("data")
    generate_phantom(root / "nih", n_images=180, seed=3, size=64)
    _drop_findings(root / "nih" / TABLE)
    others = tmp_path_factory.mktemp("others") / "phantom"
    generate_phantom(others, n_images=180, seed=4, size=64)
    table = pd.read_csv(others / TABLE, index_col=False)
    for number, (image, findings) in enumerate(
        zip(table["Image Index"], table["Finding Labels"], strict=True), 5000
    ):
        split = "test" if number % 4 == 0 else "train"
        if findings == "No Finding":
            target = root / "kermany" / split / "NORMAL" / f"IM-{number}-0001.jpeg"
        elif any(name in findings for name in PNEUMONIA_FINDINGS):
            target = root / "kermany" / split / "PNEUMONIA" / f"person{number}_virus_1.jpeg"
        else:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(others / "images" / image).convert("RGB").save(target)
    return root


def _drop_findings(path: Path) -> None:
    """Remove all findings but ``FINDINGS`` from a table."""
    table = pd.read_csv(path, index_col=False)
    table["Finding Labels"] = [
        "|".join(name for name in findings.split("|") if name in FINDINGS) or "No Finding"
        for findings in table["Finding Labels"]
    ]
    table.to_csv(path, index=False)
