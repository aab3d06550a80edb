"""Markdown tables and sections of pages."""

from pathlib import Path

import pytest
from page import replace_section, table


def test_table_is_markdown():
    assert table("Scores", ["", "F1"], [["a", "1"]]) == (
        "**Scores**\n\n|  | F1 |\n| --- | --- |\n| a | 1 |"
    )


def test_only_the_named_section_is_replaced(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tiny -->\nold \\1\n<!-- end of tiny -->\nafter\n")
    replace_section(page, "tiny", "new \\1")
    replace_section(page, "tiny", "newer \\1")
    assert page.read_text() == (
        "before\n<!-- tiny -->\n\nnewer \\1\n\n<!-- end of tiny -->\nafter\n"
    )


def test_page_without_the_section_is_refused(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(SystemExit, match="<!-- tiny -->"):
        replace_section(page, "tiny", "new")
    assert page.read_text() == "nothing here\n"
