"""Tables as LaTeX and Markdown, whose markup is that of the table only."""

import re

import pytest

from featurecache.io.markup import escape_latex, escape_markdown, latex_table, markdown_table

HOSTILE = (
    *("5 % & x_1 #2 $3 {4} \\input{x}", "^~<>|\"'", "[0.1, 0.2]", "* starred", "−1 ± 2 – 3 × 4…"),
    *("a\nb\x07c\u00a0d", "`code` **bold** <script>", "Öl"),
)


def cells_of(line: str) -> list[str]:
    """Return the cells of a row of LaTeX, as TeX splits it: at ampersands that are not escaped."""
    assert line.endswith(r" \\")
    return re.split(r"(?<!\\)&", line.removesuffix(r" \\"))


@pytest.mark.parametrize("n_rows", [1, 41])
def test_latex_has_no_markup_but_that_of_the_table(n_rows):
    row = [escape_latex(text) for text in HOSTILE]
    columns = [f"c {text}" for text in row]
    table = latex_table(columns, [row] * n_rows, caption=escape_latex(HOSTILE[0]), label="tab:x")
    name = "table" if n_rows == 1 else "longtable"
    assert table.startswith(rf"\begin{{{name}}}")
    assert table.rstrip().endswith(rf"\end{{{name}}}")
    assert r"\label{tab:x}" in table
    assert table.isascii() is False  # letters stay
    (line, *_) = (line for line in table.splitlines() if line.startswith("5 "))
    (header,) = {line for line in table.splitlines() if line.startswith("c ")}
    assert [cell.strip() for cell in cells_of(header)] == columns
    cells = [cell.strip() for cell in cells_of(line)]
    assert len(cells) == len(row)
    for cell in cells:
        # Without commands of one's own and escaped characters, nothing has a meaning in TeX.
        plain = re.sub(r"\\(text\w+|ldots)\{\}|\\[&%$#_{}]|\$(\\pm|\\times|-)\$|^\{.\}", "", cell)
        assert not set('\\&%$#_{}^<>|"') & set(plain), cell
        assert cell[0] not in "[*"
    assert cells[5] == "a b c~d"
    # A column of long texts breaks lines.
    assert "p{" not in latex_table(["a"], [["short"]])
    best = r"\textbf{0.812 $\pm$ 0.004 [0.790, 0.833]}"
    assert "p{" not in latex_table(["a", "b"], [["x", best]])  # markup is not printed
    assert r"p{0.85\linewidth}" in latex_table(["a", "b"], [["x", "long " * 20]])


@pytest.mark.parametrize("n_rows", [1, 41])
def test_a_note_is_below_the_table(n_rows):
    text = latex_table(["a"], [["x"]] * n_rows, caption="c", note="why")
    name = "tabular" if n_rows == 1 else "longtable"
    _, below = text.split(f"\\end{{{name}}}\n")
    float_end = "\\end{table}\n" if n_rows == 1 else ""
    assert below == "\\par\\smallskip\n{\\footnotesize why\\par}\n" + float_end


def test_empty_table_is_latex():
    assert latex_table(["a", "b"], []).count("&") == 1


def test_markdown_has_no_markup_but_that_of_the_table():
    row = [escape_markdown(text) for text in HOSTILE]
    header, dashes, line = markdown_table(["c"] * len(row), [row]).splitlines()
    assert len(re.split(r"(?<!\\)\|", line)) == len(row) + 2
    assert header.count("|") == dashes.count("|") == len(row) + 1
    assert r"\`code\` \*\*bold\*\* \<script>" in line
    assert r"\\input" in line
