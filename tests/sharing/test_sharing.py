"""Caches and runs go to a hub without what identifies anybody, and come back."""

import hmac
import json
import re
import shlex
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli import main
from featurecache.datasets.registry import DATASETS
from featurecache.extraction.source import cached_files
from featurecache.provenance.records import ImageRecords
from featurecache.sharing.pseudonyms import default_key_file, without_folders
from featurecache.store.builder import CacheBuilder
from featurecache.store.verify import verify_cache
from tests.sharing.hub_server import Hub
from tests.sharing.secret_cache import REPO, SECRETS, N, make_cache

# The library gives its HTTP client a file as ``data``.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def fake_dataset(cache: fc.Cache) -> fc.Dataset:
    """A data set with the ids of a cache, whose files do not exist."""
    images = pd.DataFrame({"id": cache.ids, "path": cache.ids, "split": "test"}).astype(str)
    return fc.Dataset(name="toy", root="none", images=images.assign(patient=images["id"]))


def digest(text: str) -> str:
    """The hash that the documentation promises."""
    return hmac.digest(default_key_file().read_bytes(), text.encode(), "sha256").hex()[:32]


def test_nothing_leaves_this_machine_unless_asked(hub: Hub, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache" / "toy" / "m.h5")
    push = fc.push_cache(cache, REPO)
    assert push.url is None
    assert hub.requests == []
    assert push.name in push.files
    assert push.files[push.name] > 1000
    assert push.ids.startswith("pseudonymized with the key ")
    assert "its terms apply" in push.terms[0]
    outcome = CliRunner().invoke(main, ["cache", "push", REPO])
    assert outcome.exit_code == 0
    assert "nothing was sent: --yes sends 2 files" in " ".join(outcome.stderr.split())
    assert hub.requests == []
    assert [path.name for path in (tmp_path / "cache" / "toy").iterdir()] == ["m.h5"]


def test_a_cache_comes_back_with_pseudonyms_and_nothing_else_that_identifies(
    hub: Hub, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "mine" / "toy" / "m.h5")
    push = fc.push_cache(cache, REPO, yes=True)
    assert push.url == f"{hub.url}/datasets/{REPO}"
    repo = hub.repos[f"datasets/{REPO}"]
    assert repo.private
    assert set(repo.files) == {"README.md", "featurecache.json", "toy/m.h5"}
    for name, content in repo.files.items():
        for secret in SECRETS:
            assert secret not in content, (name, secret)
    pulled = fc.pull_cache(REPO, cache_dir="pulled")
    assert pulled.path == Path("pulled/toy/m.h5")
    assert pulled.path.read_bytes() == repo.files["toy/m.h5"]
    assert not verify_cache(pulled.path)
    row_of = {digest(f"name {image}"): row for row, image in enumerate(cache.ids.tolist())}
    rows = [row_of[image] for image in pulled.ids.tolist()]
    np.testing.assert_array_equal(pulled.embedding, cache.embedding[rows])
    np.testing.assert_array_equal(pulled.cells, cache.cells[rows])
    assert pulled.splits.tolist() == cache.splits[rows].tolist()
    assert pulled.patients.tolist() == [digest(f"name {n}") for n in cache.patients[rows]]
    assert pulled.studies.tolist() == [digest(f"study {n}") for n in cache.studies[rows]]
    assert set(pulled.images.age.tolist()) == {b"90", b"89"}
    assert pulled.excluded == {"damaged": 1}
    (trained_on,) = pulled.header.trained_on.values()
    assert trained_on.id.tolist() == [digest("name secret-9").encode()]
    assert stat.S_IMODE(default_key_file().stat().st_mode) == 0o600
    with pytest.raises(ValueError, match=r"does not know the files of its images, .*fetched from"):
        cached_files(pulled, fake_dataset(pulled))
    with pytest.raises(ValueError, match=f"was imported from {REPO}, so it is not known"):
        CacheBuilder(pulled.path, pulled.header, pulled.images.id)
    again = fc.push_cache(pulled, REPO)  # whose ids stay as they are
    assert again.ids == push.ids
    run = fc.zero_shot(pulled, n_bootstrap=0)
    assert run.metrics.macro.auroc == fc.zero_shot(cache, n_bootstrap=0).metrics.macro.auroc
    with pytest.raises(ValueError, match=r"m.h5 already exists: give another `cache_dir`"):
        fc.pull_cache(REPO, cache_dir="pulled")
    card = repo.files["README.md"].decode()
    assert "| Ids | pseudonymized with the key" in card
    assert "license not known" in card
    assert (
        f"| Images | {N} |\n| Patients | {N // 2} |\n| Splits | 40 train, 20 val, 20 test |" in card
    )
    trained_on = next(iter(cache.header.trained_on))
    assert f"| Training of the encoder | on 1 image of {trained_on} |" in card
    use = card.partition("## Use")[2].partition("```sh\n")[2].partition("```")[0]
    for line in use.splitlines():
        program, *words = shlex.split(line)
        outcome = CliRunner().invoke(main, words, catch_exceptions=False)
        assert (program, outcome.exit_code) == ("featurecache", 0), outcome.output


def test_terms_say_why_a_data_set_is_listed(hub: Hub, tmp_path: Path) -> None:
    trained_on = {name: ImageRecords.of(name, ["1"]) for name in ("kermany", "phantom-1")}
    cache = make_cache(
        tmp_path / "any" / "m.h5", dataset="phantom", collection="phantom-0", trained_on=trained_on
    )
    push = fc.push_cache(cache, REPO)
    assert [line.partition(":")[0] for line in push.terms] == [
        "phantom (images)",
        "kermany (training images of the encoder)",
    ]
    assert "| Data set | phantom (seed 0) |" in push.card
    assert "on 1 image of kermany, 1 image of phantom (seed 1) |" in push.card
    assert hub.requests == []


def test_ids_and_hashes_are_kept_only_when_asked(hub: Hub, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "toy" / "m.h5")
    fc.push_cache(cache, REPO, yes=True, keep_ids=True, public=True)
    assert not hub.repos[f"datasets/{REPO}"].private
    outcome = CliRunner().invoke(main, ["cache", "pull", REPO])
    assert f"cache/toy/m.h5: {N} images, 8-d embeddings" in outcome.stdout
    pulled = fc.open_cache("cache/toy/m.h5")
    for name in ("id", "patient", "study", "sha256", "perceptual_hash", "age"):
        np.testing.assert_array_equal(getattr(pulled.images, name), getattr(cache.images, name))
    assert set(pulled.images.path.tolist()) == {b""}
    assert pulled.header.extraction["data"] is None
    assert pulled.header.notes[1] == "x.csv is in UTF-16"
    with pytest.raises(ValueError, match="leave it out with `keep_ids`"):
        fc.push_cache(cache, REPO, keep_ids=True, key="k")


def test_only_files_of_the_run_are_sent_and_the_others_named(hub: Hub, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "toy" / "m.h5")
    run = fc.train_head(cache, "linear", controls=False, n_bootstrap=0).save("runs/one")
    files = {path.name for path in run.iterdir()}
    others = ["encoder/mine.json", "mine.csv", "notes.txt", "roc.png", "sub/config.json"]
    for name in others:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("0001.png is Anna")
    outcome = CliRunner().invoke(main, ["runs", "push", REPO, str(run)])
    assert f"not sent: {', '.join(others)}" in " ".join(outcome.stdout.split())
    push = fc.push_run(run, REPO, yes=True)
    assert list(push.left_out) == others
    sent = hub.repos[f"models/{REPO}"].files
    assert set(sent) == {*files, "README.md", "featurecache.json"}
    assert not [name for name, content in sent.items() if b"Anna" in content]


def test_a_pulled_run_compares_and_predicts_as_the_one_that_was_sent(
    hub: Hub, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "toy" / "m.h5")
    pulled = []
    for head in ("linear", "prototype"):
        fc.train_head(cache, head, controls=False, n_bootstrap=0).save(f"runs/{head}")
        fc.push_run(f"runs/{head}", f"{REPO}-{head}", yes=True)
        pulled.append(fc.pull_run(f"{REPO}-{head}", f"pulled/{head}"))
        own = fc.load_run(f"runs/{head}")
        assert pulled[-1].metrics == own.metrics
        # The cache has no image files, but its embeddings.
        columns = ["Edema probability", "Mass probability"]
        expected = own.predict(cache)[columns]
        pd.testing.assert_frame_equal(pulled[-1].predict(cache)[columns], expected)
    (own,) = fc.compare(["runs/linear", "runs/prototype"]).comparisons
    (result,) = fc.compare([run.path for run in pulled]).comparisons
    for name, label in own.per_label.items():
        for metric, compared in label.items():
            assert result.per_label[name][metric].first == compared.first
            assert result.per_label[name][metric].run == compared.run


def test_a_run_comes_back_with_the_pseudonyms_of_its_cache(hub: Hub, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "toy" / "m.h5")
    run = fc.train_head(cache, "prototype", controls=False, n_bootstrap=20)
    run.save("runs/one")
    push = fc.push_run("runs/one", REPO, yes=True)
    repo = hub.repos[f"models/{REPO}"]
    assert set(repo.files) == {*push.files, "featurecache.json"}
    for name, content in repo.files.items():
        for secret in (*SECRETS[:-2], str(tmp_path).encode(), f"{1:064x}".encode()):
            # Digits occur in numbers.
            assert secret not in content or secret.isdigit(), (name, secret)
    macro = run.metrics.macro
    interval = f"{macro.auroc:.3f} \\[{macro.auroc_ci[0]:.3f}, {macro.auroc_ci[1]:.3f}\\]"
    assert f"| macro average | {interval} |" in repo.files["README.md"].decode()
    outcome = CliRunner().invoke(main, ["runs", "pull", REPO, "--out", "runs/two", "--json"])
    assert json.loads(outcome.stdout) == {"run": "runs/two", "kind": "head"}
    pulled = fc.load_run("runs/two")
    assert pulled.config["cache"]["collection"] == f"toy#{push.ids.rpartition(' ')[2]}"
    again = fc.push_run("runs/two", REPO)  # whose ids stay as they are
    assert again.ids == push.ids
    expected = run.predictions.assign(
        id=[digest(f"name {n}") for n in run.predictions["id"]],
        patient=[digest(f"name {n}") for n in run.predictions["patient"]],
        study=[digest(f"study {n}") for n in run.predictions["study"]],
        sha256="",
    )
    # The order of a run, often that of its ids, would tell which image is which.
    assert pulled.predictions["id"].tolist() != expected["id"].tolist()
    expected = expected.sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(pulled.predictions, expected)
    assert pulled.metrics == run.metrics
    fc.push_cache(cache, REPO, yes=True)
    scored = pulled.evaluate(fc.pull_cache(REPO), split="test", n_bootstrap=0)
    assert scored.metrics.macro.auroc == macro.auroc
    with pytest.raises(ValueError, match="two already exists: give another `path`"):
        fc.pull_run(REPO, "runs/two")


@pytest.mark.parametrize(
    "name", ["mimic-cxr-jpg", "chexpert", "padchest", "vindr-cxr", "brax", "openi", "covidx"]
)
def test_data_sets_that_may_not_be_shared_are_refused_without_a_permission(
    name: str, hub: Hub, tmp_path: Path
) -> None:
    assert DATASETS[name].may_share is False
    cache = make_cache(tmp_path / "any" / "m.h5", collection=name)
    terms = re.escape(DATASETS[name].terms)
    reason = rf"the terms of {name} \({terms}, https://.*do not allow giving"
    with pytest.raises(ValueError, match=reason):
        fc.push_cache(cache, REPO, yes=True)
    tuned = make_cache(tmp_path / "tuned" / "m.h5", trained_on={name: ImageRecords.of(name, ["1"])})
    with pytest.raises(ValueError, match=reason):
        fc.push_cache(tuned, REPO, yes=True)
    if name == "mimic-cxr-jpg":
        push = fc.push_cache(cache, REPO, permission="Letter 12 of PhysioNet")
        assert "Shared with this permission: Letter 12 of PhysioNet" in push.card
        named = make_cache(tmp_path / "named" / "m.h5", dataset=name)
        run = fc.zero_shot(named, n_bootstrap=0).save("runs/mimic")
        with pytest.raises(ValueError, match="do not allow giving"):
            fc.push_run(run, REPO, yes=True)
    assert hub.requests == []


def test_every_public_data_set_states_where_its_terms_are() -> None:
    for spec in DATASETS.values():
        is_own = spec.terms == "those of your data"
        assert bool(spec.terms_url) != is_own, spec.name
        assert not (is_own and spec.may_share is not None), spec.name


def test_terms_that_were_not_read_are_taken_to_forbid_sharing(hub: Hub, tmp_path: Path) -> None:
    unread = [spec.name for spec in DATASETS.values() if spec.terms_read == "not read"]
    assert unread == ["nih-google", "padchest-gr", "siim-acr"]
    assert {DATASETS[name].may_share for name in unread} == {False}
    cache = make_cache(tmp_path / "any" / "m.h5", collection="siim-acr")
    with pytest.raises(
        ValueError, match=r"does not know whether the terms of siim-acr \(the rules"
    ):
        fc.push_cache(cache, REPO, yes=True)
    push = fc.push_cache(cache, REPO, permission="the rules, read on 2 December")
    assert push.terms[0].endswith("what is computed from the images was not checked.")
    assert hub.requests == []


def test_the_card_says_where_terms_are_known_second_hand(hub: Hub, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "any" / "m.h5", collection="kermany")
    assert (
        "They allow sharing what is computed from the images (according to others; the terms "
        "themselves were not read)."
    ) in fc.push_cache(cache, REPO).card
    cache = make_cache(tmp_path / "any" / "n.h5", collection="nih")
    assert "They allow sharing what is computed from the images." in fc.push_cache(cache, REPO).card


@pytest.mark.parametrize("repo_id", ["../x", "lab/..", "lab/" + "x" * 200, "lab/a--b", "lab/-x"])
def test_names_that_the_hub_does_not_allow_are_refused_before_anything_is_sent(
    repo_id: str, hub: Hub, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "toy" / "m.h5")
    with pytest.raises(ValueError, match="the hub has no such repository: "):
        fc.push_cache(cache, repo_id)
    assert hub.requests == []


def change(hub: Hub, name: str, content: bytes, kind: str = "datasets") -> None:
    repo = hub.repos[f"{kind}/{REPO}"]
    repo.commits.append({**repo.files, name: content})


def test_what_was_not_sent_so_is_not_received(hub: Hub, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "toy" / "m.h5")
    fc.push_cache(cache, REPO, yes=True)
    sent = dict(hub.repos[f"datasets/{REPO}"].files)
    manifest = json.loads(sent["featurecache.json"])
    change(hub, "toy/m.h5", sent["toy/m.h5"][:-1] + b"x")
    with pytest.raises(ValueError, match="is not the file that was sent: its size or SHA-256"):
        fc.pull_cache(REPO)
    for listed, problem in (
        ({"../../m.h5": manifest["files"]["toy/m.h5"]}, "whose name is not allowed"),
        ({"a/b.h5": 3}, "featurecache.json of my-lab/set is damaged"),
    ):
        change(hub, "featurecache.json", json.dumps({**manifest, "files": listed}).encode())
        with pytest.raises(ValueError, match=problem):
            fc.pull_cache(REPO)
    change(hub, "featurecache.json", json.dumps({**manifest, "name": "../m.h5"}).encode())
    change(hub, "toy/m.h5", sent["toy/m.h5"])
    with pytest.raises(ValueError, match="does not hold one cache"):
        fc.pull_cache(REPO)
    change(hub, "featurecache.json", json.dumps({**manifest, "kind": "run"}).encode())
    with pytest.raises(ValueError, match="holds a run, not a cache"):
        fc.pull_cache(REPO)
    first = hub.repos[f"datasets/{REPO}"].sha(1)
    assert len(fc.pull_cache(REPO, revision=first, cache_dir="first")) == len(cache)
    assert not list(Path("cache").rglob("*.h5"))


def test_a_repository_is_replaced_only_by_the_same_cache_and_never_made_public(
    hub: Hub, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "toy" / "m.h5")
    fc.push_cache(cache, REPO, yes=True)
    fc.push_cache(cache, REPO, yes=True)
    assert len(hub.repos[f"datasets/{REPO}"].commits) == 3
    other = make_cache(tmp_path / "other" / "m.h5")
    with pytest.raises(ValueError, match=r"my-lab/set holds toy/m.h5: give another repository"):
        fc.push_cache(other, REPO, yes=True)
    change(hub, "toy/more.txt", b"stale")
    fc.push_cache(cache, REPO, yes=True)
    assert "toy/more.txt" not in hub.repos[f"datasets/{REPO}"].files
    hub.repos[f"datasets/{REPO}"].private = False
    with pytest.raises(ValueError, match="my-lab/set is public: give `public`"):
        fc.push_cache(cache, REPO, yes=True)
    hub.repos[f"datasets/{REPO}"].commits.append({"train.csv": b""})
    with pytest.raises(ValueError, match=r"has other files, such as train.csv"):
        fc.push_cache(cache, REPO, yes=True, public=True)


def test_answers_of_the_hub_become_messages(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="there is no dataset my-lab/none on the hub, or you may"):
        fc.pull_cache("my-lab/none")
    cache = make_cache(tmp_path / "toy" / "m.h5")
    hub.status = 403
    with pytest.raises(ValueError, match="the hub refuses access to my-lab/set: log in with"):
        fc.push_cache(cache, REPO, yes=True)
    hub.status = None
    fc.push_cache(cache, REPO, yes=True)
    with pytest.raises(ValueError, match="my-lab/set has no such `revision`"):
        fc.pull_cache(REPO, revision="v2")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(fc.FeaturecacheError, match="the hub cannot be reached"):
        fc.push_cache(cache, REPO, yes=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/x.csv, row 3", "x.csv, row 3"),
        ("~/runs/a was made", "a was made"),
        (r"C:\data\x.csv", "x.csv"),
        ("see https://physionet.org/content/x/", "see https://physionet.org/content/x/"),
        ("AP/PA, 2/3 of nih/1.png", "AP/PA, 2/3 of nih/1.png"),
    ],
)
def test_texts_lose_the_folders_of_this_machine(text: str, expected: str) -> None:
    assert without_folders({"a": [text]}) == {"a": [expected]}
