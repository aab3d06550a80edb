"""Contact sheets: layout and captions."""

import numpy as np
import pytest

from featurecache.images.contact_sheet import GAP, LINE_HEIGHT, contact_sheet, wrap


def test_images_are_below_their_captions() -> None:
    images = [np.full((32, 40), gray, dtype=np.uint8) for gray in (50, 100, 150)]
    rows = [[("a", images[0]), ("b", images[1])], [("c", images[2])]]
    sheet = np.asarray(contact_sheet(rows))
    assert sheet.shape == (2 * (32 + LINE_HEIGHT) + GAP, 2 * 40 + GAP)
    assert (sheet[LINE_HEIGHT : LINE_HEIGHT + 32, 40 + GAP :] == 100).all()
    assert (sheet[-32:, :40] == 150).all()
    assert sheet[:LINE_HEIGHT].any()


def test_images_of_different_sizes_are_refused() -> None:
    images = [("", np.zeros((side, 8), dtype=np.uint8)) for side in (8, 9)]
    with pytest.raises(ValueError, match="images of one size, not of 2"):
        contact_sheet([images])


def test_long_caption_is_wrapped_at_its_image() -> None:
    image = np.full((20, 60), 7, dtype=np.uint8)
    caption = "a caption\nof more than one line and a verylongwordwithoutanyspaces"
    sheet = np.asarray(contact_sheet([[(caption, image), ("", image)]], title="t"))
    lines = wrap(caption, 60)
    assert "".join(lines).replace(" ", "") == caption.replace(" ", "").replace("\n", "")
    assert sheet.shape == (20 + LINE_HEIGHT * (1 + len(lines)), 2 * 60 + GAP)
    for number in range(1, 1 + len(lines)):
        strip = sheet[number * LINE_HEIGHT : (number + 1) * LINE_HEIGHT]
        assert strip[:, :60].max() > 100
        assert strip[:, 60:].max() == 0
