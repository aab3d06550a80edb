"""The page says what metrics.json says, whatever labels hold, and asks nothing of the network."""

import json
import re

import numpy as np
import pytest

from featurecache.errors import RunError, UnknownNameError, UsageError
from featurecache.evaluation.comparison import compare
from featurecache.report.page import Report, build_report
from featurecache.report.svg import inline_svg
from featurecache.report.write import write_report
from tests.report.report_runs import HOSTILE, Page, assert_whole, metrics_of, write_run


def page(*runs, **options) -> Page:
    return Page(build_report(runs, **{"n_bootstrap": 20, **options}).html)


def test_figures_are_those_of_metrics_json_rounded(tmp_path):
    run = write_run(tmp_path / "run")
    metrics, found = metrics_of(run), page(run)
    assert_whole(found)
    for key in ("auroc", "auprc", "f1"):
        for group in ("macro", "Mass", "Edema"):
            one = metrics["macro"] if group == "macro" else metrics["per_label"][group]
            bounds = metrics["ci95"]["macro" if group == "macro" else "per_label"]
            low, high = (bounds if group == "macro" else bounds[group])[key]
            assert f"{one[key]:.3f} [{low:.3f}, {high:.3f}]" in found.text
    for label in metrics["per_label"].values():
        for key in ("threshold", "precision", "recall"):
            assert f"{label[key]:.3f}" in found.text
        for count in np.ravel(label["confusion"]):
            assert f">{count:,}</td>" in found.html
    for side in ("before", "after"):
        assert f"{metrics['calibration']['macro'][side]['ece']:.3f}" in found.text


def test_runs_of_the_same_images_are_compared_in_pairs(tmp_path):
    runs = [write_run(tmp_path / name, seed=seed) for name, seed in (("one", 1), ("two", 2))]
    figure = compare(runs, n_bootstrap=20)["comparisons"][0]["macro"]["auroc"]
    low, high = figure["ci95"]
    signed = f"{figure['difference']:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−")
    found = page(*runs)
    assert_whole(found)
    assert signed in found.text
    assert "Less one" in found.text


def test_runs_of_other_images_stand_beside_each_other_without_differences(tmp_path):
    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two", n=60)]
    found = page(*runs)
    assert_whole(found)
    assert "cannot be compared" in found.text
    assert "Less one" not in found.text


def test_runs_with_other_labels_share_a_page(tmp_path):
    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two", labels=("Edema", "Hernia"))]
    found = page(*runs)
    assert_whole(found)
    assert found.html.count('class="label"') == 3


def test_a_label_that_only_the_second_run_knows_is_drawn_for_it(tmp_path):
    def spoil(truth):
        truth[:, 0] = -1

    runs = [write_run(tmp_path / "one", spoil=spoil), write_run(tmp_path / "two")]
    report = build_report(runs, n_bootstrap=20)
    assert_whole(Page(report.html))
    assert {"roc-Mass", "precision-recall-Mass", "calibration-Mass"} <= set(report.figures)


def test_films_are_those_of_the_first_runs_data_set(tmp_path):
    one = write_run(tmp_path / "one", cache={"dataset": "here"})
    two = write_run(tmp_path / "two", labels=("Hernia",), cache={"dataset": "there"})
    films = {f"{number:06d}.png": tmp_path / "gone.png" for number in range(120)}
    found = page(one, two, films=films)
    assert_whole(found)
    assert found.html.count("Most certain, by one") == 2
    assert "Most certain, by two" not in found.html
    assert "cannot be read" in found.text


def test_of_many_runs_curves_are_of_the_first_eight(tmp_path):
    runs = [write_run(tmp_path / f"run-{n}", labels=("Mass",), seed=n) for n in range(10)]
    report = build_report(runs, n_bootstrap=20)
    assert_whole(Page(report.html))
    assert "the first 8 runs" in report.html
    assert len(report.figures["roc-Mass"].axes[0].get_legend().texts) == 8


def test_two_runs_of_one_name_are_told_apart(tmp_path):
    runs = [write_run(tmp_path / place / "run", seed=n) for n, place in enumerate("ab")]
    found = page(*runs)
    assert_whole(found)
    assert str(runs[1]) in found.text


def test_a_path_that_is_no_text_is_written(tmp_path):
    write_report(Report("<p>runs/\udcff</p>", {}, ()), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == b"<p>runs/?</p>"


def test_undefined_is_a_dash(tmp_path):
    def spoil(truth):
        truth[:, 1] = 0
        truth[:, 2] = -1

    run = write_run(
        tmp_path / "run",
        labels=("Mass", "Never", "Unknown", "Unlearned"),
        spoil=spoil,
        unlearned=[3],
    )
    found = page(run)
    assert_whole(found)
    rows = dict(re.findall(r'<tr><th scope="row"><a [^>]*>(\w+)</a></th>(.*?)</tr>', found.html))
    assert "<td>–</td>" not in rows["Mass"]
    for name in ("Never", "Unknown", "Unlearned"):
        cells = re.findall("<td>(.*?)</td>", rows[name])
        assert cells[1] == cells[2] == "–", cells
    assert "Nothing of it can be drawn" in found.text
    assert "None" not in found.text
    assert "nan" not in found.text.lower()


def test_markup_in_labels_paths_and_warnings_is_text(hostile):
    found = page(hostile)
    assert_whole(found)
    for name in HOSTILE:
        assert name in found.text
    assert "alert(4)" in found.text
    assert hostile.name in found.text


@pytest.mark.parametrize("labels", [("Mass",), tuple(f"Finding {n}" for n in range(60))])
def test_one_label_and_sixty(tmp_path, labels):
    run = write_run(tmp_path / "run", labels=labels, n=30)
    found = page(run)
    assert_whole(found)
    assert found.html.count('class="label"') == len(labels)
    assert len(found.html) < 10e6


def test_one_image(tmp_path):
    run = write_run(tmp_path / "run", n=1, labels=("Mass",))
    found = page(run)
    assert_whole(found)
    assert "of 1 patients" in found.text


def test_images_without_known_patients(tmp_path):
    found = page(write_run(tmp_path / "run", per_patient=1))
    assert_whole(found)
    assert "of 120 patients" in found.text


def test_warnings_stand_before_everything_else(tmp_path):
    found = page(write_run(tmp_path / "run", warnings=["the figures are optimistic"]))
    assert found.text.index("the figures are optimistic") < found.text.index("Results\n\n")


def test_every_kind_of_run(made):
    kinds = ("head", "linear", "zero", "transfer", "tuned", "curve")
    found = page(*(made.work / kind for kind in kinds), caches=[])
    assert_whole(found)
    for kind in ("head", "zero-shot", "transfer", "finetune", "curve"):
        assert f"<dd>{kind}</dd>" in found.html
    for control in ("shuffled labels", "random features", "permuted texts", "view position alone"):
        assert control in found.text
    assert "Its own texts rather than permuted ones" in found.text
    assert "trained the encoder itself" in found.text
    assert "candidates" in found.text


def test_a_learning_curve_alone(made):
    found = page(made.work / "curve")
    assert_whole(found)
    figures = json.loads((made.work / "curve" / "curve.json").read_text())
    cell = figures["cells"]["concat"][1]
    low, high = cell["ci95"]["auroc"]
    assert f"{cell['macro']['auroc']:.3f} [{low:.3f}, {high:.3f}]" in found.text


def test_the_map_says_what_is_missing(made, tmp_path):
    moved = write_run(tmp_path / "moved", cache={"path": "gone.h5", "fingerprint": "0"})
    assert "give --cache FILE" in page(moved).text
    cache = made.work / "cache" / "phantom" / "tiny.h5"
    other = write_run(
        tmp_path / "other", cache={"path": str(cache), "fingerprint": "0", "dataset": "phantom"}
    )
    assert "its fingerprint differs" in page(other).text


def test_an_unknown_finding_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="Mass"):
        build_report([write_run(tmp_path / "run")], finding="Mas")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        build_report([tmp_path / "none"])
    run = write_run(tmp_path / "run")
    with pytest.raises(UsageError, match="twice"):
        build_report([run, tmp_path / "." / "run"])
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"kind": "other"}))
    with pytest.raises(RunError, match="'other'"):
        build_report([run])


@pytest.mark.parametrize("text", ["epoch,val_loss\n1,2,3\n", "epoch,val_loss\n1,low\n"])
def test_a_damaged_history_is_refused(tmp_path, text):
    run = write_run(tmp_path / "run")
    (run / "history.csv").write_text(text)
    with pytest.raises(RunError, match=r"history\.csv"):
        build_report([run])


def test_metrics_that_lack_a_part_are_refused(tmp_path):
    run = write_run(tmp_path / "run")
    metrics = metrics_of(run)
    del metrics["controls"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(RunError, match=r"metrics\.json is damaged \(controls: "):
        build_report([run])


def test_settings_chosen_on_validation_stand_by_the_name_of_their_label(made):
    rows = re.findall(r'<tr><th scope="row">(\w+)</th><td>C=', page(made.work / "linear").html)
    assert "Effusion" in rows


def test_a_report_is_the_same_twice(tmp_path):
    run = write_run(tmp_path / "run")
    assert build_report([run]).html == build_report([run]).html


def test_matplotlib_is_left_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    build_report([write_run(tmp_path / "run")])
    assert dict(matplotlib.rcParams) == before


def test_figures_have_names_of_files_even_where_labels_have_none(hostile):
    figures = build_report([hostile], n_bootstrap=0).figures
    assert all(re.fullmatch(r"[\w.-]+", name) for name in figures)
    assert len({name.lower() for name in figures}) == len(figures)


def test_svg_ids_are_the_figures_own(tmp_path):
    figure = build_report([write_run(tmp_path / "run")]).figures["roc-Mass"]
    svg = inline_svg(figure, title='ROC of "<Mass>"', prefix="p9-")
    names = re.findall(r' id="([^"]*)"', svg)
    assert names
    assert all(name.startswith("p9-") for name in names)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', svg)) == set(names)
    assert "metadata" not in svg
    assert 'aria-label="ROC of &quot;&lt;Mass&gt;&quot;"' in svg
