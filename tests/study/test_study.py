"""Studies from a file, against direct calls of the functions that they name."""

import tomllib
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from filelock import FileLock
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli.app import app
from featurecache.datasets.nih import LABELS as NIH_LABELS
from featurecache.datasets.registry import DATASETS
from featurecache.errors import CheckpointError, DatasetError, FeaturecacheError, UsageError
from featurecache.evaluation.table import COLUMNS
from featurecache.finetune.config import FinetuneConfig
from featurecache.store.layout import lock_path
from featurecache.study import results as study_results
from featurecache.study import run as study_run
from featurecache.study.note import explain_table
from featurecache.study.published import (
    PublishedResult,
    comparable_results,
    published_test_sets,
)

STUDY = """
n_bootstrap = 20
metrics = ["macro F1", "supported AUROC"]

[datasets.phantom]
n_images = 120

[datasets.ward]
dataset = "phantom"
n_images = 40
seed = 5

[extract]
model = "tiny"
prompts = ["signs", "lungs"]
precision = "exact"

[[zero_shot]]
dataset = "phantom"

[[train_head]]
dataset = "phantom"
head = ["prototype", "linear"]
train_size = [30]
seeds = 2
controls = false
evaluate_on = ["ward"]
"""


def write_page(runs, out, *, names):
    """Write the names of runs in place of a report, which takes seconds."""
    assert set(names) == {str(run.path) for run in runs}
    out.write_text("\n".join(names.values()))


@pytest.fixture(autouse=True)
def quick_report(monkeypatch) -> None:
    monkeypatch.setattr(study_results, "report", write_page)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with a study that was run."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "heads.toml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_results, "report", write_page)
        fc.run_study(folder / "heads.toml")
    return folder


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Return the functions that the study has called."""
    calls = []
    for name in ("extract", "train_head", "zero_shot"):
        function = mock.Mock(wraps=getattr(study_run, name), side_effect=_record(calls, name))
        monkeypatch.setattr(study_run, name, function)
    return calls


def _record(calls, name):
    def record(*args, **kwargs):
        calls.append(name)
        return mock.DEFAULT

    return record


def test_results_are_those_of_direct_calls(folder):
    result = fc.run_study(folder / "heads.toml")
    assert not result.failures
    assert len(result.plan.experiments) == 2 + 2 * 2
    frame = result.frame.set_index(["dataset", "method", "prompts", "of", "metric"]).sort_index()
    cache = folder / "cache/phantom/tiny.h5"
    for prompts in ("signs", "lungs"):
        run = fc.zero_shot(cache, prompts=prompts, n_bootstrap=20)
        row = frame.loc["phantom", "zero-shot", prompts, "micro", "auroc"]
        assert row["value"] == run.metrics.micro.auroc
        assert (row["low"], row["high"]) == run.metrics.micro.auroc_ci
    head = fc.train_head(cache, "linear", train_size=30, seeds=2, controls=False, n_bootstrap=20)
    row = frame.loc["phantom", "linear", "", "macro", "f1"]
    assert row["value"] == head.metrics.seeds.macro["f1"].mean
    assert row["sd"] == head.metrics.seeds.macro["f1"].sd
    elsewhere = head.evaluate(folder / "cache/ward/tiny.h5", n_bootstrap=20)
    row = frame.loc["ward", "linear", "", "Effusion", "accuracy"]
    assert row["value"] == elsewhere.metrics.per_label["Effusion"].accuracy
    assert row["trained_on"] == "phantom"


def test_there_is_a_table_for_each_data_set(folder):
    first, second = fc.run_study(folder / "heads.toml").tables
    assert first.caption.startswith("phantom ")
    assert second.caption.startswith("ward ")
    assert first.metrics.metrics == ["macro F1", "supported AUROC"]
    text = (folder / "studies/heads/tables.tex").read_text()
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 2
    assert "95 \\% interval" in text


def test_a_note_says_what_a_table_shows(folder):
    first, second = fc.run_study(folder / "heads.toml").tables
    for one in (first, second):
        assert one.caption.split(": ")[0].endswith(" (synthetic images)")
        assert one.note.endswith("scores on them say nothing about patients.")
    assert "means over 2 seeds with their standard deviation" in first.note
    assert "±" not in second.note  # the first seed is evaluated on other images
    for name in ("tables.md", "tables.tex"):
        text = (folder / "studies/heads" / name).read_text()
        assert text.count("The images are synthetic") == 2


def test_a_note_says_why_there_are_no_intervals_or_marks(folder):
    def note(*runs, n_bootstrap, metrics=("macro F1", "supported AUROC")):
        made = fc.table(list(runs), metrics=metrics, marks=True)
        scores = [run.metrics for run in runs]
        return " ".join(explain_table(made, scores, n_bootstrap=n_bootstrap))

    phantom, ward = folder / "cache/phantom/tiny.h5", folder / "cache/ward/tiny.h5"
    run, other = (
        trained.evaluate(phantom, split="all", n_bootstrap=20)
        for trained in fc.train_head(ward, ["prototype", "knn"], controls=False, n_bootstrap=0)
    )
    n_supported, n_labels = len(run.metrics.supported_labels), len(run.metrics.macro_labels)
    assert 1 < n_supported < n_labels
    assert note(run, n_bootstrap=20) == (
        "Brackets are 95 % intervals over patients. Supported averages are over the "
        f"{n_supported} labels with at least 5 patients with a positive and 5 with a negative "
        "image."
    )
    few = f"Macro averages have no marks, because {n_labels - n_supported} of their {n_labels} "
    uncompared = "A value without † there has not been compared."
    assert note(run, other, n_bootstrap=20).endswith(uncompared)
    assert few in note(run, other, n_bootstrap=20)
    assert few not in note(run, other, n_bootstrap=20, metrics=["micro F1"])
    none = fc.zero_shot(phantom, prompts="signs", n_bootstrap=0)
    assert note(none, n_bootstrap=0).startswith("With 0 bootstrap samples there are no intervals.")
    small = fc.zero_shot(ward, prompts="signs", n_bootstrap=20)
    assert small.metrics.supported_labels == []
    assert note(small, n_bootstrap=20, metrics=["micro F1"]) == (
        "Micro averages have no intervals: they need at least 5 patients with a positive and 5 "
        "with a negative image."
    )
    assert note(run, n_bootstrap=20, metrics=["micro F1"]).endswith("over patients.")
    text = note(small, n_bootstrap=20)
    assert text == (
        "Averages over labels have no intervals: no label has at least 5 patients with a positive "
        "and 5 with a negative image."
    )
    assert note(small, small, n_bootstrap=20).endswith(
        "Averages over labels have no intervals and therefore no marks: no label has at least 5 "
        f"patients with a positive and 5 with a negative image. {uncompared}"
    )


def test_a_table_of_one_data_set_can_be_put_into_a_paper(folder):
    result = fc.run_study(folder / "heads.toml")
    out = folder / "studies/heads"
    files = [out / f"tables-{name}.tex" for name in ("phantom", "ward")]
    assert set(files) < set(result.files)
    texts = [path.read_text() for path in files]
    assert (out / "tables.tex").read_text() == "\n".join(texts)
    for text, one in zip(texts, result.tables, strict=True):
        assert text.startswith("\\begin{table}[htbp]\n")
        assert f"\\caption{{{one.caption}}}\n\\label{{tab:heads-{one.dataset}}}\n" in text
        table, note = text.split("\\end{tabular}\n")
        assert "95 \\% intervals" not in table
        assert note.startswith("\\par\\smallskip\n{\\footnotesize ")
        assert note.endswith("say nothing about patients.\\par}\n\\end{table}\n")
    first, second = study_results.study_tables(result.plan, result.runs)
    same = [study_results._label("a_b 1%c", first, before) for before in ([second], [first])]
    assert same == ["tab:a-b-1-c-phantom", "tab:a-b-1-c-phantom-2"]


def test_a_study_that_moves_with_its_models_keeps_its_runs(tmp_path):
    model = tmp_path / "before/models/ours"
    model.mkdir(parents=True)
    (model / "model.safetensors").touch()
    (model / "config.json").write_text('{"model_type": "siglip"}')
    text = STUDY.replace('"tiny"', '["tiny", "models/ours"]')
    text += '[[finetune]]\nobjective = "bce"\nmodel = "models/ours"\ndataset = "phantom"\n'
    (tmp_path / "before/heads.toml").write_text(text)

    def folders(path):
        plan = fc.plan_study(path)
        return [one.folder.relative_to(path.parent) for one in plan.experiments]

    before = folders(tmp_path / "before/heads.toml")
    assert len(set(before)) == len(before) == 6 + 6 + 1
    (tmp_path / "before").rename(tmp_path / "after")
    assert folders(tmp_path / "after/heads.toml") == before


def test_other_images_under_a_name_are_refused_with_advice_for_a_study(folder, monkeypatch):
    monkeypatch.chdir(folder)
    content = {**tomllib.loads(STUDY), "out": "studies/other"}
    ward = fc.load_dataset("phantom", n_images=40, seed=9)
    content["datasets"] = {**content["datasets"], "ward": ward}
    result = fc.run_study(content)
    assert len(result.failures) == 2
    for reason in result.failures.values():
        assert "ward" in reason
        assert "another name in the study, or the study another `cache_dir`" in reason
        assert "prune" not in reason


def test_an_unknown_folder_of_a_data_set_is_asked_for_in_its_section(tmp_path, monkeypatch):
    monkeypatch.delenv("FEATURECACHE_DATA", raising=False)
    text = STUDY.replace("[datasets.ward]", "[datasets.nih]\n[datasets.ward]")
    (tmp_path / "heads.toml").write_text(text)
    advice = r'heads.toml: the folder .* give data_root = "..." in \[datasets.nih\], or set FEATURE'
    with pytest.raises(DatasetError, match=advice):
        fc.plan_study(tmp_path / "heads.toml")


@pytest.fixture(scope="module")
def of_other_labels(tmp_path_factory):
    """Return a study whose runs average over different labels."""
    content = {
        "n_bootstrap": 20,
        "metrics": ["macro AUROC"],
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
        "datasets": {
            "all": {"dataset": "phantom", "n_images": 80},
            "two": {"dataset": "phantom", "n_images": 80, "only_labels": ["Effusion", "Mass"]},
        },
        "extract": {"model": "tiny", "precision": "exact"},
        "zero_shot": [{"dataset": "all"}],
        "train_head": [
            {"dataset": "all", "head": "prototype", "train_size": 8, "controls": False},
            {"dataset": "two", "head": "prototype", "controls": False, "evaluate_on": ["all"]},
        ],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_results, "report", write_page)
        result = fc.run_study(content, out=tmp_path_factory.mktemp("study"))
    assert not result.failures
    return result


def test_runs_of_other_labels_are_in_a_table_of_their_own(of_other_labels):
    captions = [one.caption.split("images of ")[1] for one in of_other_labels.tables]
    assert [caption.split(", ")[1:2] for caption in captions] == [["14 labels"], ["2 labels"], []]
    assert all(one.metrics.comparable for one in of_other_labels.tables)
    assert list(of_other_labels.tables[1].metrics.frame["run"]) == ["prototype, trained on two"]


def test_averages_over_different_labels_are_not_ranked(of_other_labels):
    made = of_other_labels.tables[0]
    labels = of_other_labels.run(train_size=8).metrics.per_label
    missing = ", ".join(label for label, scores in labels.items() if not scores.learned)
    assert missing
    assert made.metrics.ranked == []
    assert "**" not in made.metrics.to_markdown()
    assert "†" not in made.note
    assert (
        "No value is in bold or has a mark in macro AUROC, where rows average over different "
        f"labels. {missing}: not learned by prototype, train_size 8."
    ) in made.note


def test_a_cache_that_another_process_writes_is_waited_for(folder, tmp_path):
    text = STUDY.replace("n_bootstrap = 20", "n_bootstrap = 0").split("[[train_head]]")[0]
    (tmp_path / "other.toml").write_text(f'cache_dir = "{folder / "cache"}"\n{text}')
    cache = folder / "cache/phantom/tiny.h5"
    lock = FileLock(lock_path(cache))
    lock.acquire()
    reported = []

    def progress(done, total, text):
        reported.append((done, total, text))
        if "waiting" in text:
            lock.release()

    assert not fc.run_study(tmp_path / "other.toml", progress=progress).failures
    assert reported[1] == (0, 2, f"waiting for another process that is writing {cache}")
    assert len(reported) == 3


def test_metrics_of_an_evaluated_run_name_no_folder_of_this_machine(folder):
    evaluated = fc.run_study(folder / "heads.toml").run(kind="evaluate", head="linear")
    text = (evaluated.path / "metrics.json").read_text()
    assert "linear" in text
    assert str(folder) not in text


def test_a_finished_study_computes_nothing(folder, calls, monkeypatch):
    files = sorted((folder / "studies/heads").glob("*.*"))
    before = {path: path.read_bytes() for path in files}
    monkeypatch.setattr(study_results, "report", None)
    fc.run_study(folder / "heads.toml")
    assert calls == []
    assert {path: path.read_bytes() for path in files} == before


def test_a_changed_study_runs_what_is_new(folder, calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # paths are relative to the file
    (folder / "more.toml").write_text(STUDY.replace("[30]", "[30, 60]"))
    plan = fc.plan_study(folder / "more.toml", out=folder / "studies/heads")
    titles = [one.title for one in plan.pending]
    assert titles == [
        title
        for head in ("prototype", "linear")
        for title in (f"{head}, train_size 60", f"{head}, train_size 60, trained on phantom")
    ]
    assert calls == []


def test_an_interrupted_study_ends_with_the_same_results(folder, tmp_path, monkeypatch):
    (tmp_path / "heads.toml").write_text(STUDY)
    done = 0
    train_head = study_run.train_head

    def interrupted(*args, **kwargs):
        nonlocal done
        done += 1
        if done == 2:
            raise KeyboardInterrupt
        return train_head(*args, **kwargs)

    monkeypatch.setattr(study_run, "train_head", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fc.run_study(tmp_path / "heads.toml")
    fc.run_study(tmp_path / "heads.toml")
    assert done == 2 + 1  # the first was kept
    for name in ("results.csv", "tables.md", "tables.tex", "report.html"):
        assert (tmp_path / "studies/heads" / name).read_bytes() == (
            folder / "studies/heads" / name
        ).read_bytes()


def test_trainings_are_logged_which_changes_no_run(tmp_path):
    (tmp_path / "heads.toml").write_text(
        "n_bootstrap = 0\n"
        "[datasets.phantom]\nn_images = 40\n"
        '[datasets.ward]\ndataset = "phantom"\nn_images = 20\nseed = 5\n'
        '[extract]\nmodel = "tiny"\nprompts = "lungs"\n'
        '[[train_head]]\nhead = "prototype"\ncontrols = false\ndataset = "phantom"\n'
        '[[finetune]]\nobjective = "bce"\ntrainable = "head"\nepochs = 1\n'
        'batch_size = 8\ndataset = "phantom"\nevaluate_on = ["ward"]\n'
    )
    unlogged = [one.folder for one in fc.plan_study(tmp_path / "heads.toml").experiments]
    text = (tmp_path / "heads.toml").read_text()
    text = text.replace('head = "prototype"', 'head = "prototype"\nlog = ["tensorboard"]')
    text = text.replace("epochs = 1", 'epochs = 1\nlog = "tensorboard"')
    (tmp_path / "heads.toml").write_text(text)
    result = fc.run_study(tmp_path / "heads.toml")
    assert not result.failures
    assert "log" not in result.frame
    runs = [one.folder for one in result.plan.experiments]
    assert runs == unlogged
    for run in runs[:2]:
        assert list((run.parent / "tensorboard" / run.name).glob("events.out.tfevents.*"))
    caches = [fc.open_cache(path) for path in (tmp_path / "cache").glob("*/*.h5")]
    assert [cache.prompt_sets for cache in caches] == [{"lungs"}] * 2  # the fine-tuned one, too


def fail_with_train_size(size, monkeypatch):
    """Let the trainings on so many images fail."""
    train_head = study_run.train_head

    def failing(*args, **kwargs):
        if kwargs["train_size"] == size:
            raise FeaturecacheError("no memory")
        return train_head(*args, **kwargs)

    monkeypatch.setattr(study_run, "train_head", failing)


def test_a_failed_experiment_stops_no_other(folder, monkeypatch):
    (folder / "large.toml").write_text(STUDY.replace("[30]", "[30, 31]"))
    fail_with_train_size(31, monkeypatch)
    result = CliRunner().invoke(app, ["study", str(folder / "large.toml")])
    assert result.exit_code == 1
    assert "failed: phantom: linear, train_size 31: no memory" in result.stdout
    assert "its training has failed" in result.stdout
    written = pd.read_csv(folder / "studies/large/results.csv")
    assert set(written["train_size"].dropna()) == {30}


def test_dry_run_lists_experiments(tmp_path):
    (tmp_path / "heads.toml").write_text(STUDY)
    result = CliRunner().invoke(app, ["study", str(tmp_path / "heads.toml"), "--dry-run"])
    assert result.exit_code == 0
    assert result.stdout.count("\tno\n") == 6
    assert [path.name for path in tmp_path.iterdir()] == ["heads.toml"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n_bootstrap", "bootstrap", "heads.toml: unknown key .*: did you mean n_bootstrap"),
        ("n_bootstrap = 20", 'n_bootstrap = "20"', "malformed: n_bootstrap"),
        ("seeds = 2", "seed_count = 2", "heads.toml, train_head: unknown argument 'seed_count'"),
        ("macro F1", "macro F2", "heads.toml: unknown metric"),
        ('"linear"]', '"lineal"]', "unknown head"),
        (
            'evaluate_on = ["ward"]',
            'evaluate_on = ["wart"]',
            "heads.toml, `evaluate_on` of train_head: unknown data set .wart.: did you mean ward",
        ),
        ("[30]", "[30, 5000]", "heads.toml, data set phantom: `train_size` 5000 of train_head is"),
        (
            "[[train_head]]",
            '[[finetune]]\nobjective = "bce"\nbatch_size = 31\ntrain_size = 30\n'
            'dataset = "phantom"\n[[train_head]]',
            "data set phantom: `batch_size` 31 of finetune is more than the 30 training images",
        ),
        ("[30]", "[]", "`train_size` of train_head is an empty list"),
        ("seeds = 2", "hidden = [[64], [32]]\nseeds = 2", "no `hidden`"),
        ('model = "tiny"', "", "name at least one data set, .* and one model"),
        ("[[zero_shot]]", "[zero_shot]", "lists of tables"),
        ("seed = 5", "color = 5", "data set ward of .*takes no option `color`"),
        ("n_bootstrap", "n_bootstrap =", "cannot be parsed"),
        ("n_bootstrap = 20", "n_bootstrap = -1", "must be at least 0"),
        ("seeds = 2", 'seeds = ["2"]', "train_head: seeds: .* integer"),
        ("seeds = 2", "seeds = 0", "must be at least 1"),
        ('model = "tiny"', "model = 5", "extract: model: .* string"),
        ('model = "tiny"', 'model = "tinny"', "unknown model 'tinny': did you mean tiny"),
        ('model = "tiny"', 'model = ["tiny", "minilm"]', "minilm embeds no images"),
        ('model = "tiny"', 'model = ["tiny", "x/tiny"]', "unknown model '.*/x/tiny'"),
        ('model = "tiny"', 'model = "rad-dino"', "no model has a text encoder .rad-dino."),
        ('model = "tiny"', 'model = "tiny"\nfeatures = "men"', "no features 'men'"),
        ('model = "tiny"', 'model = "tiny"\nresize = "crop"', "crop"),
        ('model = "tiny"', 'model = "tiny"\nbatch_size = 0', "`batch_size` is 0"),
        ('model = "tiny"', 'model = "tiny"\nviews = [1, 4]', "`views` of extract is a list"),
        ("seeds = 2", 'log = "tensorbord"', "did you mean tensorboard"),
        ("seeds = 2", 'log = [["tensorboard"], ["wandb"]]', "`log` of train_head changes no"),
        ('"lungs"]', '"lung"]', "unknown prompt set 'lung': did you mean lungs"),
        ("[[zero_shot]]", '[[zero_shot]]\nscoring = "pairs"', "unknown scoring 'pairs'"),
        ("seeds = 2", "seeds = 2\nensemble = 2", "`seeds` and `ensemble` are both given"),
        ("seeds = 2", "coverage = 1.0", "`coverage` is 1.0"),
        ('evaluate_on = ["ward"]', 'evaluate_on = "ward"', "evaluate_on: .* list"),
        ("n_images = 40", 'n_images = "40"', "data set ward of .*: an option has a value of anoth"),
        ("seeds = 2", 'label_map = {Edema = "Oedema"}', "'Oedema'"),
        ("seeds = 2", 'label_map = {Oedema = "Edema"}', "'Oedema', which was not trained"),
        ("seeds = 2", 'uncertain = "perhaps"', "heads.toml, train_head: .*perhaps"),
        ("seeds = 2", "seed = 18446744073709551616", "heads.toml, train_head: `seed` is 184"),
        ('evaluate_on = ["ward"]', 'label_map = {Edema = "Edema"}', "no effect without `evaluate_"),
        ("seed = 5", "data_root = 5", "data set ward of .*: `data_root` is 5: give a path"),
        ("seed = 5", "pseudonymize = true", "`pseudonymize` is True: give a path"),
        ("seed = 5", 'name = "x"', "data set ward of .* takes no option `name`"),
        (
            "[[zero_shot]]",
            "[[finetune]]\nbatch_size = 8\n[[zero_shot]]",
            "toml, finetune: .*objective",
        ),
    ],
)
def test_mistakes_are_found_before_anything_runs(old, new, message, tmp_path, calls):
    (tmp_path / "heads.toml").write_text(STUDY.replace(old, new, 1))
    with pytest.raises(UsageError, match=message):
        fc.run_study(tmp_path / "heads.toml")
    assert calls == []
    assert not (tmp_path / "studies").exists()


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        fc.plan_study(tmp_path / "none.toml")


MODELS = """
[datasets.phantom]
n_images = 40

[extract]
model = ["tiny", "dinov2-small", "dinov2-minilm"]
features = ["default", "mean", "tokens:2"]
"""


def planned(tmp_path: Path, text: str) -> list[tuple[str, str, str]]:
    (tmp_path / "models.toml").write_text(text)
    experiments = fc.plan_study(tmp_path / "models.toml").experiments
    return [(one.method, one.model, one.features) for one in experiments]


def test_a_step_is_done_with_the_models_and_features_that_fit(tmp_path):
    steps = """
[[zero_shot]]
[[train_head]]
head = ["linear", "concat", "clap", "attentive"]
[[finetune]]
objective = ["bce", "contrastive"]
batch_size = 8
"""
    models = ("tiny", "dinov2-small", "dinov2-minilm")
    assert sorted(planned(tmp_path, MODELS + steps)) == sorted(
        [
            ("zero-shot", "tiny", "default"),
            *(("linear", model, kind) for model in models for kind in ("default", "mean")),
            *(("concat", model, kind) for model in models[::2] for kind in ("default", "mean")),
            ("clap", "tiny", "default"),
            *(("attentive", model, "tokens:2") for model in models),
            *(("fine-tuned", model, "default") for model in models),
            ("fine-tuned", "tiny", "default"),
        ]
    )


def test_a_folder_of_a_model_is_known_by_its_configuration(tmp_path):
    folder = tmp_path / "ours"
    folder.mkdir()
    (folder / "model.safetensors").touch()
    text = MODELS.replace('"tiny"', '"ours"') + '[[train_head]]\nhead = ["concat", "linear"]\n'
    (folder / "config.json").write_text('{"model_type": "siglip"}')
    assert ("concat", str(folder), "default") in planned(tmp_path, text)
    (folder / "config.json").write_text('{"model_type": "dinov2"}')
    found = planned(tmp_path, text)
    assert ("concat", str(folder), "default") not in found
    assert ("linear", str(folder), "default") in found
    (folder / "config.json").write_text('{"model_type": "detr"}')
    with pytest.raises(UsageError, match="model_type 'detr'"):
        planned(tmp_path, text)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ('[[train_head]]\nhead = "concat"\nmodel = "dinov2-small"', "has no text encoder; leave"),
        ('[[train_head]]\nhead = "clap"\nmodel = "dinov2-minilm"', "embed them in one space"),
        ('[[train_head]]\nhead = "linear"\nfeatures = "tokens:2"', "takes one vector"),
        ('[[train_head]]\nhead = "attentive"\nfeatures = "mean"', "takes tokens"),
        ('[[zero_shot]]\nfeatures = "mean"', "share no space with the features mean"),
        ('[[zero_shot]]\nmodel = "dinov2-small"', "embed them in one space"),
        ('[[finetune]]\nobjective = "contrastive"\nmodel = "dinov2-small"', "contrastive"),
    ],
)
def test_a_named_model_or_features_must_fit(step, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        planned(tmp_path, MODELS + step)


def test_missing_weights_and_layers_are_found_before_anything_runs(tmp_path, calls):
    study = tmp_path / "heads.toml"
    study.write_text(STUDY.replace('"tiny"', '["tiny", "rad-dino"]'))
    assert len(fc.plan_study(study).pending) == 6 + 4
    with pytest.raises(CheckpointError, match="the weights of rad-dino"):
        fc.run_study(study)
    study.write_text(STUDY.replace('"tiny"', '"tiny"\nfeatures = ["default", "layers:-99"]'))
    with pytest.raises(UsageError, match="layers"):
        fc.run_study(study)
    assert calls == []
    assert [path.name for path in tmp_path.iterdir()] == ["heads.toml"]


def test_titles_say_what_differs(tmp_path):
    (tmp_path / "titles.toml").write_text(
        "[datasets.phantom]\nn_images = 40\n"
        '[datasets.ward]\ndataset = "phantom"\nn_images = 20\n'
        '[extract]\nmodel = "tiny"\n'
        '[[train_head]]\nhead = "linear"\ndataset = "phantom"\nevaluate_on = ["ward"]\n'
        "label_map = [{Edema = ['Effusion', 'Edema']}, {Mass = 'Nodule'}]\n"
        '[[finetune]]\nobjective = "bce"\ndataset = "phantom"\nhead = ["linear", "mlp"]\n'
        "batch_size = 8\n"
    )
    experiments = fc.plan_study(tmp_path / "titles.toml").experiments
    assert [one.title for one in experiments] == [
        "linear",
        "linear, label_map Edema=Effusion Edema, trained on phantom",
        "linear, label_map Mass=Nodule, trained on phantom",
        "fine-tuned, head linear",
        "fine-tuned, head mlp",
    ]


def test_every_head_must_fit_some_model(tmp_path):
    models = MODELS.replace('"tiny", ', "").replace(', "dinov2-minilm"', "")
    step = '[[train_head]]\nhead = ["linear", "concat"]\n'
    with pytest.raises(UsageError, match=r"no model and features .* concat uses texts"):
        planned(tmp_path, models + step)


def test_a_prompt_file_is_used_and_only_named_prompts_are_embedded(tmp_path):
    prompts = tmp_path / "mine.toml"
    prompts.write_text("templates = ['{pathology} it is']\nnegatives = ['no {pathology}']\n")
    study = STUDY.replace('["signs", "lungs"]', '"mine.toml"').replace("seeds = 2", "")
    study = study.replace('"linear"]', '"concat"]\nepochs = 1')
    (tmp_path / "own.toml").write_text(study.replace('"prototype", ', ""))
    result = fc.run_study(tmp_path / "own.toml")
    assert not result.failures
    cache = fc.open_cache(tmp_path / "cache/phantom/tiny.h5")
    assert cache.prompt_sets == {"mine"}
    zero_shot = result.frame.query("method == 'zero-shot' and of == 'micro' and metric == 'auroc'")
    direct = fc.zero_shot(cache, prompts="mine", n_bootstrap=0).metrics.micro.auroc
    assert zero_shot["value"].tolist() == [direct]
    assert set(result.frame["prompts"]) == {"mine"}
    assert fc.plan_study(tmp_path / "own.toml").pending == []
    prompts.write_text("templates = ['signs of {pathology}']\nnegatives = ['no {pathology}']\n")
    assert len(fc.plan_study(tmp_path / "own.toml").pending) == 3


def test_the_content_of_a_file_is_the_same_study(folder, calls, monkeypatch):
    monkeypatch.chdir(folder)  # paths in a mapping are relative to the current folder
    content = {**tomllib.loads(STUDY), "out": "studies/heads"}
    result = fc.run_study(content)
    assert calls == []
    assert {one.folder for one in result.plan.experiments} == {
        one.folder for one in fc.plan_study(folder / "heads.toml").experiments
    }
    assert fc.plan_study(content, out="elsewhere").file.out == Path("elsewhere")


def test_data_sets_may_be_loaded_ones(folder, monkeypatch):
    monkeypatch.chdir(folder)
    content = {**tomllib.loads(STUDY), "out": "studies/heads"}
    content["datasets"] = {
        "phantom": fc.load_dataset("phantom", n_images=120),
        "ward": fc.load_dataset("phantom", n_images=40, seed=5),  # takes the name "ward"
    }
    plan = fc.plan_study(content)
    assert plan.pending == []
    assert plan.datasets["ward"].name == "ward"
    content["datasets"]["ward"] = content["datasets"]["ward"].with_labels("Effusion")
    assert {one.dataset for one in fc.plan_study(content).pending} == {"ward"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"datasets": {"phantom": 5}}, "the study is malformed: phantom: .* dictionary"),
        ({"datasets": ["phantom"]}, "the study is malformed: datasets: .* dictionary"),
        ({"model": "tiny"}, "the study: unknown key 'model'"),
        ({}, "the study is a mapping .* give `out`"),
        ({5: "tiny"}, "the study: unknown key '5'"),
        ({"zero_shot": {"scoring": "pair"}}, "the study is malformed: zero_shot: .* list"),
    ],
)
def test_mistakes_in_content_are_found(content, message):
    with pytest.raises(UsageError, match=message):
        fc.plan_study({**tomllib.loads(STUDY), **content})


def test_a_study_is_a_file_or_a_mapping(tmp_path):
    with pytest.raises(UsageError, match="a TOML file or a mapping, not list"):
        fc.plan_study([tomllib.loads(STUDY)])
    content = {**tomllib.loads(STUDY), "out": tmp_path / "runs", "cache_dir": tmp_path / "cache"}
    file = fc.plan_study(content).file
    assert (file.out, file.cache_dir) == (tmp_path / "runs", tmp_path / "cache")


def test_an_argument_that_is_the_default_makes_no_other_run(tmp_path):
    steps = [
        {},
        {"seed": 0, "seeds": 1, "controls": True},
        {"dropout": [0, 0.0]},
        {"coverage": 0.8},
    ]
    content = {
        "datasets": {"phantom": {"n_images": 40}},
        "extract": {"model": "tiny"},
        "train_head": [{"head": "baseline", **step} for step in steps],
        "finetune": [{"objective": "bce", "batch_size": 8, **step} for step in [{}, {"seed": 0}]],
    }
    plan = fc.plan_study(content, out=tmp_path)
    titles = ["baseline", "baseline, dropout 0", "baseline, coverage 0.8", "fine-tuned"]
    assert [one.title for one in plan.experiments] == titles
    recipe = {"recipe": "pediatric-clip", "batch_size": 8}
    content["finetune"] = [recipe, {**recipe, "epochs": FinetuneConfig.epochs}]
    content["train_head"] = []
    # Of a recipe, the default of another argument is not the one of the function.
    assert len(fc.plan_study(content, out=tmp_path).experiments) == 2


def test_a_data_set_of_one_label(tmp_path):
    text = STUDY.replace("seed = 5", 'seed = 5\nonly_labels = "Effusion"')
    (tmp_path / "heads.toml").write_text(text)
    datasets = fc.plan_study(tmp_path / "heads.toml").datasets
    assert datasets["ward"].label_names == ("Effusion",)
    assert len(datasets["phantom"].label_names) == 14


def test_an_encoder_to_fine_tune_need_not_be_embedded(tmp_path):
    step = '[[finetune]]\nmodel = "{}"\nobjective = "bce"\nbatch_size = 8\n'
    (tmp_path / "heads.toml").write_text(STUDY + step.format("dinov2-small"))
    plan = fc.plan_study(tmp_path / "heads.toml")
    tuned = [one.model for one in plan.experiments if one.kind == "finetune"]
    assert tuned == ["dinov2-small", "dinov2-small"]  # on each data set
    assert plan.file.models == ["tiny"]
    (tmp_path / "heads.toml").write_text(STUDY + step.format("dinov2-smal"))
    with pytest.raises(UsageError, match="did you mean dinov2-small"):
        fc.plan_study(tmp_path / "heads.toml")


@pytest.mark.parametrize(
    ("arguments", "dataset", "title"),
    [
        ({"prompts": "lungs"}, "phantom", "zero-shot, prompts lungs"),
        ({"kind": "train_head", "head": "linear"}, "phantom", "linear"),
        ({"head": "linear", "train_size": 30, "dataset": "ward"}, "ward", "linear, trained on"),
        ({"head": "linear", "trained_on": "phantom", "kind": "evaluate"}, "ward", "linear"),
        ({"method": "zero-shot", "prompts": "signs", "seeds": None}, "phantom", "zero-shot"),
    ],
)
def test_a_run_is_found_by_its_arguments(folder, arguments, dataset, title):
    result = fc.run_study(folder / "heads.toml")
    run = result.run(**arguments)
    (one,) = [one for one in result.plan.experiments if one.folder == run.path]
    assert one.dataset == dataset
    assert one.title.startswith(title)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"head": "linear", "seeds": 2},
            "2 runs of the study match head='linear', seeds=2: name more of the arguments in which "
            "they differ: kind='train_head' or 'evaluate'; dataset='phantom' or 'ward'$",
        ),
        (
            {},
            "6 runs of the study match anything: .* method='zero-shot' or 'prototype' or 'linear'",
        ),
        ({"train_size": 60}, "no run of the study matches train_size=60. Its runs: phantom: zero"),
        ({"prompts": "lungs", "train_size": 30}, "no run of the study matches"),
        ({"heads": "linear"}, "unknown argument of a study's runs 'heads': did you mean head"),
    ],
)
def test_no_or_several_runs_of_the_arguments(folder, arguments, message):
    result = fc.run_study(folder / "heads.toml")
    with pytest.raises(UsageError, match=message):
        result.run(**arguments)


def test_the_run_of_a_failed_experiment_is_not_found(folder, monkeypatch):
    (folder / "failing.toml").write_text(STUDY.replace("[30]", "[31]"))
    fail_with_train_size(31, monkeypatch)
    result = fc.run_study(folder / "failing.toml")
    out = folder / "studies/failing"
    captions = [one.caption for one in result.tables]
    assert repr(result).splitlines() == [
        f"StudyResult(6 experiments, 2 done, 4 failed: {out})",
        *captions,
    ]
    assert repr(result.plan) == f"StudyPlan(6 experiments, 4 without a run: {out})"
    with pytest.raises(UsageError, match=r"failed: phantom: linear: no memory"):
        result.run(head="linear", dataset="phantom")


def test_published_results_are_of_the_same_images_labels_and_metric():
    auroc = ["macro AUROC"]
    found = comparable_results("nih", "image", 25596, reversed(NIH_LABELS), auroc)
    assert len(found) == 9
    assert max(found, key=lambda result: result.value).method == "EVA-X ViT-B/16, fine-tuned"
    assert comparable_results("nih", "image", 25595, NIH_LABELS, auroc) == []
    assert comparable_results("nih", "study", 25596, NIH_LABELS, auroc) == []
    assert comparable_results("nih", "image", 25596, [*NIH_LABELS[1:], "Tumor"], auroc) == []
    assert comparable_results("nih", "image", 25596, NIH_LABELS, ["macro F1"]) == []
    (found,) = comparable_results("kermany", "image", 624, ["Pneumonia"], auroc)
    assert found.value == 0.968


def test_no_published_results_beside_corrected_labels(folder, monkeypatch):
    (folder / "corrections.csv").write_text("id,label,corrected\n")
    text = STUDY.replace("seed = 5", 'seed = 5\ncorrections = "corrections.csv"')
    (folder / "corrected.toml").write_text(text)
    plan = fc.plan_study(folder / "corrected.toml", out=folder / "studies/heads")
    runs = {one: fc.load_run(one.folder) for one in plan.experiments}
    published = PublishedResult("network", "macro F1", 0.5, "official split", "doi:1")
    monkeypatch.setattr(study_results, "comparable_results", lambda *_: [published])
    first, second = study_results.study_tables(plan, runs)
    assert (list(first.published), list(second.published)) == ([published], [])
    assert "network: macro F1 0.500 (official split; doi:1)." in study_results._latex(first, "x")


def test_published_results_are_of_known_collections_and_metrics():
    for test_set in published_test_sets():
        assert test_set.collection in DATASETS
        assert test_set.level in ("image", "study")
        assert test_set.results
        for result in test_set.results:
            assert result.metric in COLUMNS
            assert 0.5 < result.value < 1
            assert result.protocol
            assert "http" in result.source or "doi:" in result.source


def test_the_study_of_the_documentation_can_be_planned():
    page = Path(__file__).parents[2] / "docs/how-to/study_files.md"
    content = page.read_text().split("```toml")[1].split("```")[0]
    assert tomllib.loads(content)["train_head"]
