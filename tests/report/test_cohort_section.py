"""Images and patients, answers and familiarity on the page."""

from dataclasses import replace

import numpy as np
import pytest

from featurecache.metrics.conformal import fit_conformal, measure_answers
from featurecache.metrics.familiarity import FamiliarityScores
from featurecache.report.page import build_page
from featurecache.runs.run import load_run
from tests.report.report_runs import COHORT, Page, assert_valid, split_cohort, write_run


def flow_texts(page) -> list[str]:
    return [text.get_text() for text in page.figures["flow-run"].axes[0].texts if text.get_text()]


def test_flow_diagram_counts_what_is_left_out(tmp_path):
    page = build_page([write_run(tmp_path / "run", cohort=COHORT.to_json(), dataset="nih")])
    assert_valid(Page(page.html))
    assert flow_texts(page) == [
        *("200 images of nih", "at least 75 patients"),
        *("Excluded: 25 images", "12 listed, but not on disk", "3 damaged", "10 not extracted"),
        *("175 images that can be read", "70 patients"),
        *("Not used: 5 images", "5 copied in a later split"),
        *("Training", "50 images", "5 patients", "49 labeled"),
        *("Test", "120 images", "60 patients", "119 labeled"),
    ]


def test_table_of_images_and_patients(tmp_path):
    page = build_page([write_run(tmp_path / "run", cohort=COHORT.to_json())])
    table = page.tables["cohort-run"]
    assert table.columns == ["", "training", "test", "all"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["Patients"] == ["5", "60", "65"]
    assert rows["Images with a known label"][0] == "49 (98.0 %)"
    assert rows["Sex: F"][0] == "4 (80.0 %)"
    assert rows["Age: median (quartiles)"][0] == "52.2 (40.0 to 63.0)"
    assert rows["Age: unknown"][0] == "1 (20.0 %)"
    assert rows["Mass, positive"][0] == "3 (25.0 %)"
    assert rows["Edema, positive"][0] == "–"


def test_images_without_exclusions_and_patients(tmp_path):
    splits = {"test": split_cohort(6, None), "all": split_cohort(6, None)}
    nothing = {"left_out": {}, "failed": {}, "unused": {}, "splits": splits, "n_patients": None}
    cohort = COHORT.model_copy(update={**nothing, "n_loaded": None, "n_images": 6})
    page = build_page([write_run(tmp_path / "run", cohort=cohort.to_json(), kind="external")])
    assert_valid(Page(page.html))
    assert flow_texts(page)[-3:] == ["Scored", "6 images", "5 labeled"]
    table = page.tables["cohort-run"]
    assert table.columns == ["", "scored"]
    assert table.rows[0] == ["Patients", "–"]


@pytest.mark.parametrize("answered", [True, False])
def test_answers_and_familiarity_are_shown(tmp_path, answered):
    run = load_run(write_run(tmp_path / "run", n=40, n_val=120, per_patient=1))
    scored = run.scored
    is_val = scored.splits == "val"
    limits = fit_conformal(
        scored.truth[is_val],
        scored.probability[is_val],
        scored.patients[is_val],
        coverage=0.8,
        learned=np.array([True, answered]) & answered,
    )
    answers = measure_answers(
        scored.truth[~is_val],
        scored.probability[~is_val],
        limits,
        label_names=scored.label_names,
        patients=scored.patients[~is_val],
    )
    familiarity = FamiliarityScores(n=40, n_reference=300, knn=12.4, mahalanobis=8.6, foreign=0.125)
    metrics = run.metrics.replace(answers=answers, familiarity=familiarity)
    page = build_page([replace(run, metrics=metrics)])
    assert_valid(Page(page.html))
    assert page.tables["familiarity"].rows == [["run", "40 test", "300", "12", "9", "12.5", ""]]
    if answered:
        label = answers.per_label["Mass"]
        row = next(row for row in page.tables["answers-run"].rows if row[0] == "Mass")
        low, high = label.ci95.error
        assert row[-1] == f"{label.error:.3f} [{low:.3f}, {high:.3f}]"
        assert row[1].startswith(f"{label.positive.coverage:.3f} ")
    else:
        assert "answers-run" not in page.tables
        assert ", ".join(scored.label_names) + ": it was not learned" in Page(page.html).text
