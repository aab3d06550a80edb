"""The page shows the metrics of its runs, whatever their labels hold, and loads nothing."""

import json
import re
from dataclasses import replace
from html import escape
from types import SimpleNamespace

import numpy as np
import pytest

from featurecache.errors import RunError, UnknownNameError, UsageError
from featurecache.evaluation.comparison import compare
from featurecache.evaluation.zero_shot import zero_shot
from featurecache.heads.learning_curve import learning_curve
from featurecache.metrics.curves import Curve
from featurecache.metrics.metrics import (
    CurveMetrics,
    CurvePoint,
    Difference,
    RankingDifferences,
    RankingIntervals,
    RankingScores,
    TextGain,
)
from featurecache.metrics.predictive_values import predictive_values
from featurecache.report import examples, label_sections, plot_registry, plots
from featurecache.report.page import ReportPage, build_page
from featurecache.report.report import report, save_page, write_report
from featurecache.report.svg import inline_svg
from featurecache.report.training_section import selection_table
from featurecache.runs.folder import new_run, write_config, write_json
from featurecache.runs.run import load_run
from tests.report.report_runs import HOSTILE, Page, assert_valid, metrics_of, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("report-page") / "run")


@pytest.fixture(scope="module")
def page_of_run(run) -> ReportPage:
    return build_page([run])


@pytest.fixture
def drawn() -> None:
    """For tests of the plots of labels, without which a page takes a third of the time."""


@pytest.fixture
def all_drawn(drawn, monkeypatch) -> None:
    """For tests of the plots of every label, not only of the first ones."""
    monkeypatch.setattr(label_sections, "_label_plots", label_sections._label_plots.__wrapped__)


@pytest.fixture
def rendered(drawn) -> None:
    """For tests of the plots as they are in the page, another half of the time."""


@pytest.fixture(autouse=True)
def _few_plots(request, page_of_run, monkeypatch):
    def empty_svg(figure, *, title, id_prefix):
        return f'<svg aria-label="{escape(title)}"></svg>'

    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(label_sections, "_label_plots", lambda *_: [])
    if "rendered" not in request.fixturenames:
        monkeypatch.setattr(plot_registry, "inline_svg", empty_svg)


def parse_page(*runs, **options) -> Page:
    return Page(build_page(runs, **options).html)


def test_page_shows_rounded_metrics(run, page_of_run):
    metrics, page = metrics_of(run), Page(page_of_run.html)
    assert_valid(page)
    for key in ("auroc", "auprc", "f1"):
        for group in ("macro", "Mass", "Edema"):
            scores = metrics["macro"] if group == "macro" else metrics["per_label"][group]
            bounds = metrics["ci95"]["macro" if group == "macro" else "per_label"]
            low, high = (bounds if group == "macro" else bounds[group])[key]
            assert f"{scores[key]:.3f} [{low:.3f}, {high:.3f}]" in page.text
    for label in metrics["per_label"].values():
        for key in ("threshold", "precision", "recall"):
            assert f"{label[key]:.3f}" in page.text
        for count in np.ravel(label["confusion"]):
            assert f">{count:,}</td>" in page.html
    for side in ("before", "after"):
        assert f"{metrics['calibration']['macro'][side]['error']:.3f}" in page.text


def test_page_shows_operating_points(run):
    run = load_run(run)
    scores, stated = run.metrics.per_label["Mass"], predictive_values(0.9, 0.8, 0.1)
    page = parse_page(replace(run, metrics=run.metrics.replace(at_prevalence={"Mass": stated})))
    assert_valid(page)
    low, high = scores.interval("recall")
    assert f"{scores.recall:.3f} [{low:.3f}, {high:.3f}]" in page.text
    assert "f1 on validation" in page.text
    assert f"{stated.ppv:.3f}" in page.text


def test_page_shows_net_benefit_and_risk_coverage_of_each_label(run, page_of_run):
    run = load_run(run)
    for plot in ("net-benefit-Mass", "risk-coverage-Mass"):
        assert plot in page_of_run.figures
    column = run.scored.label_names.index("Mass")
    rows = (run.scored.splits == "test") & (run.scored.truth[:, column] >= 0)
    truth, p = run.scored.truth[rows, column], run.scored.probability[rows, column]
    wrong = (p >= run.metrics.per_label["Mass"].threshold) != truth
    (line,) = (
        line
        for line in page_of_run.figures["risk-coverage-Mass"].axes[0].lines
        if "AURC" in str(line.get_label())
    )
    assert line.get_ydata()[-1] == pytest.approx(wrong.mean())
    assert len(line.get_ydata()) == len(wrong)


def test_risk_coverage_of_many_images_is_thinned_to_what_can_be_seen():
    curve = Curve(np.arange(1, 9_001) / 9_000, np.linspace(0, 0.25, 9_000))
    figure = plots.risk_coverage_plot({"run": curve}, {"run": 0}, {"run": 0.1})
    (line,) = figure.axes[0].lines
    x, y = line.get_data()
    assert len(x) == 500
    assert (x[0], x[-1]) == (curve.x[0], 1)
    np.testing.assert_allclose(y, np.interp(x, curve.x, curve.y))


def test_runs_of_the_same_images_are_compared(tmp_path):
    runs = [write_run(tmp_path / name, seed=seed) for name, seed in (("one", 1), ("two", 2))]
    auroc = compare(runs).comparisons[0].macro["auroc"]
    low, high = auroc.ci95
    signed = f"{auroc.difference:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−")
    page = parse_page(*runs)
    assert_valid(page)
    assert signed in page.text
    assert "Difference from one" in page.text


def test_runs_of_different_images_are_not_compared(tmp_path):
    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two", n=60)]
    page = parse_page(*runs)
    assert_valid(page)
    assert "cannot be compared" in page.text
    assert "Difference from one" not in page.text
    assert "numbers of positives differ" in page.text
    assert "images with a known label" not in page.text
    for run, n in zip(runs, (120, 60), strict=True):
        assert f"{metrics_of(run)['per_label']['Mass']['n_positive']} of {n}" in page.text


def test_runs_with_different_labels_share_a_page(drawn, tmp_path):
    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two", labels=("Edema", "Hernia"))]
    page = parse_page(*runs)
    assert_valid(page)
    assert page.html.count('class="label"') == 3


def test_label_unknown_in_the_first_run_is_plotted_for_the_second(drawn, tmp_path):
    def edit_truth(truth):
        truth[:, 0] = -1

    runs = [write_run(tmp_path / "one", edit_truth=edit_truth), write_run(tmp_path / "two")]
    report = build_page(runs)
    assert_valid(Page(report.html))
    assert {"roc-Mass", "precision-recall-Mass", "calibration-Mass"} <= set(report.figures)


def test_example_images_are_those_of_the_first_run(tmp_path, monkeypatch):
    attention = SimpleNamespace(of_image=lambda *_: np.eye(2), geometry=None)
    monkeypatch.setattr(examples, "attention_of", lambda *_: (attention, None))
    monkeypatch.setattr(examples.Thumbnails, "map_url", lambda *_: "data:,")
    one = write_run(tmp_path / "one", cache={"dataset": "here"})
    two = write_run(tmp_path / "two", labels=("Hernia",), cache={"dataset": "there"})
    files = {f"{number:06d}.png": tmp_path / "gone.png" for number in range(120)}
    page = parse_page(one, two, files=files)
    assert_valid(page)
    assert page.html.count("Most confident predictions of one") == 2
    assert page.html.count('alt="Attention to image') == page.html.count("cannot be read") > 0
    assert "where the head looks for Mass" in page.text
    assert "Most confident predictions of two" not in page.html
    assert "cannot be read" in page.text


def test_curves_show_the_first_eight_runs(drawn, tmp_path):
    runs = [
        write_run(tmp_path / f"run-{n}", labels=("Mass",), seed=n, n_bootstrap=0) for n in range(10)
    ]
    report = build_page(runs)
    assert_valid(Page(report.html))
    assert "the first 8 runs" in report.html
    assert len(report.figures["roc-Mass"].axes[0].get_legend().texts) == 8


def test_plots_have_given_names_scores_steps_and_a_format(drawn, tmp_path):
    runs = [write_run(tmp_path / f"run-{n}", labels=("Mass", "Hernia"), seed=n) for n in range(2)]
    names = {"run-0": "Ours", str(runs[1]): "Theirs"}
    written = write_report(
        runs, tmp_path / "p.html", plots=tmp_path / "plots", names=names, plot_format="svg"
    )
    assert {path.suffix for path in written.plots} == {".svg"}
    assert "run-0=Ours" in Page((tmp_path / "p.html").read_text()).text
    figures = build_page(runs, names=names).figures
    aurocs = [load_run(run).metrics.per_label["Mass"].auroc for run in runs]
    legend = [text.get_text() for text in figures["roc-Mass"].axes[0].get_legend().texts]
    assert legend == [f"Ours, AUROC {aurocs[0]:.3f}", f"Theirs, AUROC {aurocs[1]:.3f}"]
    # Legends are above the axes.
    for name in ("roc-Mass", "precision-recall-Mass", "calibration-Mass"):
        (axes,) = figures[name].axes
        figures[name].draw_without_rendering()
        box = axes.get_legend().get_window_extent()
        assert box.y0 >= axes.get_window_extent().y1
        assert box.y1 <= figures[name].bbox.y1
    # The area under the steps is the average precision, up to the point at recall 0.
    curve = figures["precision-recall-Mass"].axes[0].lines[1]
    assert curve.get_drawstyle() == "steps-pre"
    recall, precision = curve.get_data()
    auprc = load_run(runs[0]).metrics.per_label["Mass"].auprc
    assert (np.diff(recall) * precision[1:]).sum() == pytest.approx(auprc, abs=1e-6)
    labels = [text.get_text() for text in figures["labels"].axes[0].get_yticklabels()]
    assert labels == ["Mass", "Hernia"]
    with pytest.raises(UnknownNameError, match="did you mean pdf"):
        write_report(runs, tmp_path / "q.html", plot_format="pfd")


def test_runs_with_equal_names_are_shown_by_path(tmp_path):
    runs = [write_run(tmp_path / place / "run", seed=n) for n, place in enumerate("ab")]
    page = parse_page(*runs)
    assert_valid(page)
    assert str(runs[1]) in page.text


def test_path_that_is_not_utf8_is_written(tmp_path):
    save_page(ReportPage("<p>runs/\udcff</p>", {}, {}, ()), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == b"<p>runs/?</p>"


def test_undefined_metrics_are_dashes(rendered, tmp_path):
    def edit_truth(truth):
        truth[:, 1] = 0
        truth[:, 2] = -1

    run = write_run(
        tmp_path / "run",
        labels=("Mass", "Never", "Unknown", "Unlearned"),
        edit_truth=edit_truth,
        unlearned=[3],
    )
    page = parse_page(run)
    assert_valid(page)
    rows = dict(re.findall(r'<tr><th scope="row"><a [^>]*>(\w+)</a></th>(.*?)</tr>', page.html))
    assert "<td>–</td>" not in rows["Mass"]
    for name in ("Never", "Unknown", "Unlearned"):
        cells = re.findall("<td>(.*?)</td>", rows[name])
        assert cells[1] == cells[2] == "–", cells
    assert "There is nothing to plot" in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.lower()


def test_markup_in_labels_paths_and_warnings_is_escaped(all_drawn, rendered, hostile_run):
    page = parse_page(hostile_run)
    assert_valid(page)
    for name in HOSTILE:
        assert name in page.text
    assert "alert(4)" in page.text
    assert hostile_run.name in page.text


@pytest.mark.parametrize("labels", [("Mass",), tuple(f"Finding {n}" for n in range(20))])
def test_page_of_one_or_twenty_labels(rendered, tmp_path, labels):
    run = write_run(tmp_path / "run", labels=labels, n=30)
    page = parse_page(run)
    assert_valid(page)
    assert page.html.count('class="label"') == len(labels)
    assert len(page.html) < 10e6


def test_page_of_one_image(drawn, tmp_path):
    run = write_run(tmp_path / "run", n=1, labels=("Mass",))
    page = parse_page(run)
    assert_valid(page)
    assert "of 1 patient" in page.text


def test_page_of_images_without_patients(drawn, tmp_path):
    run = load_run(write_run(tmp_path / "run", per_patient=1))
    report = build_page([run])
    page = Page(report.html)
    assert_valid(page)
    assert "of 120 patients" in page.text
    # DeLong's interval is beside the one over patients.
    auroc, interval = run.metrics.per_label["Mass"].auroc, run.metrics.delong.per_label["Mass"]
    low, high = run.metrics.per_label["Mass"].auroc_ci
    (row,) = (row for row in report.tables["delong-run"].rows if row[0] == "Mass")
    assert row[1] == f"{auroc:.3f} [{low:.3f}, {high:.3f}]"
    assert row[2] == "{:.3f} to {:.3f}".format(*interval.auroc)


def test_warnings_come_first(tmp_path):
    page = parse_page(write_run(tmp_path / "run", warnings=["the metrics are optimistic"]))
    assert page.text.index("the metrics are optimistic") < page.text.index("Results\n\n")


def test_page_of_every_kind_of_run(rendered, workspace):
    kinds = ("head", "linear", "zero", "transfer", "tuned", "curve")
    page = parse_page(*(workspace.folder / kind for kind in kinds), caches=[])
    assert_valid(page)
    for kind in ("head", "zero-shot", "external", "finetune", "curve"):
        assert f"<dd>{kind}</dd>" in page.html
    for control in ("shuffled labels", "random features", "permuted texts", "view position alone"):
        assert control in page.text
    assert "trained the encoder itself" in page.text
    assert "candidates" in page.text


def test_gain_from_texts_is_reported(run):
    run = load_run(run)
    auroc = Difference(difference=0.125, ci95=(-0.25, 0.5))
    gain = TextGain(pairs=5, labels=["Mass"], macro=RankingDifferences(auroc=auroc))
    page = parse_page(replace(run, metrics=run.metrics.replace(text_gain=gain)))
    assert "mean over 5 seeds): macro AUROC over 1 label +0.125 [−0.250, +0.500]" in page.text


def test_page_of_a_learning_curve_alone(workspace, tmp_path):
    assert_valid(parse_page(workspace.folder / "curve"))
    scores = RankingScores(auroc=0.75, auprc=None)
    point = CurvePoint(macro=scores, ci95=RankingIntervals(auroc=(0.5, 0.875)), gain=None, labels=3)
    curve = CurveMetrics(
        n=90,
        n_patients=40,
        sizes=[8, 16],
        labels=["Mass", "Edema"],
        cells={"linear": [CurvePoint.undefined(1), point]},
    )
    with new_run(tmp_path / "curve") as folder:
        write_config(folder, "curve", {"seeds": [0, 1]})
        write_json(folder / "curve.json", curve.to_json())
    page = parse_page(tmp_path / "curve")
    assert_valid(page)
    assert "0.750 [0.500, 0.875]" in page.text
    assert "macro over Mass, Edema" in page.text


def test_page_of_runs_that_are_not_saved(workspace):
    cache = workspace.folder / "cache" / "phantom" / "tiny.h5"
    curve = learning_curve(cache, ["prototype"], sizes=[16, 32], seeds=1)
    page = parse_page(zero_shot(cache, n_bootstrap=0), curve)
    assert_valid(page)
    with pytest.raises(UsageError, match="twice"):
        build_page([curve, curve])


def test_missing_cache_is_explained(workspace, tmp_path):
    moved = write_run(tmp_path / "moved", cache={"path": "gone.h5", "fingerprint": "0"})
    assert "give its current path as `caches`" in parse_page(moved).text
    cache = workspace.folder / "cache" / "phantom" / "tiny.h5"
    other = write_run(
        tmp_path / "other", cache={"path": str(cache), "fingerprint": "0", "dataset": "phantom"}
    )
    assert "the fingerprint differs" in parse_page(other).text


def test_unknown_finding_is_refused(run):
    with pytest.raises(UnknownNameError, match="Mass"):
        build_page([run], finding="Mas")


def test_invalid_runs_are_refused(tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        build_page([tmp_path / "none"])
    run = write_run(tmp_path / "run")
    with pytest.raises(UsageError, match="twice"):
        build_page([run, tmp_path / "." / "run"])
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"kind": "other"}))
    with pytest.raises(RunError, match="'other'"):
        build_page([run])


@pytest.mark.parametrize("text", ["epoch,val_loss\n1,2,3\n", "epoch,val_loss\n1,low\n"])
def test_damaged_history_is_refused(tmp_path, text):
    run = write_run(tmp_path / "run")
    (run / "history.csv").write_text(text)
    with pytest.raises(RunError, match=r"history\.csv"):
        build_page([run])


def test_incomplete_metrics_are_refused(tmp_path):
    run = write_run(tmp_path / "run")
    metrics = metrics_of(run)
    del metrics["controls"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(RunError, match=r"metrics\.json is damaged \(controls: "):
        build_page([run])


def test_selected_settings_are_shown(workspace):
    rows = re.findall(
        r'<tr><th scope="row">all</th><td>([\w-]+ ?C?)=',
        parse_page(workspace.folder / "linear").html,
    )
    assert rows == ["any-finding C", "C"]


def test_settings_selected_for_a_label_are_shown_by_its_name():
    line = {"setting": "C=1", "validation": 0.25, "measure": "loss", "chosen": True}
    line["chosen_by"] = "cross-validation on training patients"
    run = SimpleNamespace(
        name="run",
        scored=SimpleNamespace(label_names=("Mass", "Edema")),
        history=[{"label": "1", **line}, {"label": "0", **line, "chosen": False}],
    )
    assert selection_table(run).rows == [["Edema", "C=1", "0.2500", "loss", line["chosen_by"]]]


def test_report_is_reproducible_and_matplotlib_settings_are_restored(rendered, run, page_of_run):
    import matplotlib

    before = dict(matplotlib.rcParams)
    assert build_page([run]).html == page_of_run.html
    assert dict(matplotlib.rcParams) == before


def test_plot_names_are_valid_file_names(all_drawn, hostile_run):
    figures = build_page([hostile_run]).figures
    assert all(re.fullmatch(r"[\w.-]+", name) for name in figures)
    assert len({name.lower() for name in figures}) == len(figures)


def test_svg_ids_are_unique_to_the_figure(page_of_run):
    figure = page_of_run.figures["roc-Mass"]
    svg = inline_svg(figure, title='ROC of "<Mass>"', id_prefix="p9-")
    names = re.findall(r' id="([^"]*)"', svg)
    assert names
    assert all(name.startswith("p9-") for name in names)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', svg)) == set(names)
    assert "metadata" not in svg
    assert 'aria-label="ROC of &quot;&lt;Mass&gt;&quot;"' in svg


def test_report_accepts_strings_and_refuses_to_overwrite(drawn, tmp_path):
    run = write_run(tmp_path / "run", labels=("Mass",))
    out = tmp_path / "page.html"
    assert report(str(run), str(out), plots=str(tmp_path / "plots")) == out
    assert (tmp_path / "plots" / "roc-Mass.png").exists()
    with pytest.raises(UsageError, match="`overwrite`"):
        report(run, out)
    assert report([run], out, overwrite=True) == out
