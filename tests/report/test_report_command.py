"""``featurecache report``: what it writes, what it refuses, what it says."""

import json

import pytest
from PIL import Image

from featurecache.report.reproduce import command_line
from tests.report.report_runs import HOSTILE, Page, write_run


def test_one_file_and_its_plots_beside_it(made, tmp_path):
    out, plots = tmp_path / "page.html", tmp_path / "plots"
    run = write_run(tmp_path / "runs" / "one")
    outcome = made.run(
        *("report", run, "curve", "--out", out, "--plots", plots, "--n-bootstrap", 20, "--json")
    )
    assert outcome.exit_code == 0, outcome.output
    document = json.loads(outcome.stdout)
    assert document["report"] == str(out)
    assert document["bytes"] == out.stat().st_size
    assert sorted(document["plots"]) == sorted(str(path) for path in plots.iterdir())
    with Image.open(plots / "roc-Mass.png") as picture:
        assert picture.width > 800
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "plots", "runs"]


def test_films_are_shown_where_they_are_given(made, tmp_path):
    options = ("--data-root", made.films, "--n-images", 90, "--n-bootstrap", 0)
    outcome = made.run("report", "head", *options, "--out", tmp_path / "page.html")
    assert outcome.exit_code == 0, outcome.output
    found = Page((tmp_path / "page.html").read_text())
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in found.all("img"))
    assert len(found.all("img")) > 20
    assert "Missed" in found.text


def test_without_films_it_says_how_to_show_them(made, tmp_path):
    made.run("report", "head", "--out", tmp_path / "page.html", "--n-bootstrap", 0)
    text = Page((tmp_path / "page.html").read_text()).text
    assert "--dataset phantom" in text


def test_films_of_another_data_set_are_refused(made, tmp_path):
    outcome = made.run(
        *(
            "report",
            "head",
            "--data-root",
            tmp_path / "other",
            "--n-images",
            20,
            "--dataset-seed",
            9,
        ),
        *("--out", tmp_path / "page.html"),
    )
    assert outcome.exit_code == 2
    assert "the data set has no image" in outcome.output
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("there", ["page.html", "plots"])
def test_nothing_is_replaced_unasked(made, tmp_path, there):
    out, plots = tmp_path / "page.html", tmp_path / "plots"
    (tmp_path / there).mkdir() if there == "plots" else out.write_text("mine")
    command = ("report", "curve", "--out", out, "--plots", plots, "--n-bootstrap", 0)
    outcome = made.run(*command)
    assert outcome.exit_code == 2
    assert "--overwrite" in outcome.output
    assert not out.exists() or out.read_text() == "mine"
    assert made.run(*command, "--overwrite").exit_code == 0
    assert out.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("arguments", [["none"], ["head", "head"], ["head", "--finding", "Mas"]])
def test_mistakes_are_told_in_a_line(made, tmp_path, arguments):
    outcome = made.run("report", *arguments, "--out", tmp_path / "page.html")
    assert outcome.exit_code == 2
    assert outcome.output.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("kind", ["head", "linear", "zero", "transfer", "tuned", "curve"])
def test_the_commands_it_gives_are_understood(made, kind):
    import shlex

    from featurecache.report.load_runs import read_runs
    from featurecache.report.reproduce import commands

    (run,) = read_runs([made.work / kind])
    last = shlex.split(commands(run)[-1].replace("\\\n", " "))
    assert last[0] == "featurecache"
    # There already: it is refused for that, after every option was read.
    outcome = made.run(*last[1:], "--out", kind)
    assert outcome.exit_code == 2
    assert "is there already" in outcome.output


def test_a_command_line_means_the_same_to_a_shell():
    import shlex

    arguments = ["evaluate", *HOSTILE, "a b", *[f"--option-{n}" for n in range(20)]]
    line = command_line(arguments)
    assert shlex.split(line.replace(" \\\n   ", "")) == ["featurecache", *arguments]
    assert max(map(len, line.splitlines())) < 100


def test_help_has_an_example(made):
    assert "Example: featurecache report" in made.run("report", "--help").stdout
