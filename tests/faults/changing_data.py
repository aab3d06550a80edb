"""Data that change between any two commands: no result mixes what was before and after.

After each command, what it wrote is compared with the data as the trial knows them. A command may
refuse to continue instead, with an error of one or two lines.
"""

import contextlib
import csv
import io
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from tests.faults.commands import import_libraries

N_IMAGES, N_PICTURES = 24, 60
N_COMMANDS = 8
LABELS = ("Mass", "Edema")
MODEL, OTHER_MODEL = "dinov2-minilm", "tiny"
WEIGHTS = ("dinov2-small", "all-MiniLM-L6-v2")
PROMPTS = ("signs of {pathology}", "findings of {pathology}")
SPLITS = ("train", "val", "test")
QUICK = ("--n-bootstrap", 0)
TIME = 10**18
"""Modification time of every file, in nanoseconds: all files have the same size and time."""


@dataclass
class Image:
    """A row of the table, and the number of the picture in its file."""

    id: str
    path: str
    patient: str
    split: str
    labels: tuple[int, int]
    picture: int


@dataclass(frozen=True)
class Trained:
    """What a run or an alignment was trained on.

    Attributes:
        path: Its folder or file.
        weights: Version of the weights.
        pictures: Pictures of training and validation.
        patients: Their patients.
        scored: Picture of each scored image, by id.
        joined: Whether it takes the embeddings of both models.
    """

    path: str
    weights: int
    pictures: frozenset[int]
    patients: frozenset[str]
    scored: Mapping[str, int]
    joined: bool = False


@cache
def temporary_folder() -> Path:
    """Return a folder that is removed with the process."""
    folder = tempfile.TemporaryDirectory(prefix="changing-data-")
    _folders.append(folder)
    return Path(folder.name)


_folders: list[tempfile.TemporaryDirectory[str]] = []


@cache
def picture(number: int) -> bytes:
    """Return an image file; those of all numbers have the same size."""
    from PIL import Image as PillowImage

    pixels = np.random.default_rng(number).integers(0, 256, (6, 6), dtype=np.uint8)
    file = io.BytesIO()
    image = PillowImage.fromarray(pixels).resize((36, 36), PillowImage.Resampling.BILINEAR)
    image.save(file, format="PNG", compress_level=0)
    return file.getvalue()


@cache
def models(weights: int) -> Path:
    """Return a folder with one of two versions of the model's weights."""
    from tests import published

    folder = temporary_folder() / f"weights-{weights}"
    published.write_dinov2(folder / WEIGHTS[0], seed=2 + weights)
    published.write_bert(folder / WEIGHTS[1], seed=3)
    return folder


def write_prompts(path: Path, version: int) -> None:
    """Write the prompt set that is called "own" in all versions."""
    document = {"name": "own", "templates": [PROMPTS[version]], "negatives": ["no {pathology}"]}
    path.write_text(json.dumps(document))


def write_file(path: Path, number: int) -> None:
    """Write a picture, with the modification time of all files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(number))
    os.utime(path, ns=(TIME, TIME))


@dataclass(frozen=True)
class CommandResult:
    """What a command printed, and its exit code."""

    arguments: tuple[object, ...]
    code: int
    output: str
    stdout: str

    @property
    def done(self) -> bool:
        """Whether the command was not refused."""
        return self.code == 0


def run(folder: Path, *arguments: object, weights: Path | None = None) -> CommandResult:
    """Run a command in this process; a refusal has to be an error of one or two lines."""
    from featurecache.cli import main

    environment = {"FEATURECACHE_MODELS": str(weights or folder / "models"), "HF_HUB_OFFLINE": "1"}
    with contextlib.chdir(folder):
        outcome = CliRunner().invoke(main, [str(a) for a in arguments], env=environment)
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    result = CommandResult(arguments, outcome.exit_code, outcome.output, outcome.stdout)
    assert "Traceback" not in result.output, result
    if not result.done:
        assert result.code in (1, 2), result
        _, error, message = result.output.rpartition("error: ")
        assert error, result
        assert len(message.strip().splitlines()) <= 2, result
    return result


@cache
def fresh_extraction(model: str, weights: int, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Extract all pictures at once.

    Returns:
        Embeddings by picture, and those of the prompts by label.
    """
    from featurecache.store.reader import read_cache

    folder = temporary_folder() / f"fresh-{model}-{weights}-{prompts}"
    images = [
        Image(f"i{k:03d}", f"{k}.png", f"p{k}", "train", (k % 2, 0), k) for k in range(N_PICTURES)
    ]
    write_table(folder / "data", images, stated=True)
    write_prompts(folder / "own.json", prompts)
    for image in images:
        write_file(folder / "data" / image.path, image.picture)
    done = run(folder, *extract_command("data", model, stated=True), weights=models(weights))
    assert done.done, done
    stored = read_cache(folder / "cache" / "table" / f"{model}.h5")
    return np.array(stored.embedding), stored.text("own").positive.embedding


def write_table(folder: Path, images: Iterable[Image], *, stated: bool) -> None:
    """Write ``table.csv``, with a column of splits or without."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "path", "patient", *LABELS, *(["split"] if stated else [])])
        for image in images:
            split = [image.split] if stated else []
            table.writerow([image.id, image.path, image.patient, *image.labels, *split])


def data_options(data: str, *, stated: bool) -> tuple[str, ...]:
    """Return the options that load the table in a folder, with a column of splits or without."""
    columns = ["--id-column", "id", "--patient-column", "patient"]
    columns += [option for label in LABELS for option in ("--label-column", label)]
    columns += ["--split-column", "split"] * stated
    return ("--dataset", "csv", "--data-root", f"{data}/table.csv", *columns)


def extract_command(data: str, model: str, *, stated: bool) -> tuple[object, ...]:
    """Return the command that extracts the table in a folder."""
    # One image at a time, because the last bit depends on the others in a batch.
    settings = ("--prompts", "own.json", "--precision", "fp32", "--batch-size", 1)
    return ("extract", *data_options(data, stated=stated), "--model", model, *settings)


class Trial:
    """A folder with data that change, and what the commands made of them.

    Args:
        folder: An empty folder.
        seed: Decides what changes, and which commands run.

    Attributes:
        images: The data now.
        cached: By model, the data that its cache is of.
        shards: By number, the data that a shard is of.
        runs: Finished runs.
        alignments: Finished alignments.
        counts: Number of commands by name and whether they were refused.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.stated = bool(self.random.randrange(2))
        self.weights = self.prompts = self.dataset_seed = self.n_made = 0
        self.data, self.cache_dir, self.rehash = "data0", "cache0", False
        self.images = [self._new_image(f"p{k // 2:02d}") for k in range(N_IMAGES)]
        self.cached: dict[str, list[Image]] = {}
        self.cached_weights = self.cached_prompts = 0
        self.shards: dict[int, tuple[list[Image], int, int]] = {}
        self.runs: list[Trained] = []
        self.alignments: list[Trained] = []
        self.counts = Counter[str]()
        self.log: list[str] = []
        (folder / self.data).mkdir()
        for image in self.images:
            write_file(self._file(image), image.picture)
        write_table(folder / self.data, self.images, stated=self.stated)
        self._use_weights(0)
        write_prompts(folder / "own.json", 0)

    def _file(self, image: Image) -> Path:
        return self.folder / self.data / image.path

    def _new_picture(self) -> int:
        used = {image.picture for image in self.images} if hasattr(self, "images") else set()
        if not hasattr(self, "images"):
            return self.n_made
        return self.random.choice([k for k in range(N_PICTURES) if k not in used])

    def _new_image(self, patient: str) -> Image:
        number = self.n_made
        split = {"p00": "train", "p01": "val", "p02": "test"}.get(patient)
        if hasattr(self, "images"):
            of_patient = [image.split for image in self.images if image.patient == patient]
            split = of_patient[0] if of_patient else None
        labels = (self.random.randrange(2), self.random.randrange(2))
        image = Image(
            id=f"i{number:03d}",
            path=f"{number % 3}/{number:03d}.png",
            patient=patient,
            split=split or self._split_of(patient),
            labels=labels,
            picture=self._new_picture(),
        )
        self.n_made += 1
        return image

    def _split_of(self, patient: str) -> str:
        return SPLITS[(0, 0, 1, 2)[sum(patient.encode()) % 4]]

    def _use_weights(self, weights: int) -> None:
        shutil.rmtree(self.folder / "models", ignore_errors=True)
        shutil.copytree(models(weights), self.folder / "models")
        self.weights = weights

    # What changes. Every file keeps its size and modification time.

    def correct_label(self) -> None:
        image = self.random.choice(self.images)
        image.labels = (1 - image.labels[0], image.labels[1])

    def add_row(self) -> None:
        patients = [image.patient for image in self.images]
        new = f"p{100 + self.n_made}"
        image = self._new_image(self.random.choice([new, self.random.choice(patients)]))
        self.images.append(image)
        write_file(self._file(image), image.picture)

    def remove_row(self) -> None:
        self.images.remove(self.random.choice(self.images))

    def rename_patient(self) -> None:
        former = self.random.choice(self.images).patient
        self.n_made += 1
        for image in self.images:
            if image.patient == former:
                image.patient = f"p{100 + self.n_made}"

    def exchange_paths(self) -> None:
        first, second = self.random.sample(self.images, 2)
        first.path, second.path = second.path, first.path
        first.picture, second.picture = second.picture, first.picture

    def replace_file(self) -> None:
        image = self.random.choice(self.images)
        image.picture = self._new_picture()
        write_file(self._file(image), image.picture)
        self.rehash = True  # nothing else shows that the file has changed

    def move_folder(self) -> None:
        former = self.folder / self.data
        self.data = f"data{int(self.data[4:]) + 1}"
        former.rename(self.folder / self.data)

    def change_weights(self) -> None:
        self._use_weights(1 - self.weights)

    def change_prompts(self) -> None:
        self.prompts = 1 - self.prompts
        write_prompts(self.folder / "own.json", self.prompts)

    def change_split(self) -> None:
        if not self.stated:
            self.dataset_seed += 1
            return
        patient = self.random.choice(self.images).patient
        split = self.random.choice(SPLITS)
        for image in self.images:
            if image.patient == patient:
                image.split = split

    def other_hospital(self) -> None:
        """Extract another table with the same name, ids, paths, sizes and times: refused."""
        if MODEL not in self.cached or self.weights != self.cached_weights:
            return
        pictures = {image.picture for image in self.images + self.cached[MODEL]}
        others = [k for k in range(N_PICTURES) if k not in pictures]
        self.random.shuffle(others)
        cached = self.cached[MODEL]
        images = [
            replace(image, labels=(k % 2, 1), picture=k)
            for image, k in zip(cached, others, strict=False)
        ]
        if len(images) < len(cached):
            return
        other = self.folder / "other"
        shutil.rmtree(other, ignore_errors=True)
        write_table(other, images, stated=True)
        for image in images:
            write_file(other / image.path, image.picture)
        command = extract_command("other", MODEL, stated=True)
        result = run(self.folder, *command, "--cache", self.cache_dir)
        self.counts[f"extract other hospital {result.code}"] += 1
        assert result.code == 2, result
        self.check_cache(MODEL)

    # The commands.

    def extract(self, model: str = MODEL) -> None:
        options = ["--cache", self.cache_dir, "--dataset-seed", self.dataset_seed]
        options += ["--rehash"] * self.rehash
        command = (*extract_command(self.data, model, stated=self.stated), *options)
        result = self._run(*command)
        lacks = {image.id for image in self.cached.get(model, [])} - {i.id for i in self.images}
        if not result.done and "`prune`" in result.output.replace("--prune", "`prune`"):
            self.check_cache(model)
            result = self._run(*command, "--prune")
        elif result.done:
            assert not lacks, f"lost {lacks}: {result}"
        if not result.done:
            self.check_cache(model)
            if model == MODEL and model in self.cached and self.weights != self.cached_weights:
                # As the message says: another folder of caches.
                self.cache_dir = f"cache{int(self.cache_dir[5:]) + 1}"
                self.cached, self.shards = {}, {}
            return
        former = {image.patient: image.split for image in self.cached.get(model, [])}
        from featurecache.store.reader import read_cache

        stored = read_cache(self._cache(model))
        split_of = dict(zip(stored.ids.tolist(), stored.splits.tolist(), strict=True))
        images = deepcopy(self.images)
        if not self.stated:
            for image in images:
                image.split = split_of[image.id]
            if f"seed {self.dataset_seed}" in self.log[-1:]:
                now = {image.patient: image.split for image in images}
                moved = [p for p in former if now.get(p, former[p]) != former[p]]
                assert not moved, f"{moved} moved to another split: {result}"
        self.log.append(f"seed {self.dataset_seed}")
        self.cached[model] = images
        if model == MODEL:
            self.cached_weights, self.cached_prompts = self.weights, self.prompts
        self.check_cache(model)

    def extract_other_model(self) -> None:
        self.extract(OTHER_MODEL)

    def extract_shard(self) -> None:
        number = self.random.choice([k for k in (1, 2) if k not in self.shards] or [1, 2])
        options = ["--shard", f"{number}/2", "--cache", self.cache_dir]
        options += ["--dataset-seed", self.dataset_seed, "--prune"] + ["--rehash"] * self.rehash
        if self._run(*extract_command(self.data, MODEL, stated=self.stated), *options).done:
            self.shards[number] = deepcopy(self.images), self.weights, self.prompts

    def merge(self) -> None:
        from featurecache.store.reader import read_cache

        if len(self.shards) < 2:
            self.extract_shard()
            return
        (self.folder / "merged.h5").unlink(missing_ok=True)
        files = [self._cache(f"{MODEL}.{number}-of-2") for number in (1, 2)]
        names = [file.relative_to(self.folder) for file in files]
        if not self._run("cache", "merge", *names, "--out", "merged.h5").done:
            return
        (first, *versions), (second, *other_versions) = self.shards[1], self.shards[2]
        assert versions == other_versions, "shards of two versions were merged"
        merged = read_cache(self.folder / "merged.h5")
        images = []
        order = sorted(range(len(first)), key=lambda k: first[k].id)
        for position, k in enumerate(order):
            images.append((first, second)[position % 2][k])
            # Only a file that was replaced without a trace may be an older one.
            now = replace(second[k], picture=0, split="")
            assert replace(first[k], picture=0, split="") == now, "a mixture was merged"
        self._check_content(merged, images, MODEL, *versions)

    def train_head(self) -> None:
        if MODEL not in self.cached:
            self.extract()
            return
        head = self.random.choice(["prototype", "linear", "weighted_sum"])
        caches = [self._cache(MODEL)]
        if OTHER_MODEL in self.cached and self.random.randrange(2):
            caches.append(self._cache(OTHER_MODEL))
            head = "prototype"
        paths = [o for path in caches for o in ("--cache", path.relative_to(self.folder))]
        out = self._new("run")
        options = ["--epochs", 2] if head == "weighted_sum" else []
        command = ("train-head", "--head", head, *paths, "--out", out, "--no-controls", *QUICK)
        result = self._run(*command, *options)
        if not result.done:
            return
        images = self.cached[MODEL]
        if len(caches) > 1:
            shared = {image.id: image for image in self.cached[OTHER_MODEL]}
            images = [image for image in images if image.id in shared]
            assert all(
                replace(image, path="") == replace(shared[image.id], path="") for image in images
            ), f"caches of different data were joined: {result}"
        self._add_run(out, images, self.cached_weights, joined=len(caches) > 1)

    def finetune(self) -> None:
        out = self._new("tuned")
        settings = ("--objective", "bce", "--trainable", "head", "--epochs", 1, "--batch-size", 8)
        data = data_options(self.data, stated=self.stated)
        command = ("finetune", *data, "--model", WEIGHTS[0], *settings, "--out", out)
        result = self._run(*command, "--precision", "fp32", *QUICK)
        if not result.done:
            return
        images = self.images
        if not self.stated:
            split_of = self._splits_of_run(out, images)
            images = [replace(image, split=split_of[image.id]) for image in images]
        self._add_run(out, images, self.weights)

    def evaluate(self) -> None:
        run = self._any(self.runs)
        if run is None or MODEL not in self.cached or run.path.startswith("tuned"):
            self.train_head()
            return
        caches = ["--cache", self._cache(MODEL).relative_to(self.folder)]
        if run.joined and OTHER_MODEL in self.cached:
            caches += ["--cache", self._cache(OTHER_MODEL).relative_to(self.folder)]
        out = self._new("evaluated")
        result = self._run("evaluate", run.path, *caches, "--out", out, *QUICK)
        if result.done:
            assert run.weights == self.cached_weights, f"other weights were evaluated: {result}"
            self._check_scored(out, self.cached[MODEL], run, result)

    def predict(self) -> None:
        run = self._any(self.runs)
        if run is None or run.joined:
            self.train_head()
            return
        out = self._new("predicted") + ".csv"
        result = self._run(
            "predict", run.path, f"{self.data}/table.csv", "--id-column", "id", "--out", out
        )
        if not result.done:
            return
        if not run.path.startswith("tuned"):
            assert run.weights == self.weights, f"other weights predicted: {result}"
            self._check_predictions(run, out)

    def zero_shot(self) -> None:
        alignment = self._any(self.alignments)
        if alignment is None or MODEL not in self.cached:
            self.align()
            return
        out = self._new("zero")
        cache = self._cache(MODEL).relative_to(self.folder)
        options = ("--alignment", alignment.path, "--out", out, *QUICK)
        result = self._run("zero-shot", "--cache", cache, *options)
        if result.done:
            assert alignment.weights == self.cached_weights, f"other weights: {result}"
            self._check_scored(out, self.cached[MODEL], alignment, result)
            self._add_run(out, self.cached[MODEL], self.cached_weights, trained=False)

    def align(self) -> None:
        if MODEL not in self.cached:
            self.extract()
            return
        out = self._new("alignment") + ".safetensors"
        cache = self._cache(MODEL).relative_to(self.folder)
        if self._run("align", "--cache", cache, "--out", out).done:
            images = [image for image in self.cached[MODEL] if image.split != "test"]
            self.alignments.append(self._trained(out, images, self.cached_weights, {}))

    def retrieve(self) -> None:
        if MODEL not in self.cached:
            self.extract()
            return
        images = {image.id: image for image in self.cached[MODEL]}
        query = self.random.choice(list(images))
        cache = self._cache(MODEL).relative_to(self.folder)
        result = self._run("retrieve", "--image", query, "--cache", cache, "--top", 5, "--json")
        if not result.done:
            return
        embedding = self._fresh(MODEL, self.cached_weights).astype(np.float64)
        units = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        for hit in json.loads(result.stdout)["images"]:
            image = images[hit["id"]]
            cosine = units[image.picture] @ units[images[query].picture]
            assert abs(hit["cosine"] - cosine) < 1e-5, (hit, image, result)
            labels = [label for label, value in zip(LABELS, image.labels, strict=True) if value]
            expected = (image.patient, image.split, labels)
            assert (hit["patient"], hit["split"], hit["labels"]) == expected, (hit, image)

    def audit(self) -> None:
        if MODEL not in self.cached:
            self.extract()
            return
        cache = self._cache(MODEL).relative_to(self.folder)
        options = ["--images"] * self.random.randrange(2)
        result = self._run("audit", "--cache", cache, "--json", *QUICK, *options)
        if not result.done:
            return
        # A file that was replaced without a trace is noticed only if it is hashed.
        if options and not self.rehash:
            assert self._files_are_those_cached(), f"other files were read: {result}"

    def report(self) -> None:
        if len(self.runs) < 2:
            self.train_head()
            return
        first, second = self.random.sample(self.runs, 2)
        page = self._new("page") + ".html"
        options = ["--images"] * self.random.randrange(2)
        result = self._run("report", first.path, second.path, "--out", page, *options)
        if not result.done:
            return
        text = (self.folder / page).read_text()
        same_ids = first.scored.keys() == second.scored.keys()
        if same_ids and first.scored != second.scored:
            assert "cannot be compared" in text, f"different images were compared: {result}"
        shown = {image.id: image.picture for image in self.images}
        if options:
            assert all(shown.get(image) == number for image, number in first.scored.items()), (
                f"other files are shown: {result}"
            )

    # What is checked.

    def check_cache(self, model: str) -> None:
        """Check that a cache is that of a fresh extraction of the data that it is of."""
        from featurecache.store.reader import read_cache

        if model not in self.cached:
            return
        stored = read_cache(self._cache(model))
        weights, prompts = self.cached_weights, self.cached_prompts
        self._check_content(stored, self.cached[model], model, weights, prompts)

    def _check_content(
        self, stored: object, images: list[Image], model: str, weights: int, prompts: int
    ) -> None:
        images = sorted(images, key=lambda image: image.id)
        assert stored.ids.tolist() == [image.id for image in images]
        pictures = [image.picture for image in images]
        embedding = self._fresh(model, weights)[pictures]
        same = (np.array(stored.embedding) == embedding).all(axis=1)
        assert same.all(), f"embeddings of {stored.ids[~same]} are not those of their files"
        assert stored.labels.values.tolist() == [list(image.labels) for image in images]
        assert stored.patients.tolist() == [image.patient for image in images]
        if self.stated:
            assert stored.splits.tolist() == [image.split for image in images]
        splits = set(zip(stored.patients.tolist(), stored.splits.tolist(), strict=True))
        assert len(splits) == len({patient for patient, _ in splits}), "a patient is in two splits"
        if model == MODEL:
            texts = fresh_extraction(model, weights, prompts)[1]
            assert np.array_equal(stored.text("own").positive.embedding, texts)

    def _check_scored(
        self, out: str, images: list[Image], trained: Trained, result: CommandResult
    ) -> None:
        """Check that what was scored was not trained on."""
        by_id = {image.id: image for image in images}
        scored = [by_id[image] for image in self._scored_ids(out, images)]
        seen = [image.id for image in scored if image.picture in trained.pictures]
        assert not seen, f"training images {seen} were scored: {result}"
        if {image.patient for image in scored} & trained.patients:
            metrics = json.loads((self.folder / out / "metrics.json").read_text())
            assert any("same names" in warning for warning in metrics["warnings"]), result

    def _check_predictions(self, run: Trained, out: str) -> None:
        from featurecache.runs.run import load_run

        model = load_run(self.folder / run.path).model
        with (self.folder / out).open(newline="") as file:
            rows = {row["image"]: row for row in csv.DictReader(file)}
        assert rows.keys() == {image.id for image in self.images}
        embedding = self._fresh(MODEL, self.weights)
        for image in self.images:
            (expected,) = model.probabilities(embedding[[image.picture]])
            for label, value, learned in zip(model.labels, expected, model.learned, strict=True):
                if learned:
                    assert abs(float(rows[image.id][f"{label} probability"]) - value) < 1e-5

    def _scored_ids(self, out: str, images: list[Image]) -> list[str]:
        """Return the scored images of a run, after checking their labels."""
        labels = {image.id: image.labels for image in images}
        with (self.folder / out / "predictions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            truth = tuple(int(float(row[f"{label} truth"])) for label in LABELS)
            assert truth == labels[row["id"]], (row, labels[row["id"]])
        metrics = json.loads((self.folder / out / "metrics.json").read_text())
        return [row["id"] for row in rows if metrics["split"] in ("all", row["split"])]

    def _splits_of_run(self, out: str, images: list[Image]) -> Mapping[str, str]:
        with (self.folder / out / "predictions.csv").open(newline="") as file:
            split_of = {row["id"]: row["split"] for row in csv.DictReader(file)}
        return {image.id: split_of.get(image.id, "train") for image in images}

    def _add_run(
        self,
        out: str,
        images: list[Image],
        weights: int,
        *,
        trained: bool = True,
        joined: bool = False,
    ) -> None:
        """Check what a run was trained on, and keep it for later commands."""
        picture_of = {image.id: image.picture for image in images}
        scored = {image: picture_of[image] for image in self._scored_ids(out, images)}
        learned = [image for image in images if trained and image.split != "test"]
        if trained:
            document = json.loads((self.folder / out / "provenance.json").read_text())
            records = document["trained_on"]["table"]
            hashes = {_sha256(image.picture) for image in learned}
            assert set(records["sha256"]) == hashes, "the record of training images is wrong"
        self.runs.append(replace(self._trained(out, learned, weights, scored), joined=joined))

    def _trained(
        self, path: str, images: list[Image], weights: int, scored: Mapping[str, int]
    ) -> Trained:
        pictures = frozenset(image.picture for image in images)
        patients = frozenset(image.patient for image in images)
        return Trained(path, weights, pictures, patients, scored)

    def _files_are_those_cached(self) -> bool:
        now = {image.id: image.picture for image in self.images}
        return all(now.get(image.id) == image.picture for image in self.cached[MODEL])

    def _fresh(self, model: str, weights: int) -> np.ndarray:
        return fresh_extraction(model, weights if model == MODEL else 0, 0)[0]

    def _cache(self, model: str) -> Path:
        return self.folder / self.cache_dir / "table" / f"{model}.h5"

    def _new(self, name: str) -> str:
        self.n_made += 1
        return f"{name}{self.n_made}"

    def _any(self, made: list[Trained]) -> Trained | None:
        return self.random.choice(made) if made else None

    def _run(self, *arguments: object) -> CommandResult:
        result = run(self.folder, *arguments)
        self.log.append(f"{result.code} {' '.join(map(str, arguments))}")
        self.counts[f"{arguments[0]} {'done' if result.done else 'refused'}"] += 1
        if not result.done:
            self.log.append(result.output[result.output.rfind("error: ") :].strip())
        return result


def _sha256(number: int) -> str:
    import hashlib

    return hashlib.sha256(picture(number)).hexdigest()


CHANGES: tuple[Callable[[Trial], None], ...] = (
    Trial.correct_label,
    Trial.add_row,
    Trial.remove_row,
    Trial.rename_patient,
    Trial.exchange_paths,
    Trial.replace_file,
    Trial.move_folder,
    Trial.change_weights,
    Trial.change_prompts,
    Trial.change_split,
    Trial.other_hospital,
)
COMMANDS: tuple[Callable[[Trial], None], ...] = (
    *(Trial.extract,) * 4,
    Trial.extract_other_model,
    *(Trial.extract_shard,) * 2,
    *(Trial.merge,) * 2,
    *(Trial.train_head,) * 2,
    *(Trial.evaluate,) * 2,
    Trial.align,
    Trial.zero_shot,
    Trial.retrieve,
    Trial.audit,
    Trial.finetune,
    Trial.report,
    Trial.predict,
)


def change_data(seed: int, folder: Path, n_commands: int = N_COMMANDS) -> str:
    """Run commands in random order, and change the data between any two of them."""
    import_libraries()
    trial = Trial(folder, seed)
    try:
        for number in range(n_commands):
            if number:
                change = trial.random.choice(CHANGES)
                trial.log.append(f"-- {change.__name__}")
                change(trial)
                write_table(folder / trial.data, trial.images, stated=trial.stated)
            command = Trial.extract if not number else trial.random.choice(COMMANDS)
            trial.log.append(f"-- {command.__name__}")
            command(trial)
    except Exception:
        print("\n".join(trial.log))
        raise
    TOTAL.update(trial.counts)
    return "no mixture"


TOTAL = Counter[str]()
FAULTS = {"data changed between commands": change_data}
