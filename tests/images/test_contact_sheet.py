"""Contact sheets: layout and captions."""

import numpy as np
import pytest

from featurecache.images.contact_sheet import CAPTION_HEIGHT, GAP, contact_sheet


def test_images_are_below_their_captions() -> None:
    images = [np.full((32, 40), gray, dtype=np.uint8) for gray in (50, 100, 150)]
    rows = [[("a", images[0]), ("b", images[1])], [("c", images[2])]]
    sheet = np.asarray(contact_sheet(rows))
    assert sheet.shape == (2 * (32 + CAPTION_HEIGHT) + GAP, 2 * 40 + GAP)
    assert (sheet[CAPTION_HEIGHT : CAPTION_HEIGHT + 32, 40 + GAP :] == 100).all()
    assert (sheet[-32:, :40] == 150).all()
    assert sheet[:CAPTION_HEIGHT].any()


def test_images_of_different_sizes_are_refused() -> None:
    images = [("", np.zeros((side, 8), dtype=np.uint8)) for side in (8, 9)]
    with pytest.raises(ValueError, match="images of one size, not of 2"):
        contact_sheet([images])


def test_long_caption_is_cut_off_at_its_image() -> None:
    image = np.full((20, 30), 7, dtype=np.uint8)
    sheet = np.asarray(contact_sheet([[("much too long a caption", image), ("", image)]]))
    assert sheet[:CAPTION_HEIGHT, :30].max() > 100
    assert sheet[:CAPTION_HEIGHT, 30:].max() == 0
