"""Mistakes of users give a clear message and exit code 2, and damage nothing."""

import json
import shutil

import h5py
import numpy as np
import pytest

from tests.store import handwritten


@pytest.fixture(scope="module")
def finished(tiny_clip, extract_options, tmp_path_factory):
    """Create a cache and a run once; tests work on copies."""
    from typer.testing import CliRunner

    from featurecache.cli import main

    root = tmp_path_factory.mktemp("finished")
    extract = ["extract", "--model", tiny_clip, *extract_options, "--cache", root / "cache"]
    train = ["train-head", "--head", "concat", "--n-bootstrap", 0, "--cache", root / "cache"]
    for command in (extract, [*train, "--out", root / "run"]):
        result = CliRunner().invoke(main, [str(part) for part in command])
        assert result.exit_code == 0, result.stderr
    return root


@pytest.fixture
def workspace(finished, tmp_path, run):
    shutil.copytree(finished / "cache", tmp_path / "cache")
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path


def assert_refused(outcome, *words):
    """Check that a command ended with a message of one or two lines that contains the words."""
    assert outcome.code == 2, (outcome.stdout, outcome.stderr)
    assert "Traceback" not in outcome.stderr
    for word in words:
        assert word in outcome.stderr
    assert outcome.stdout == ""
    if "error: " in outcome.stderr:  # the option parser prints a box instead
        assert len(outcome.stderr.partition("error: ")[2].strip().splitlines()) <= 2


@pytest.mark.parametrize("length", [226, 300])
@pytest.mark.parametrize(
    "command",
    [
        ("train-head", "--head", "linear", "--out"),
        ("zero-shot", "--out"),
        ("evaluate", "run", "--out"),
        ("learning-curve", "--out"),
        ("report", "run", "--out"),
        ("report", "run", "--plots"),
        ("audit", "--contact-sheet"),
        ("retrieve", "x", "--contact-sheet"),
        ("demo", "--out"),
        ("cache", "merge", "a.h5", "b.h5", "--out"),
    ],
    ids=" ".join,
)
def test_too_long_names_are_refused_before_the_work(run, tmp_path, command, length):
    """Nothing that the command needs is there, so it cannot have started."""
    outcome = run(*command, "x" * length)
    assert_refused(outcome, f"has {length} bytes", f"shorter {command[-1]}")
    assert list(tmp_path.iterdir()) == []


def test_too_long_names_of_caches_and_fine_tunings_are_refused(run, tmp_path, extract_options):
    name = "x" * 256
    outcome = run("extract", "--model", "tiny", *extract_options, "--name", name)
    assert_refused(outcome, "has 256 bytes", "shorter --name")
    options = ("--model", "tiny", "--objective", "bce", *extract_options)
    outcome = run("finetune", *options, "--out", name)
    assert_refused(outcome, "has 256 bytes", "shorter --out")
    assert list(tmp_path.iterdir()) == []


FORGED = {
    "/images/embedding in row 3": lambda file: file["images/embedding"].__setitem__(3, np.nan),
    "/images/embedding in row 30": lambda file: file["images/embedding"].__setitem__(30, 0),
    "the scale of /text/signs": lambda file: file["text/signs"].attrs.__setitem__("scale", 0.0),
}


@pytest.mark.parametrize("problem", FORGED)
def test_forged_values_are_named_by_every_command(run, workspace, problem):
    (path,) = (workspace / "cache").rglob("*.h5")
    with handwritten.edit(path) as file:
        FORGED[problem](file)
    verified = run("cache", "verify", path)
    assert (verified.code, "Traceback" in verified.stderr) == (1, False)
    assert problem in verified.stdout + verified.stderr
    no_bootstrap = ("--n-bootstrap", 0)
    head = "concat" if "text" in problem else "linear"
    assert_refused(run("train-head", "--head", head, *no_bootstrap), problem)
    assert_refused(run("zero-shot", *no_bootstrap), problem)
    assert_refused(run("retrieve", "--label", "Opacity"), problem)
    if "images" in problem:
        assert_refused(run("audit"), problem)


def test_unknown_names_get_suggestions(run, tiny_clip, extract_options, workspace):
    assert_refused(
        run("extract", "--model", "xraysiglp", *extract_options), "did you mean xraysiglip"
    )
    assert_refused(run("extract", "--model", tiny_clip, "--dataset", "nhi"), "did you mean nih")
    assert_refused(run("train-head", "--head", "concatt"), "did you mean concat")
    assert_refused(
        run("train-head", "--head", "concat", "--text-ablation", "shuffled"),
        "unknown text ablation",
    )
    assert_refused(run("zero-shot", "--scoring", "softmx"), "did you mean softmax")
    assert_refused(run("zero-shot", "--prompts", "sings"), "did you mean signs")
    assert_refused(
        run("extract", "--model", tiny_clip, *extract_options, "--prompts", "sings"),
        "did you mean signs",
    )
    assert_refused(run("extrat"), "extrat")


def test_missing_weights_error_names_the_model_and_the_ways_to_supply_it(run, extract_options):
    assert_refused(
        run("extract", "--model", "xraysiglip", *extract_options),
        "XraySigLIP__vit-l-16-siglip-384__webli",
        "--weights",
        "FEATURECACHE_MODELS/xraysiglip",
    )


def test_missing_data_root_error_names_the_folder_and_the_variable(run, tiny_clip):
    assert_refused(
        run("extract", "--model", tiny_clip, "--dataset", "nih"),
        "the folder of the data set",
        "FEATURECACHE_DATA",
    )


def test_unknown_csv_column_error_lists_the_columns(run, tiny_clip, image_folder):
    assert_refused(
        run(
            *("extract", "--model", tiny_clip, "--dataset", "csv"),
            *("--data-root", image_folder / "xrays.csv", "--label-column", "Opacty"),
        ),
        "Opacty",
        "Opacity",
    )


def test_option_of_another_data_set_is_refused(run, tiny_clip, extract_options):
    assert_refused(
        run("extract", "--model", tiny_clip, *extract_options, "--subset", "viral"), "subset"
    )


def test_empty_folder_is_refused(run, tiny_clip, tmp_path):
    (tmp_path / "empty").mkdir()
    extract = ["extract", "--model", tiny_clip, "--data-root", "empty", "--dataset"]
    for dataset in (["folder"], ["nih"], ["kermany"], ["csv", "--label-column", "Opacity"]):
        assert_refused(run(*extract, *dataset), "empty")
    assert not (tmp_path / "cache").exists()


def test_prompts_are_refused_without_a_text_encoder(run, tiny_pair, extract_options, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    assert_refused(
        run("extract", "--model", "dinov2-small", *extract_options, "--prompts", "signs"),
        "has no text encoder",
    )
    assert run("extract", "--model", "dinov2-small", *extract_options).code == 0
    assert_refused(run("train-head", "--head", "concat"), "no text embeddings")
    assert_refused(run("zero-shot"), "no text embeddings")
    assert run("train-head", "--head", "baseline", "--n-bootstrap", 0).code == 0


def test_missing_cache_is_refused(run):
    assert_refused(
        run("train-head", "--head", "baseline", "--cache", "nowhere.h5"),
        "there is no cache at nowhere.h5",
    )
    assert_refused(run("cache", "info", "nowhere.h5"), "nowhere.h5")


def test_damaged_caches_are_refused_and_not_changed(run, workspace, tiny_clip, extract_options):
    cache = workspace / "cache/xrays/tiny-clip.h5"
    intact = cache.read_bytes()
    with h5py.File(cache, "r+") as file:
        file.attrs["version"] = 3
    newer = cache.read_bytes()
    for content, words in (
        (newer, "version 3"),
        (intact[: len(intact) // 2], "cannot be read as HDF5"),
        (b"not hdf5 at all", "cannot be read as HDF5"),
        (b"", "cannot be read as HDF5"),
    ):
        cache.write_bytes(content)
        for command in (
            ["train-head", "--head", "baseline"],
            ["zero-shot"],
            ["cache", "verify", cache],
            ["extract", "--model", tiny_clip, *extract_options],
        ):
            assert_refused(run(*command), words)
        assert cache.read_bytes() == content


def test_other_encoder_error_names_the_field_that_differs(
    run, workspace, tiny_clip, extract_options, tmp_path
):
    other = tmp_path / "other" / "tiny-clip"
    shutil.copytree(tiny_clip, other)
    config = json.loads((other / "preprocessor_config.json").read_text())
    config["image_mean"] = [0.5, 0.5, 0.5]
    (other / "preprocessor_config.json").write_text(json.dumps(config))
    cache = workspace / "cache/xrays/tiny-clip.h5"
    before = cache.read_bytes()
    assert_refused(
        run("extract", "--model", other, *extract_options), "image_mean", "another --cache"
    )
    assert cache.read_bytes() == before


def test_train_size_larger_than_the_data_is_refused(run, workspace):
    assert_refused(
        run("train-head", "--head", "baseline", "--train-size", 1000), "36 training images"
    )


@pytest.mark.parametrize("name", ["config.json", "head.safetensors"])
def test_run_folder_with_a_missing_file_is_refused(run, workspace, image_folder, tiny_clip, name):
    (workspace / "run" / name).unlink()
    assert_refused(
        run("predict", "run", image_folder / "image-000.png", "--model", tiny_clip), f"lacks {name}"
    )


def test_existing_run_folder_is_not_overwritten(run, workspace):
    before = sorted(p.name for p in (workspace / "run").iterdir())
    assert_refused(run("train-head", "--head", "baseline", "--out", "run"), "run already exists")
    assert sorted(p.name for p in (workspace / "run").iterdir()) == before


def test_debug_shows_the_traceback(run):
    outcome = run("--debug", "cache", "info", "nowhere.h5")
    assert outcome.code == 2
    assert "Traceback" in outcome.stderr


def test_control_characters_in_names_are_escaped(run, tmp_path):
    hostile = "a\x1b[2Jb\u202ec\x9b"
    assert_refused(run("cache", "info", f"{hostile}.h5"), r"a\x1b[2Jb\u202ec\x9b.h5")
    outcome = run("cache", "info", f"{hostile}.h5")
    assert not {"\x1b", "\u202e", "\x9b"} & set(outcome.stdout + outcome.stderr)


def test_control_characters_in_tables_are_escaped(capsys):
    from featurecache.cli.output import print_table

    print_table("t\x1b[1m", ["c\r"], [["x\x1b]0;title\x07y"], ["plain é 胸"]])
    out = capsys.readouterr().out
    assert not {"\x1b", "\r", "\x07"} & set(out)
    assert r"x\x1b]0;title\x07y" in out
    assert "plain é 胸" in out
