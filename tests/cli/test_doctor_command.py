"""The ``doctor`` command."""

import re


def test_doctor_prints_a_table_or_json(run, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcome = run("doctor")
    assert outcome.code == 0
    assert re.search(r"CPU\s+ok\s+\d+ threads?, \S", outcome.stdout)
    document = run("doctor", "--json").json
    assert {"subject", "state", "result", "advice"} == set(document[0])


def test_problem_exits_with_1(run, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcome = run("doctor", "--n-images", 10**12, "--json")
    assert outcome.code == 1
    assert [check["subject"] for check in outcome.json if check["state"] == "problem"] == ["disk"]
