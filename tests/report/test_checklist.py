"""Checklists of reporting guidelines on the page."""

import re
from dataclasses import replace

import pytest

from featurecache.metrics.delong import Delong
from featurecache.report.checklist import checklists, facts_of
from featurecache.report.guidelines import GUIDELINES
from featurecache.report.load_runs import load_runs
from tests.report.report_runs import write_run

# Letters of the items that have sub-items, counted in the published tables.
SUB_ITEMS = {
    "CLAIM 2024": (44, {}),
    "TRIPOD+AI": (
        27,
        {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef"}
        | {20: "abc", 23: "ab", 27: "abc"},
    ),
    "STARD-AI": (40, {15: "abcd", 16: "abc", 17: "ab", 26: "ab", 40: "ab"}),
}

CONDITIONAL = {"deidentified", "explanation", "unsure", "warnings", "updating", "subgroups"}
"""Facts that the runs below lack."""


@pytest.mark.parametrize("guideline", GUIDELINES, ids=lambda guideline: guideline.key)
def test_numbers_of_items_are_those_of_the_guideline(guideline):
    n_items, letters = SUB_ITEMS[guideline.name]
    expected = [
        f"{number}{letter}"
        for number in range(1, n_items + 1)
        for letter in letters.get(number, [""])
    ]
    assert [item.number for item in guideline.items] == expected
    assert not [item for item in guideline.items if item.authors and not item.fact]


def test_every_fact_answers_an_item(workspace):
    names = {item.fact for guideline in GUIDELINES for item in guideline.items} - {""}
    yielded = set()
    kinds = ("head", "zero", "transfer", "tuned")
    for run in load_runs([workspace.folder / kind for kind in kinds]):
        facts = dict(facts_of(run))
        assert set(facts) <= names
        assert all(fact.text for fact in facts.values())
        yielded |= set(facts)
    assert names - yielded <= CONDITIONAL


def test_items_are_filled_in_where_the_run_knows(workspace):
    (run,) = load_runs([workspace.folder / "head"])
    claim = checklists(run)[0]
    rows = {row[0]: row[1:] for row in claim["table"].rows}
    assert re.fullmatch(r"images: training \d+, validation \d+, test \d+", rows["19"][1])
    assert rows["20"][1:] == ["patients: none is in two splits", ""]
    assert rows["23"][1].startswith("python 3.")
    assert rows["44"][1:] == ["", "the whole item"]
    filled = [row for row in rows.values() if row[1]]
    whole = [row for row in filled if not row[2]]
    part = len(filled) - len(whole)
    assert claim["summary"] == f"{len(whole)} of 44 items are filled in, and {part} in part"


def test_external_testing_and_intervals_depend_on_the_run(tmp_path):
    (run,) = load_runs([write_run(tmp_path / "run", per_patient=1, kind="external", run="runs/a")])
    facts = dict(facts_of(run))
    assert facts["external"].text == "120 test images of 120 patients"
    assert "internal" not in facts
    assert "runs/a" in facts["training"].text
    assert facts["uncertainty"].text == "95 % intervals over patients, and DeLong's for AUROC"
    delong = Delong(per_label={}, reason="several images per patient")
    without = replace(run, metrics=run.metrics.replace(delong=delong))
    assert "DeLong" not in dict(facts_of(without))["uncertainty"].text
