"""Caches belong to the images, whatever the table, the paths or the ids are called."""

import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import pytest

import featurecache as fc
from featurecache.datasets.dataset import Dataset
from featurecache.errors import CacheError, FeaturecacheWarning, UsageError
from featurecache.extraction.source import as_dataset
from featurecache.extraction.update import ExtractionSummary, update_caches
from featurecache.store.cache import Cache
from featurecache.store.merge import Shard
from featurecache.store.reader import read_cache
from featurecache.store.verify import verify_cache
from tests.cli.conftest import Run
from tests.extraction.stub_encoder import StubEncoder, expected_embedding, write_image


def hospital(
    folder: Path, numbers: list[int], *, prefix: str = "", name: str = "export.csv"
) -> Path:
    """Write images of these numbers and a table with one row for each; ids are the paths."""
    lines = ["path,Mass,patient,split"]
    for number in numbers:
        path = f"{prefix}{number:03d}.png"
        write_image(folder / path, number)
        lines.append(f"{path},{number % 2},p{number},{('train', 'val', 'test')[number % 3]}")
    (folder / name).write_text("\n".join(lines))
    return folder / name


def load(table: Path, **options: Any) -> Dataset:
    options = {"labels": ["Mass"], "patient": "patient", "split": "split", **options}
    return fc.load_dataset("csv", table, **options)


def extract(
    data: Dataset, cache: Path, *, checkpoint: str = "one", **options: Any
) -> tuple[ExtractionSummary, list[int]]:
    """Extract; return the summary and the numbers of the images that were encoded."""
    encoder = StubEncoder(checkpoint=checkpoint)
    (summary,) = update_caches(data, [encoder], cache_dir=cache, batch_size=4, **options)
    return summary, encoder.encoded


def require_right(cache: Cache, numbers: Mapping[str, int] | None = None) -> None:
    """Compare every embedding with that of the number of its image, which its id ends with."""
    for image, row in zip(cache.ids.tolist(), cache.arrays()[0], strict=True):
        number = int(image[-7:-4]) if numbers is None else numbers[image]
        np.testing.assert_array_equal(row, expected_embedding(number))
    assert verify_cache(cache.path) == []


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.mark.parametrize("limit", [None, 3])
def test_changed_ids_keep_their_embeddings(tmp_path: Path, cache: Path, limit: int | None) -> None:
    """A path prefix has changed, and so have all ids; images that are added are encoded."""
    table = hospital(tmp_path / "old", [*range(12)])
    first, encoded = extract(load(table), cache)
    assert len(encoded) == 12
    moved = hospital(tmp_path / "new", [*range(14)], prefix="2026/images/")
    summary, encoded = extract(load(moved), cache, limit=limit)
    # Nothing that is cached is lost, whatever the limit.
    assert summary.reused_by_content == {str(first.path): 12}
    assert (summary.reused, summary.done) == (0, len(encoded))
    assert set(encoded) <= {12, 13}
    cached = read_cache(summary.path)
    assert all(image.startswith("2026/images/") for image in cached.ids)
    assert len(cached) == 12 + len(encoded)
    require_right(cached)
    assert extract(load(moved), cache)[0].images == 14
    assert extract(load(moved), cache)[0].written is False


def test_a_renamed_table_encodes_only_new_images(tmp_path: Path, cache: Path) -> None:
    """Next month's export: another file name, other images among the same."""
    first, _ = extract(load(hospital(tmp_path / "a", [*range(10)], name="may.csv")), cache)
    june = load(hospital(tmp_path / "b", [*range(4, 13)], name="june.csv"))
    summary, encoded = extract(june, cache)
    assert encoded == [10, 11, 12]
    assert summary.reused_by_content == {str(first.path): 6}
    require_right(read_cache(summary.path))
    assert len(read_cache(first.path)) == 10
    # The perceptual hash is that of the image.
    fresh, _ = extract(june, tmp_path / "elsewhere")
    hashes = [read_cache(made.path).images.perceptual_hash for made in (summary, fresh)]
    assert np.array_equal(*hashes)
    # Shards, and another name, find it as well.
    renamed = load(tmp_path / "b" / "june.csv", name="ward")
    shard, encoded = extract(renamed, cache, shard=Shard(1, 2))
    assert (encoded, shard.path.parent.name) == ([], "ward")
    assert sum(shard.reused_by_content.values()) == 5


def test_other_encoders_and_damaged_caches_are_not_used(tmp_path: Path, cache: Path) -> None:
    table = hospital(tmp_path, [*range(6)])
    first, _ = extract(load(table), cache, checkpoint="two")
    summary, encoded = extract(load(table, name="again"), cache)
    assert (len(encoded), summary.reused_by_content) == (6, {})
    first.path.write_bytes(b"damaged")
    data = bytearray(summary.path.read_bytes())
    offset = data.find(read_cache(summary.path).embedding.tobytes())
    data[offset] ^= 1
    summary.path.write_bytes(data)
    with pytest.warns(FeaturecacheWarning) as warned:
        third, encoded = extract(load(table, name="third"), cache)
    assert (len(encoded), third.reused_by_content) == (6, {})
    messages = [str(warning.message) for warning in warned]
    assert [text.partition(" are not reused: ")[0] for text in messages] == [
        f"embeddings of {summary.path}",
        f"embeddings of {first.path}",
    ]
    require_right(read_cache(third.path))


def test_an_interrupted_reuse_continues(tmp_path: Path, cache: Path) -> None:
    first, _ = extract(load(hospital(tmp_path / "a", [*range(10)])), cache)
    july = load(hospital(tmp_path / "b", [*range(30)], name="july.csv"))

    def stop(finished: int, _: int) -> None:
        if finished == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(july, cache, progress=stop)
    # What was reused is in chunk files: the other cache is not needed any more.
    shutil.rmtree(first.path.parent)
    summary, encoded = extract(july, cache)
    assert summary.reused_by_content == {}
    assert summary.reused + summary.done == 30
    assert min(encoded) >= 10
    require_right(read_cache(summary.path))


def test_chunk_files_of_renamed_images_are_reused(tmp_path: Path, cache: Path) -> None:
    def stop(finished: int, _: int) -> None:
        if finished == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(load(hospital(tmp_path / "a", [*range(10)])), cache, progress=stop)
    moved = load(hospital(tmp_path / "b", [*range(10)], prefix="images/"))
    summary, encoded = extract(moved, cache)
    assert summary.reused_by_content == {str(summary.path): 10 - len(encoded)}
    assert len(encoded) <= 4
    require_right(read_cache(summary.path))


@pytest.mark.parametrize("numbers", [[*range(20, 24)], [*range(20, 60)]])
def test_another_hospital_with_the_same_names_replaces_nothing(
    tmp_path: Path, cache: Path, numbers: list[int]
) -> None:
    """The same name of the table, the same ids, the same file names, other images."""
    table = hospital(tmp_path / "a", numbers)
    first, _ = extract(load(table), cache)
    before = first.path.read_bytes()
    other = hospital(tmp_path / "b", numbers)
    for number in numbers:
        write_image(tmp_path / "b" / f"{number:03d}.png", number + 100)
    n = len(numbers)
    with pytest.raises(
        UsageError, match=f"export/stub.h5 would lose {n} of its {n} images"
    ) as error:
        extract(load(other), cache)
    assert "another `name` or another `cache_dir`" in str(error.value)
    assert first.path.read_bytes() == before
    assert extract(load(other, name="hospital-b"), cache)[0].done == n
    assert first.path.read_bytes() == before
    assert extract(load(other), cache, prune=True)[0].reused_by_content != {}


def test_corrections_of_a_few_images_are_taken(tmp_path: Path, cache: Path) -> None:
    table = hospital(tmp_path, [*range(5)])
    extract(load(table), cache)
    write_image(tmp_path / "001.png", 77)
    write_image(tmp_path / "002.png", 78)
    summary, encoded = extract(load(table), cache)
    assert (encoded, summary.reused) == ([77, 78], 3)
    assert summary.changed == {"content": 2}


def test_all_that_changed_is_counted_by_kind(tmp_path: Path, run: Run) -> None:
    table = hospital(tmp_path, [*range(8)])
    columns = ("--label-column", "Mass", "--patient-column", "patient", "--split-column", "split")
    arguments = ("extract", "--data-root", table, *columns)
    assert "changed:" not in run(*arguments).stderr
    rows = table.read_text()
    for before, after in (
        ("000.png,0,p0,train", "000.png,1,p0,train"),
        ("001.png,1,p1,val", "001.png,0,q1,test"),
        ("002.png,0,p2,test", "002.png,1,p2,train"),
    ):
        assert before in rows
        rows = rows.replace(before, after)
    table.write_text(rows)
    write_image(tmp_path / "005.png", 77)
    assert (
        "changed: label of 3 images, split of 2 images, patient of 1 image, content of 1 image\n"
        in run(*arguments).stderr
    )


def test_hashing_reports_its_progress(tmp_path: Path, cache: Path) -> None:
    extract(load(hospital(tmp_path / "a", [*range(6)])), cache)
    calls: list[tuple[int, int]] = []
    moved = load(hospital(tmp_path / "b", [*range(7)], prefix="x/"), name="other")
    extract(moved, cache, hash_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, calls[-1][1]) for done in range(1, calls[-1][1] + 1)]
    assert calls[-1][1] in (6, 7)  # the seventh file may have another size, and is not read


def test_a_refused_extraction_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    table = load(hospital(tmp_path / "a", [*range(4)]))

    def refuse(_: object) -> None:
        raise UsageError("refused")

    with pytest.raises(UsageError, match="refused"):
        extract(table, cache, on_start=refuse)
    assert list((cache / "export").iterdir()) == []
    extract(table, cache)
    with pytest.raises(UsageError, match="refused"):
        extract(table, cache, on_start=refuse)
    assert {file.name for file in (cache / "export").iterdir()} == {"stub.h5", "stub.h5.lock"}


def test_a_process_that_waits_for_a_refused_one_is_alone_afterwards(
    tmp_path: Path, cache: Path
) -> None:
    """The lock file that it waited for was removed: it holds that of a new one."""
    table = load(hospital(tmp_path / "a", [*range(4)]))
    waits = Event()
    inside = [False]

    def refuse(_: object) -> None:
        assert waits.wait(10)
        raise UsageError("refused")

    def note(_: object) -> None:
        with pytest.raises(UsageError, match="another process is writing"):
            extract(table, cache)
        inside[0] = True

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(extract, table, cache, on_start=refuse)
        while not (cache / "export/stub.h5.lock").exists():
            time.sleep(0.01)
        second = pool.submit(extract, table, cache, on_wait=lambda _: waits.set(), on_start=note)
        with pytest.raises(UsageError, match="refused"):
            first.result()
        assert second.result()[0].done == 4
    assert inside == [True]


def test_ids_that_left_are_refused_unless_their_content_is_still_there(
    tmp_path: Path, cache: Path
) -> None:
    extract(load(hospital(tmp_path / "a", [*range(10)])), cache)
    fewer = load(hospital(tmp_path / "b", [*range(8)], prefix="new/"))
    with pytest.raises(CacheError, match=r"holds 2 images .*, '008.png' the first: give `prune`"):
        extract(fewer, cache)
    summary, encoded = extract(fewer, cache, prune=True)
    assert (encoded, summary.images, sum(summary.reused_by_content.values())) == ([], 8, 8)


def test_exchanged_paths_exchange_embeddings(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sizes and modification times agree, so only the paths tell."""
    numbers = [*range(12)]
    hospital(tmp_path, numbers)
    for number in numbers:
        os.utime(tmp_path / f"{number:03d}.png", ns=(1, 1))
    table = tmp_path / "with-ids.csv"

    def write(order: list[int]) -> dict[str, int]:
        rows = [f"image {i:02d},{number:03d}.png,1,p{i},train" for i, number in enumerate(order)]
        table.write_text("\n".join(["id,path,Mass,patient,split", *rows]))
        return {f"image {i:02d}": number for i, number in enumerate(order)}

    write(numbers)
    extract(load(table, id="id"), cache)
    exchanged = write(numbers[::-1])
    summary, encoded = extract(load(table, id="id"), cache)
    assert (encoded, sum(summary.reused_by_content.values())) == ([], 12)
    require_right(read_cache(summary.path), exchanged)
    assert any("changed: content of 12 images" in record.getMessage() for record in caplog.records)


def test_rehash_trusts_no_modification_time(tmp_path: Path, cache: Path) -> None:
    table = hospital(tmp_path, [*range(40)])
    summary, _ = extract(load(table), cache)
    path = tmp_path / "003.png"
    before = path.stat()
    write_image(path, 77)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert extract(load(table), cache)[1] == []  # it is not among the files that are always hashed
    summary, encoded = extract(load(table), cache, rehash=True)
    assert (encoded, summary.reused) == ([77], 39)
    assert extract(load(table), cache, rehash=True)[0].written is False


def test_paths_are_hashed_where_ids_are(tmp_path: Path, cache: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    table = hospital(tmp_path, [*range(6)], prefix="Doe John ")
    summary, _ = extract(load(table, pseudonymize=key), cache)
    assert b"Doe" not in summary.path.read_bytes()
    paths = read_cache(summary.path).images.path
    assert len(set(paths)) == 6
    assert {len(path) for path in paths.tolist()} == {32}
    assert set(paths).isdisjoint(read_cache(summary.path).images.id)
    summary, _ = extract(load(table, pseudonymize=key), cache)
    assert (summary.reused, summary.written) == (6, False)
    # A data set that is not pseudonymized finds the same content.
    plain, encoded = extract(load(table, name="plain"), cache)
    assert (encoded, plain.reused_by_content) == ([], {str(summary.path): 6})


def test_a_limited_cache_continues(tmp_path: Path, cache: Path) -> None:
    table = hospital(tmp_path, [*range(60)])
    small, _ = extract(load(table), cache, limit=6)
    first = read_cache(small.path)
    assert sorted(zip(first.splits, first.labels.values[:, 0], strict=True)) == [
        (split, label) for split in ("test", "train", "val") for label in (0, 1)
    ]
    assert extract(load(table), cache, limit=6)[0].written is False
    larger, encoded = extract(load(table), cache, limit=20)
    assert (len(encoded), larger.reused) == (14, 6)
    whole, encoded = extract(load(table), cache)
    assert (len(encoded), whole.reused) == (40, 20)
    assert set(first.ids) < set(read_cache(whole.path).ids)
    assert asdict(whole)["reused_by_content"] == {}


def test_commands_find_the_images_of_a_cache(tmp_path: Path, run: Run) -> None:
    """Options of the data set are given once, to extract."""
    table = hospital(tmp_path / "a", [*range(12)])
    options = ("--label-column", "Mass", "--patient-column", "patient", "--split-column", "split")
    made = run("extract", "--data-root", table, *options)
    assert made.code == 0, made.stderr
    cache = Path("cache/export/tiny.h5")
    again = run("extract", "--data-root", table, *options, "--name", "other")
    assert f"reused by content: 12 embeddings of {cache}" in again.stderr + again.stdout
    cache.touch()
    command = ("retrieve", "--cache", cache, "--image", "001.png", "--contact-sheet")
    assert run(*command, "a.png").code == 0
    assert Path("a.png").exists()
    audit = ("audit", "--cache", cache, "--n-bootstrap", 0, "--json")
    assert run(*audit, "--images").json["near_duplicates"]["compared"] is not None
    opened = fc.open_cache(cache)
    near = fc.audit(opened, opened, n_bootstrap=0).near_duplicates
    assert near.compared is not None
    shutil.move(table.parent, tmp_path / "b")
    gone = run(*command, "b.png")
    assert (gone.code, gone.stderr.count("is no longer there")) == (2, 1)
    assert "--data-root" in gone.stderr
    moved = run(*command, "b.png", "--data-root", tmp_path / "b" / table.name)
    assert moved.code == 0, moved.stderr
    # Only the images have moved.
    shutil.move(tmp_path / "b", table.parent)
    images = tmp_path / "images"
    images.mkdir()
    for file in table.parent.glob("*.png"):
        file.rename(images / file.name)
    refused = run(*command, "c.png", "--data-root", images)
    assert refused.code == 2
    assert (
        f"was made from the table {table}, but {images} is a folder without a table: give the "
        "table as --data-root; if only the images have moved, give their folder as --images-root "
        "instead" in " ".join(refused.stderr.split())
    )
    assert run(*command, "c.png", "--images-root", images).code == 0


REPORT = "Heart enlarged.\nLungs clear; no effusion.\n" + "Compared with the previous image. " * 40


def test_reports_are_shown_but_not_stored(tmp_path: Path, run: Run) -> None:
    table = hospital(tmp_path / "a", [*range(4)])
    header, *rows = table.read_text().splitlines()
    texts = [f'"{number}: {REPORT}",s{number}' for number in range(3)] + [",s3"]
    lines = [f"{row},{text}" for row, text in zip(rows, texts, strict=True)]
    table.write_text("\n".join([f"{header},report,exam", *lines]))
    options = ("--label-column", "Mass", "--patient-column", "patient", "--split-column", "split")
    made = run("extract", "--data-root", table, *options)
    assert made.code == 0, made.stderr
    cache = Path("cache/export/tiny.h5")
    assert b"Heart" not in cache.read_bytes()
    query = ("retrieve", "--image", "003.png")
    found = run(*query, "--metadata-column", "rep*", "--metadata-column", "exam", "--out", "o.csv")
    assert found.code == 0, found.stderr
    written = pd.read_csv("o.csv").set_index("id").sort_index()
    assert written["report"].tolist() == [f"{number}: {REPORT}".strip() for number in range(3)]
    assert written["exam"].tolist() == ["s0", "s1", "s2"]
    assert "1: Heart enlarged. Lungs clear; no effusion. Compared..." in found.stdout
    assert "Heart" not in run(*query).stdout
    data = fc.load_dataset("csv", table, labels="Mass", metadata="report")
    result = fc.retrieve(cache, image="002.png", data=data)
    assert dict(zip(result["id"], result["report"], strict=True))["003.png"] == ""
    assert "metadata" not in (data.source or {})["options"]
    fewer = data.take(np.array([0]))
    with pytest.raises(UsageError, match="the data set lacks the image '00"):
        fc.retrieve(cache, image="002.png", data=fewer)
    useless = run("retrieve", "--metadata-column", "report")
    assert "--metadata-column shows the result of a query" in useless.stderr
    taken = run(*query, "--metadata-column", "split")
    assert taken.code == 2
    assert "'split', whose name has a meaning of its own" in taken.stderr


def test_commands_ask_for_what_they_cannot_know(tmp_path: Path, run: Run) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    table = hospital(tmp_path / "a", [*range(6)])
    options = ("--data-root", table, "--pseudonymize", key)
    made = run("extract", *options, "--label-column", "Mass", "--patient-column", "patient")
    assert made.code == 0, made.stderr
    sheet = ("retrieve", "--label", "Mass", "--contact-sheet", "a.png")
    refused = run(*sheet)
    assert refused.code == 2
    assert "pseudonymized: give the same key file as --pseudonymize" in refused.stderr
    # The other options are stored.
    assert run(*sheet, *options).code == 0
    data = fc.load_dataset("csv", table, labels=["Mass"])
    made_in_python = Dataset(
        **{n: getattr(data, n) for n in ("name", "root", "images", "labels")}, collection="c"
    )
    cache = fc.extract(made_in_python, "tiny", cache_dir="python")
    with pytest.raises(UsageError, match=r"export/tiny.h5 was made in Python, .* as `data`"):
        fc.audit(cache, cache)


def test_report_finds_the_images_of_its_run(tmp_path: Path, run: Run) -> None:
    table = hospital(tmp_path / "a", [*range(24)])
    data = fc.load_dataset("csv", table, labels=["Mass"], patient="patient", split="split")
    cache = fc.extract(data, "tiny", cache_dir="cache")
    made = fc.train_head(cache, "linear", n_bootstrap=0, controls=False)
    page = fc.report([made], "python.html", data=made)
    assert "data:image/jpeg" in page.read_text()
    folder = made.save("runs/linear")
    assert run("report", folder, "--out", "with.html", "--images").code == 0
    assert "data:image/jpeg" in Path("with.html").read_text()


def test_the_data_set_of_a_cache_has_the_splits_of_the_cache(tmp_path: Path, cache: Path) -> None:
    """A label that is corrected in the table would draw other splits."""
    table = hospital(tmp_path, [*range(30)])
    stored = fc.extract(load(table, split=None), StubEncoder(), cache_dir=cache)
    text = table.read_text()
    for number in range(30):
        old = f"{number:03d}.png,{number % 2}"
        table.write_text(text.replace(old, f"{number:03d}.png,{1 - number % 2}"))
        if (load(table, split=None).images["split"] != stored.splits).any():
            break
    assert as_dataset(stored).images["split"].tolist() == stored.splits.tolist()


def test_the_command_prints_what_has_changed(run: Run, tmp_path: Path, cache: Path) -> None:
    table = hospital(tmp_path, [*range(6)])
    arguments = ["extract", "--model", "tiny", "--data-root", str(table), "--cache", str(cache)]
    arguments += ["--label-column", "Mass", "--patient-column", "patient"]
    arguments += ["--split-column", "split"]
    first = run(*arguments)
    assert "changed" not in first.stderr
    table.write_text(table.read_text().replace("002.png,0", "002.png,1"))
    assert "changed: label of 1 image\n" in run(*arguments).stderr
    header, *rows = table.read_text().split()
    rows = [f"{row},PA,{'F' if row.startswith('003') else ''},50" for row in rows]
    table.write_text("\n".join([f"{header},view,sex,age", *rows]))
    arguments += ["--view-column", "view", "--sex-column", "sex", "--age-column", "age"]
    changed = "changed: view of 6 images, sex of 1 image, age of 6 images\n"
    assert changed in run(*arguments).stderr
