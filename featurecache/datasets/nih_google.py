"""Labels of radiologists for 4,376 images of ChestX-ray14, by Google.

Majkowska et al., "Chest Radiograph Interpretation with Deep Learning Models" (Radiology 2019).
``google2019_nih-chest-xray-labels.csv`` has the adjudicated labels of both sets, val and test.
"""

from pathlib import Path
from typing import Final

from featurecache.datasets.cell_values import read_labels
from featurecache.datasets.nih import IMAGE_COLUMNS, index_images
from featurecache.datasets.release import Listing, find_table, read_table, require_table

LABELS: Final = ("Fracture", "Pneumothorax", "Airspace opacity", "Nodule or mass")

_TABLE: Final = "google2019_nih-chest-xray-labels.csv"
_COLUMNS: Final = {**IMAGE_COLUMNS, "Set Id": "split"}


def list_nih_google(root: Path) -> Listing:
    """List the images of ChestX-ray14 that Google labeled.

    Args:
        root: Folder with ``google2019_nih-chest-xray-labels.csv`` (or ``.csv.gz``) and the images
            of ChestX-ray14, as for ``nih``.

    Returns:
        The images, with four labels. There are none to train on: val is from the training images of
        ChestX-ray14, and test from its test images.

    Raises:
        DatasetError: If there is no table, or an image is in two places.
    """
    notes: list[str] = []
    file = require_table(root, _TABLE)
    table = read_table(file, [*_COLUMNS, *LABELS], notes)
    cells, _ = read_labels(table[[*LABELS]], file=file)
    images = table[[*_COLUMNS]].set_axis([*_COLUMNS.values()], axis="columns")
    paths, _ = index_images(root)
    return Listing(
        files=[file],
        images=images,
        paths=[images["id"].map(lambda name: paths.get(name, f"images/{name}"))],
        cells=cells,
        label_names=LABELS,
        collection="nih",
        notes=notes,
    )


def is_nih_google(folder: Path) -> bool:
    """Return whether a folder has the table of Google's labels."""
    return find_table(folder, _TABLE) is not None
