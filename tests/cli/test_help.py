"""The help of commands can be read in terminals of any width."""

import re


def test_help_in_a_narrow_terminal_lists_options_without_cutting_words(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = run("extract", "--help").stdout
    assert "  --resize published|pad|stretch  How an image becomes" in text
    assert "$FEATURECACHE_DATA/NAME" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    headings = re.findall(r"^(\w.*):$", text, flags=re.MULTILINE)
    assert headings == ["Options", "Options of single data sets"]


def test_help_in_a_wide_terminal_is_a_table(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert "╭─ Options of single data sets ─" in run("extract", "--help").stdout


def test_help_of_an_import_is_not_about_other_data_sets_and_that_of_an_export_not_about_scores(run):
    text = run("cache", "import", "--help").stdout
    assert "csv:" not in text
    assert "phantom" not in text
    assert "Column of patients." in " ".join(text.split())
    assert "csv: column of patients." in " ".join(run("extract", "--help").stdout.split())
    text = run("cache", "export", "--help").stdout
    assert "scored" not in text
    assert "as in the run" not in run("train-head", "--help").stdout
    assert "as in the run" in run("evaluate", "--help").stdout
