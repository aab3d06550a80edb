"""Tables that fit the terminal, and help texts that are wrapped by it."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from featurecache.cli import main
from featurecache.cli.audit import _width
from featurecache.cli.options import parse_prevalence
from featurecache.cli.output import (
    _print_answers,
    escape_unprintable,
    print_json,
    print_metrics,
    print_result,
    print_run,
    print_status,
    print_table,
    progress_bar,
)
from featurecache.cli.predict import (
    _print_by_label,
    _print_missing,
    _print_summary,
    _print_unsure,
)
from featurecache.cli.train_head import _Stops
from featurecache.evaluation.evaluate import evaluate, spread_over_seeds
from featurecache.evaluation.repeated_runs import Trial
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.conformal import Answers, LabelAnswers
from featurecache.metrics.label_support import IN_VALIDATION
from featurecache.metrics.metrics import LabelMatch
from featurecache.schedule import Epoch
from tests.evaluation.toy_splits import validation_and_test

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


def test_other_columns_are_never_left_out_and_numbers_never_broken(narrow_terminal, capsys):
    print_table("", COLUMNS, ROWS)
    output = capsys.readouterr()
    score = "0.938 [0.900, 0.978]"
    blocks = [("label", "Pleural_Thickening"), *((column, score) for column in COLUMNS[1:])]
    assert output.out.splitlines() == [*(f"{name:<7}{cell}" for name, cell in blocks), ""]
    assert output.err == ""


def test_blocks_have_no_empty_cells_and_wrap_only_sentences(narrow_terminal, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    path = "runs/a name of several words and letters/knn"
    print_table(
        path,
        ["", "run", "note"],
        [["1", path, "some words of a longer note"], ["", "b", ""]],
        prose=("note",),
    )
    assert capsys.readouterr().out.splitlines() == [
        path,
        "      1",
        f"run   {path}",
        "note  some words of a longer",
        "      note",
        "",
        "run   b",
        "",
    ]


def test_number_that_does_not_fit_beside_its_heading_is_below_it(
    narrow_terminal, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "40")
    score = "0.574 [0.420, 0.679]"
    row = ["Pleural_Thickening", score, "1.000"]
    print_table("", ["", "mean average precision", "recall"], [row])
    assert capsys.readouterr().out.splitlines() == [
        "  Pleural_Thickening",
        "mean average precision",
        f"  {score}",
        f"{'recall':<24}1.000",
        "",
    ]


def test_sentences_are_wrapped_between_words_and_other_cells_are_not(narrow_terminal, capsys):
    note = "a sentence of many words that names /a/path/of/some/file.png and goes on and on"
    row = ["Pleural Thickening", "0.938 [0.900, 0.978]", note]
    print_table("", ["label", "AUROC", "note"], [row], prose=("note",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("Pleural Thickening  0.938 [0.900, 0.978]  a sentence of many")
    assert max(map(len, lines)) <= 70
    assert " ".join(line[42:].strip() for line in lines[2:]).strip() == note


def test_output_that_is_no_terminal_is_tab_separated(capsys):
    print_table("title", COLUMNS, [*ROWS, ["a\tb\nc", "", "-", "1"]], optional=3)
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "# title",
        "label\tAUROC\tAUPRC\tF1",
        "Pleural_Thickening" + "\t0.938 [0.900, 0.978]" * 3,
        "a\\tb\\nc\t\t-\t1",
        "",
    ]
    assert output.err == ""


@pytest.mark.parametrize("on_terminal", [True, False])
def test_progress_ends_where_the_work_does(monkeypatch, capsys, on_terminal):
    monkeypatch.setenv("COLUMNS", "100")
    stderr = SimpleNamespace(isatty=lambda: on_terminal)
    monkeypatch.setattr("featurecache.cli.output.sys", SimpleNamespace(stderr=stderr))
    with progress_bar(hidden=False) as bar:
        task = bar.add_task("train", total=100, detail="")
        for _ in range(27):
            bar.update(task, advance=1)
        bar.update(task, detail="stopped at epoch 27, best 17")
    lines = capsys.readouterr().err.splitlines()
    if on_terminal:
        assert "27/27 stopped at epoch 27, best 17" in lines[-1]
    else:
        assert lines == [
            "train: 10 of 100",
            "train: 20 of 100",
            "train: 27 of 27, stopped at epoch 27, best 17",
        ]


@pytest.mark.parametrize("on_terminal", [True, False])
def test_tasks_end_when_the_next_one_begins(monkeypatch, capsys, on_terminal):
    monkeypatch.setenv("COLUMNS", "100")
    stderr = SimpleNamespace(isatty=lambda: on_terminal)
    monkeypatch.setattr("featurecache.cli.output.sys", SimpleNamespace(stderr=stderr))
    with progress_bar(hidden=False) as bar:
        bar.add_task("train knn", total=None, detail="")
        linear = bar.add_task("train linear", total=10, detail="")
        bar.update(linear, completed=7)
        nothing = bar.add_task("extract", total=None, detail="")
        bar.update(nothing, completed=0, total=0)
    output = capsys.readouterr().err
    if on_terminal:
        assert "7/7" in output.splitlines()[-2]
        assert "0/0" not in output
    else:
        lines = ["train knn: done", "train linear: 7 of 10", "train linear: 7 of 7"]
        assert output.splitlines() == [*lines, "extract: done"]


def test_epochs_of_several_trainings_are_a_range():
    stops = _Stops()
    assert stops.describe() == ""
    for number, loss in enumerate((3.0, 1.0, 2.0), start=1):
        stops.add(0, Epoch(number, 0.1, 0.5, loss))
    assert stops.describe() == "stopped at epoch 3, best 2"
    for number, loss in enumerate((3.0, 2.0, 1.0, 0.5), start=1):
        stops.add(1, Epoch(number, 0.1, 0.5, loss))
    stops.add(0, Epoch(1, 0.1, 0.5, 1.0))
    assert stops.describe() == "stopped at epoch 1 to 4, best 1 to 4"
    stops.clear()
    assert stops.describe() == ""


def test_what_two_heads_share_is_printed_once(capsys):
    truth = (np.random.default_rng(0).random((200, 3)) < [0.3, 0.2, 0]).astype(np.int8)
    truth[:3, 2] = 1
    data = SplitData(
        truth=truth,
        label_names=("Mass", "Pleural_Thickening", "Hernia"),
        patient=np.arange(200) // 2,
        view=np.full(200, ""),
        train=np.empty(0, dtype=np.intp),
        val=np.empty(0, dtype=np.intp),
        test=np.arange(200),
        learned=np.ones(3, dtype=bool),
    )
    probability = 0.5 * truth + 0.5 * np.random.default_rng(1).random(truth.shape)
    metrics = evaluate(data, probability, n_bootstrap=20)
    printed: set[str] = set()
    for own in ("fit of a stopped", "fit of b stopped"):
        warnings = [*metrics.warnings, "possible exposure", own]
        print_run("head", SimpleNamespace(metrics=metrics, warnings=warnings), printed)
    output = capsys.readouterr()
    assert output.err.count("possible exposure") == 1
    assert output.err.count("fit of") == 2
    assert output.out.count("no interval with fewer than 5 patients") == 1
    assert "macro, 3 labels" in output.out
    assert "macro, 2 labels with enough patients" in output.out
    scores = metrics.per_label["Mass"]
    assert f"{scores.n_positive} ({scores.n_positive_patients})" in output.out


def test_a_run_without_any_known_label_says_so_and_has_no_baselines(capsys):
    data = SplitData(
        truth=np.full((4, 1), -1, dtype=np.int8),
        label_names=("Mass",),
        patient=np.arange(4),
        view=np.full(4, ""),
        train=np.empty(0, dtype=np.intp),
        val=np.empty(0, dtype=np.intp),
        test=np.arange(4),
        learned=np.ones(1, dtype=bool),
    )
    metrics = evaluate(data, np.full((4, 1), 0.5), n_bootstrap=0)
    print_run("head", SimpleNamespace(metrics=metrics, warnings=metrics.warnings))
    output = capsys.readouterr()
    assert "no label that was learned has positives and negatives among" in output.err
    assert "trivial baselines" not in output.err


def test_many_labels_of_an_image_have_a_row_each(narrow_terminal, capsys):
    thresholds = {f"Pleural_Thickening {number}": 0.5 for number in range(14)}

    def values(first):
        row = {"image": f"folder/{first}.png"}
        for number, label in enumerate(thresholds):
            probability = (first + number) / 20
            row |= {
                f"{label} probability": probability,
                f"{label} positive": probability >= 0.5,
                f"{label} calibrated": np.nan,
                f"{label} answer": "unsure",
            }
        return row

    one = pd.DataFrame([values(0)])
    _print_by_label("probabilities", one, thresholds)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "probabilities: folder/0.png"
    assert lines[3].split() == ["Pleural_Thickening", "13", "0.650*", "0.500", "unsure", "–"]
    assert sum("Pleural_Thickening" in line for line in lines) == 14
    # Of several images: the three highest, and all that are at or above their threshold.
    several = pd.DataFrame([values(0), values(-5)])
    _print_by_label("probabilities", several, thresholds)
    output = capsys.readouterr().out
    assert output.startswith("probabilities, images in folder\n")
    assert output.count("Pleural_Thickening") == 4 + 3


def test_summary_of_many_images_counts_and_names_unsure_ones(capsys):
    images = [f"{number}.png" for number in range(30)]
    answers = {"Mass": ["unsure"] * 2 + ["absent"] * 28, "Edema": ["present", *["unsure"] * 29]}
    table = pd.DataFrame({"image": images})
    for label in ("Mass", "Edema", "Hernia"):
        table[f"{label} probability"] = 0.25
        table[f"{label} positive"] = False
        table[f"{label} answer"] = answers.get(label)
        table[f"{label} sd"] = 0.125
    table["error"] = None
    thresholds = dict.fromkeys(("Mass", "Edema", "Hernia"), 0.5)
    _print_summary("predictions", table, thresholds)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines.pop(0) == ["# predictions"]
    assert lines[0][3:] == ["median probability", "present", "unsure", "absent", "median sd"]
    assert lines[1] == ["Mass", "0.500", "0 (0%)", "0.250", "0", "2", "28", "0.125"]
    assert lines[3][4:7] == ["–", "–", "–"]
    _print_unsure(table, thresholds)
    printed = capsys.readouterr().out
    assert printed.startswith("unsure of 30 images, those with the most labels first: 1.png (Mass")
    assert "1.png (Mass, Edema), 0.png (Mass), 2.png (Edema)" in printed
    assert printed.endswith(", ...\n")


def test_two_forms_of_a_prevalence_are_refused():
    assert parse_prevalence(["0.1"]) == 0.1
    assert parse_prevalence(["Mass=0.1", "Edema=0.2"]) == {"Mass": 0.1, "Edema": 0.2}
    for both in (["0.1", "Mass=0.2"], ["0.1", "0.2"]):
        with pytest.raises(typer.BadParameter, match="one number for all labels"):
            parse_prevalence(both)


def test_answers_that_are_missing_name_their_labels(capsys):
    answers = Answers(
        coverage=0.9,
        per_label={name: LabelAnswers(reason="too few") for name in ("Mass", "Edema")},
    )
    _print_answers(answers, "", carried=False)
    assert capsys.readouterr().out == "no answers: Mass, Edema: too few\n"
    _print_answers(answers, "", carried=True)
    assert "no answers by the limits of the training run: Mass" in capsys.readouterr().out


def test_what_all_labels_lack_for_one_reason_is_one_line(capsys):
    few = {name: f"{IN_VALIDATION}only {n} patients" for n, name in enumerate(("Mass", "Edema"))}
    _print_missing(few, {"calibrated probability": few, "answer": few})
    assert capsys.readouterr().out == (
        "no calibrated probability or answer of any label: too few validation patients "
        "(--json has their numbers)\n"
    )
    gain = {"Mass": "it does not lower the log loss (0.2 without, 0.3 with it)"}
    _print_missing(few, {"calibrated probability": gain, "answer": few})
    first, second = capsys.readouterr().out.splitlines()
    assert first == "no calibrated probability of Mass: it does not lower the log loss"
    assert second.startswith("no answer of any label: ")


def test_a_width_above_that_of_all_values_is_not_a_number():
    assert [_width(width) for width in (None, 0.5, 1.061)] == ["–", "0.500", "> 1"]


def test_help_has_no_line_breaks_of_its_own(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = run("train-head", "--help").stdout
    assert "on validation images; the test images are only scored." in text


SAME = LabelMatch(labels=["Mass"], kind="same")


def test_calibration_is_printed_with_the_labels_that_were_scaled(capsys):
    rng = np.random.default_rng(0)
    truth = (rng.random((120, 2)) < 0.5).astype(np.int8)
    truth[:60, 1] = 0
    probability = 1 / (1 + np.exp(-8 * (truth - 0.5 + rng.normal(size=(120, 2)))))
    data = validation_and_test(truth, ("Mass", "Edema"))
    metrics = evaluate(data, probability, n_bootstrap=0)
    labels = "applied to 1 of 2 labels. Not applied to: 1 with too few validation patients"
    maps = ((None, "fitted on validation images"), ({"Mass": SAME}, "of the training run"))
    for label_map, fitted in maps:
        print_metrics("title", metrics.replace(label_map=label_map), set())
        output = " ".join(capsys.readouterr().out.split())
        after = metrics.calibration.macro.after.error
        assert f"and {after:.3f} after Platt scaling Platt scaling {fitted}: {labels}" in output
        assert "seed" not in output
        # On another data set, also whether there are as many positives as expected.
        mean = probability[data.test, 0].mean()
        gap = f"{truth[data.test, 0].mean() - mean:+.3f}".replace("-", "−")
        assert (f"observed / expected Mass {gap}" in output) == (label_map is not None)
    unsupported = metrics.calibration.model_copy(update={"labels": []})
    print_metrics("title", metrics.replace(calibration=unsupported), set())
    assert "calibration error: undefined, because no label has" in capsys.readouterr().out
    trials = [Trial(data, probability), Trial(data, probability**2)]
    seeds = spread_over_seeds(trials, [3, 4], n_bootstrap=0)
    print_metrics("title", metrics.replace(seeds=seeds), set())
    output = capsys.readouterr().out
    assert (
        "\nseed 3 (first of 2): calibration error, bins of 2 labels with enough patients pooled:"
        in output
    )
    assert "\nseed 3 (first of 2): at a threshold of 0.5 for all labels" in output
    assert "\nmean of 2 seeds: exact match" in output


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("on_terminal", [True, False])
def test_characters_that_the_encoding_lacks_are_escaped(monkeypatch, encoding, on_terminal):
    streams = {}
    for name in ("stdout", "stderr"):
        streams[name] = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(streams[name], "isatty", lambda: on_terminal, raising=False)
        monkeypatch.setattr(sys, name, streams[name])
    escape_unprintable()
    print_table("größer → 1", ["Ödem"], [["→"]])
    print_status("größer → 1")
    print_result("größer → 1")
    for stream in streams.values():
        stream.flush()
        printed = stream.buffer.getvalue()
        # typer writes UTF-8 where it takes an ASCII stream for misconfigured.
        text = printed.decode("utf-8" if encoding == "ascii" else encoding)
        assert "→" in text or r"\u2192" in text
    stdout = streams["stdout"].buffer
    stdout.truncate(0)
    stdout.seek(0)
    document = {"label": "Ödem → \udcc3"}
    print_json(document)
    assert json.loads(stdout.getvalue().decode("ascii")) == document


def test_commands_print_in_any_encoding(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "→").mkdir()
    outcome = CliRunner(charset="latin-1").invoke(main, ["runs", "ls", "→"])
    assert outcome.exit_code == 0
    assert r"\u2192" in outcome.output
    assert CliRunner(charset="latin-1").invoke(main, ["runs", "ls", "→", "--json"]).exit_code == 0
