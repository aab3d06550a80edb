"""The ``extract`` command with Ray."""


def test_missing_extra_error_names_the_install_command(run, monkeypatch):
    monkeypatch.setattr("featurecache.extraction.ray_cluster.find_spec", lambda name: None)
    outcome = run("extract", "--engine", "ray")
    assert outcome.code == 2
    assert outcome.stderr.endswith(" needs Ray: pip install 'featurecache[ray]'\n")
    assert len(outcome.stderr.splitlines()) == 1


def test_unknown_engine_gets_a_suggestion(run):
    outcome = run("extract", "--engine", "rya")
    assert outcome.code == 2
    assert "unknown engine 'rya': did you mean ray?" in outcome.stderr


def test_unreachable_cluster_is_refused(run, tiny_clip, extract_options, monkeypatch):
    for address in ("127.0.0.1:1", "auto"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        outcome = run("extract", "--model", tiny_clip, *extract_options, "--engine", "ray")
        assert outcome.code == 2
        assert f"no Ray cluster responds at {address}, the value of RAY_ADDRESS" in outcome.stderr
