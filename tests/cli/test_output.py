"""Tables that fit the terminal, and help texts that are wrapped by it."""

from types import SimpleNamespace

import pytest

from featurecache.cli.output import print_table

COLUMNS = ["label", "AUROC", "AUPRC", "F1"]
ROWS = [["Pleural_Thickening", *["0.938 [0.900, 0.978]"] * 3]]


@pytest.fixture
def narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    terminal = SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("featurecache.cli.output.sys", terminal)


def test_narrow_terminal_leaves_out_optional_columns_and_says_so(narrow_terminal, capsys):
    print_table("title", COLUMNS, ROWS, optional=2)
    output = capsys.readouterr()
    assert "Pleural_Thickening  0.938 [0.900, 0.978]  0.938 [0.900, 0.978]\n" in output.out
    assert "F1" not in output.out
    assert "not shown in 70 columns: F1" in output.err


def test_other_columns_are_wrapped_and_never_left_out(narrow_terminal, capsys):
    print_table("", COLUMNS, ROWS)
    output = capsys.readouterr()
    assert all(column in output.out for column in COLUMNS)
    assert "0.938 [0.900, 0.978]" not in output.out
    assert output.err == ""


def test_all_columns_are_printed_without_a_terminal(capsys):
    print_table("", COLUMNS, ROWS, optional=3)
    output = capsys.readouterr()
    assert "F1" in output.out
    assert output.err == ""


def test_help_has_no_line_breaks_of_its_own(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = run("train-head", "--help").stdout
    assert "by validation F1; the test images are only scored." in text
