"""``featurecache report``: what it writes, refuses and prints."""

import json
from importlib import import_module

import pytest
from PIL import Image

from featurecache.report.reproduce import command_line
from featurecache.runs.run import load_run
from tests.report.report_runs import HOSTILE, Page, write_run


def test_page_and_plots_are_written(workspace, tmp_path):
    out, plots = tmp_path / "page.html", tmp_path / "plots"
    run = write_run(tmp_path / "runs" / "one", labels=("Mass",))
    tables = {"latex": tmp_path / "tex", "markdown": tmp_path / "md"}
    folders = [word for name, folder in tables.items() for word in (f"--{name}", folder)]
    outcome = workspace.run(
        *("report", run, "curve", "--out", out, "--plots", plots, *folders, "--json")
    )
    assert outcome.exit_code == 0, outcome.output
    document = json.loads(outcome.stdout)
    assert document["report"] == str(out)
    assert document["bytes"] == out.stat().st_size
    assert sorted(document["plots"]) == sorted(str(path) for path in plots.iterdir())
    with Image.open(plots / "roc-Mass.png") as image:
        assert image.width > 800
    written = sorted(str(path) for folder in tables.values() for path in folder.iterdir())
    assert sorted(document["tables"]) == written
    scores = load_run(run).metrics.per_label["Mass"]
    for file, text in (
        ("tex/labels.tex", f"Mass & {scores.n_positive} & {scores.auroc:.3f} ["),
        ("md/labels.md", f"| Mass | {scores.n_positive} | {scores.auroc:.3f} ["),
        ("tex/performance.tex", r"\caption{Averages over labels, with 95 \% intervals"),
        ("md/operating-points-one.md", "| label | threshold | sensitivity | specificity |"),
        ("md/curve-curve.md", "paired gain"),
    ):
        assert text in (tmp_path / file).read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("md", "page.html", "plots", "runs", "tex")
    ]


def test_data_set_gives_example_images(workspace, tmp_path):
    options = ("--data-root", workspace.images, "--n-images", 90)
    outcome = workspace.run("report", "head", *options, "--out", tmp_path / "page.html")
    assert outcome.exit_code == 0, outcome.output
    page = Page((tmp_path / "page.html").read_text())
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert len(page.all("img")) > 20
    assert "False negatives" in page.text


def test_page_explains_how_to_include_images(workspace, tmp_path):
    run = write_run(tmp_path / "run", labels=("Mass",))
    workspace.run("report", run, "--out", tmp_path / "page.html")
    text = Page((tmp_path / "page.html").read_text()).text
    assert "This report holds no example images" in text
    assert "--data-root" in text


def test_other_data_set_is_refused(workspace, tmp_path):
    outcome = workspace.run(
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


@pytest.mark.parametrize("existing", ["page.html", "plots"])
def test_existing_files_are_not_replaced(workspace, tmp_path, existing):
    out, plots = tmp_path / "page.html", tmp_path / "plots"
    (tmp_path / existing).mkdir() if existing == "plots" else out.write_text("mine")
    command = ("report", "curve", "--out", out, "--plots", plots)
    outcome = workspace.run(*command)
    assert outcome.exit_code == 2
    assert "--overwrite" in outcome.output
    assert not out.exists() or out.read_text() == "mine"
    assert workspace.run(*command, "--overwrite").exit_code == 0
    assert out.read_text().startswith("<!doctype html>")


def test_interrupted_report_is_completed_by_the_same_command(workspace, tmp_path, monkeypatch):
    module = import_module("featurecache.report.report")  # its name in the package is a function
    save_figure = module.save_figure
    out, plots = tmp_path / "page.html", tmp_path / "plots"
    command = ("report", "curve", "--out", out, "--plots", plots)

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_figure", interrupt)
    assert workspace.run(*command).exit_code == 130
    page = out.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} <= {"page.html", "runs"}
    monkeypatch.setattr(module, "save_figure", save_figure)
    outcome = workspace.run(*command, "--json")
    assert outcome.exit_code == 0, outcome.output
    assert out.read_bytes() == page
    assert any(plots.iterdir())
    assert workspace.run(*command).exit_code == 2  # finished


@pytest.mark.parametrize("arguments", [["none"], ["head", "head"], ["head", "--finding", "Mas"]])
def test_mistakes_are_reported_in_one_line(workspace, tmp_path, arguments):
    outcome = workspace.run("report", *arguments, "--out", tmp_path / "page.html")
    assert outcome.exit_code == 2
    assert outcome.output.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("kind", ["head", "linear", "zero", "transfer", "tuned", "curve"])
def test_reproduction_commands_are_valid(workspace, kind):
    import shlex

    from featurecache.report.load_runs import load_runs
    from featurecache.report.reproduce import reproduction_commands

    (run,) = load_runs([workspace.folder / kind])
    last = shlex.split(reproduction_commands(run)[-1].replace("\\\n", " "))
    assert last[0] == "featurecache"
    # Refused because the run exists, which is checked after all options are parsed.
    outcome = workspace.run(*last[1:])
    assert outcome.exit_code == 2
    assert "already exists" in outcome.output


def test_command_line_is_quoted_for_a_shell():
    import shlex

    arguments = ["evaluate", *HOSTILE, "a b", *[f"--option-{n}" for n in range(20)]]
    line = command_line(arguments)
    assert shlex.split(line.replace(" \\\n   ", "")) == ["featurecache", *arguments]
    assert max(map(len, line.splitlines())) < 100


def test_help_shows_an_example(workspace):
    assert "Example: featurecache report" in workspace.run("report", "--help").stdout
