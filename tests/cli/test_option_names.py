"""Arguments that library messages name in backticks become those of the running command."""

import pytest
import typer
from typer.main import get_command

from featurecache.cli.align import align
from featurecache.cli.cache import export, info, merge
from featurecache.cli.errors import with_exit_code
from featurecache.cli.evaluate import evaluate
from featurecache.cli.extract import extract
from featurecache.cli.finetune import finetune
from featurecache.cli.learning_curve import learning_curve
from featurecache.cli.option_names import running, with_option_names
from featurecache.cli.output import warn
from featurecache.cli.predict import predict
from featurecache.cli.report import report
from featurecache.cli.retrieve import retrieve
from featurecache.cli.train_head import train_head
from featurecache.errors import FeaturecacheError


@pytest.mark.parametrize(
    ("command", "message", "expected"),
    [
        # Declared by the command, by a configuration class, and for all data sets.
        (train_head, "`seeds`, `train_size`, `n_bootstrap`", "--seeds --train-size --n-bootstrap"),
        (finetune, "`max_grad_norm` or `augment`", "--max-grad-norm --augment"),
        (extract, "leave out `pseudonymize`", "--pseudonymize"),
        # Declared with both names of a flag.
        (train_head, "`controls`", "--controls"),
        # The option or its parameter has another name.
        (extract, "another `cache_dir`", "--cache"),
        (report, "its path as `caches`; `data` has no such image", "--cache --data-root"),
        (predict, "`models` names 1", "--model"),
        (learning_curve, "`heads` must name one", "--head"),
        (align, "give `path`", "--out"),
        (retrieve, "`k` must be 1 or more", "--top"),
        # Arguments for CSV files.
        (extract, "either `labels` or `multilabel`", "--label-column --multilabel-column"),
        (extract, "`path`, `id` and `patient`", "--path-column --id-column --patient-column"),
        # Commands without --seed have only the seed of the data set.
        (extract, "`seed`", "--dataset-seed"),
        (finetune, "`seed`", "--seed"),
    ],
)  # fmt: skip
def test_arguments_become_options(command, message, expected):
    with running(command):
        translated = with_option_names(message)
    assert "`" not in translated
    assert [word.strip(",;") for word in translated.split() if word.startswith("--")] == (
        expected.split()
    )


def test_split_is_the_option_of_that_name_where_there_is_one():
    with running(extract):
        assert with_option_names("choose `split` patient") == "choose --split patient"
        column = "The column 'fold' looks like splits: to use it, give it as"
        assert with_option_names(f"{column} `split`.") == f"{column} --split-column."
    with running(evaluate):
        assert with_option_names("give `split` all") == "give --split all"
    with running(retrieve):
        assert with_option_names("give `split` test") == "give --split test"


@pytest.mark.parametrize(
    ("command", "name", "expected"),
    [
        (export, "out", "OUT"),
        (retrieve, "text", "TEXT"),
        (report, "runs", "RUNS"),
        (predict, "images", "IMAGES"),
        (merge, "files", "FILE"),
    ],
)
def test_positional_arguments_are_named_as_in_the_help(command, name, expected):
    with running(command):
        assert with_option_names(f"give another `{name}`") == f"give another {expected}"
    app = typer.Typer()
    app.command()(command)
    usage = get_command(app).get_usage(typer.Context(get_command(app)))
    assert expected in usage.upper().split("[OPTIONS]")[1]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (info, "prompts"),  # not offered
        (evaluate, "draws"),  # unknown
    ],
)
def test_arguments_without_an_option_lose_their_backticks(command, name):
    with running(command):
        assert with_option_names(f"give `{name}`: it is missing") == f"give {name}: it is missing"


def test_other_text_stays_as_it_is():
    with running(extract):
        for text in ("a `b c` d`", "no backticks: weights", ""):
            assert with_option_names(text) == text


def test_errors_and_warnings_of_a_command_are_translated(capsys):
    @with_exit_code
    def command(run: str = "") -> None:
        warn("give more `run`s and `epochs`")
        raise FeaturecacheError("give `seed`")

    with pytest.raises(typer.Exit) as exited:
        command()
    assert exited.value.exit_code == 1
    assert capsys.readouterr().err == "warning: give more runs and epochs\nerror: give seed\n"


def test_translation_ends_with_the_command():
    with running(extract):
        pass
    assert with_option_names("`weights`") == "weights"
