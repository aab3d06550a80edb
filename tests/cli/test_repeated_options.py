"""Options that are given twice: several values where the option takes them, else an error."""

import pytest
import typer
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli import main


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, isolate_commands):
    folder = tmp_path_factory.mktemp("repeated")
    with pytest.MonkeyPatch.context() as patch:
        run = isolate_commands(patch, folder)
        fc.extract(fc.load_dataset("phantom", "phantom", n_images=120), "tiny")
        yield run


def test_every_head_that_is_given_is_trained(workspace):
    heads = ("--head", "prototype", "--head", "knn")
    options = ("--no-controls", "--n-bootstrap", 0)
    outcome = workspace("train-head", *heads, *options)
    assert outcome.code == 0, outcome.stderr
    for name in ("prototype", "knn"):
        assert fc.load_run(f"runs/phantom-tiny-{name}").config["settings"]["head"] == name
        assert f"{name} on phantom" in outcome.stdout
    outcome = workspace("train-head", *heads, *options, "--out", "both", "--json")
    assert [document["run"] for document in outcome.json] == ["both/prototype", "both/knn"]
    for document in outcome.json:
        assert document["macro"] == fc.load_run(document["run"]).metrics.to_json()["macro"]


def test_setting_that_one_head_lacks_is_refused_before_any_is_trained(workspace):
    outcome = workspace(
        *("train-head", "--head", "baseline", "--head", "knn", "--dropout", 0.1, "--out", "none")
    )
    assert outcome.code == 2
    assert "head 'knn' has no --dropout: leave it out" in outcome.stderr
    twice = workspace("train-head", "--head", "knn", "--head", "knn")
    assert twice.code == 2
    assert "--head must name one or more heads, each once" in twice.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("extract", "--dataset", "phantom", "--dataset", "nih"),
        ("finetune", "--model", "tiny", "--model", "clip"),
        ("train-head", "--head", "knn", "--seed", "1", "--seed", "2"),
        ("zero-shot", "--cache", "a", "--cache", "b"),
        ("cache", "ls", "--cache", "a", "--cache=b"),
        ("train-head", "--head", "knn", "--controls", "--no-controls"),
    ],
)
def test_option_of_one_value_is_refused_when_repeated(arguments):
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == 2
    words = " ".join(outcome.output.replace("│", " ").split())  # the message is in a box
    assert "it is given 2 times, but takes one value: give it once" in words


def test_every_command_refuses_repeated_options():
    group = typer.main.get_command(main)
    commands = [*group.commands.values(), *group.commands["cache"].commands.values()]
    strict = {type(command).__name__ for command in commands if not hasattr(command, "commands")}
    assert strict == {"StrictCommand"}
