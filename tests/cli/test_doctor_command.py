"""``doctor`` on the command line."""


def test_it_prints_a_table_or_a_document_and_ends_well(run, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcome = run("doctor")
    assert outcome.code == 0
    assert "fast in bf16" in outcome.stdout or "no instructions for bf16" in outcome.stdout
    document = run("doctor", "--json").json
    assert {"subject", "state", "found", "advice"} == set(document[0])


def test_a_problem_ends_with_1(run, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcome = run("doctor", "--n-images", 10**12, "--json")
    assert outcome.code == 1
    assert [one["subject"] for one in outcome.json if one["state"] == "problem"] == ["disk"]
