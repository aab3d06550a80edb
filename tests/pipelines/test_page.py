from pathlib import Path

import pytest
from page import cell, replace_part, spread, table


def test_a_figure_is_shown_with_its_interval():
    assert cell(0.9556, (0.94, 0.97249)) == "0.956 [0.940, 0.972]"
    assert cell(-0.0164, (-0.036, 0.001), sign=True) == "−0.016 [−0.036, +0.001]"
    assert cell(0.5) == "0.500"


def test_an_undefined_figure_is_a_dash_whatever_its_interval():
    assert cell(None, (0.1, 0.2)) == "–"


def test_a_spread_is_mean_and_deviation_over_seeds_and_undefined_with_one_of_them():
    assert spread([0.5, 0.7]) == "0.600 ± 0.141"
    assert spread([0.5]) == "0.500"
    assert spread([0.5, None]) == "–"


def test_a_table_is_in_markdown():
    assert table("Scores", ["", "F1"], [["a", "1"]]) == (
        "**Scores**\n\n|  | F1 |\n| --- | --- |\n| a | 1 |"
    )


def test_a_part_of_a_page_is_replaced_and_nothing_else(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tiny -->\nold \\1\n<!-- end of tiny -->\nafter\n")
    replace_part(page, "tiny", "new \\1")
    replace_part(page, "tiny", "newer \\1")
    assert page.read_text() == (
        "before\n<!-- tiny -->\n\nnewer \\1\n\n<!-- end of tiny -->\nafter\n"
    )


def test_a_page_without_the_part_is_refused(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(SystemExit, match="<!-- tiny -->"):
        replace_part(page, "tiny", "new")
    assert page.read_text() == "nothing here\n"
