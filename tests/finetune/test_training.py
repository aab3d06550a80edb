"""The training loop: learning, continuing after a kill, frozen parts, and early errors."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from featurecache.encoders.loading import load_encoder
from featurecache.errors import FeaturecacheError, RunError, UsageError
from featurecache.extraction.crash_journal import CrashJournal
from featurecache.finetune import training
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.dataloader import ImageLoader
from featurecache.finetune.training import Trainer
from featurecache.finetune.training_state import TrainingState

BCE = FinetuneConfig("bce", learning_rate=1e-3, head_learning_rate=1e-2, epochs=4, batch_size=16)
CONTRASTIVE = FinetuneConfig("contrastive", learning_rate=5e-4, epochs=4, batch_size=16)


class KilledError(Exception):
    """Stands for a kill; raised by the progress callback."""


def trainer(dataset, encoder, config):
    return Trainer(
        dataset, encoder, config, images=ImageLoader(dataset, encoder, 2, CrashJournal([]))
    )


def train(dataset, encoder, config, target, *, kill_at=None):
    made = trainer(dataset, encoder, config)

    def progress(done, total, detail):
        if kill_at is not None and done >= kill_at and detail.startswith("epoch"):
            raise KilledError

    state = TrainingState(target, dataclasses.asdict(config))
    return made.run(state, progress)


def weights(result):
    state = {f"encoder.{k}": v.clone() for k, v in result.encoder.module.state_dict().items()}
    if result.head is not None:
        state |= {f"head.{k}": v.clone() for k, v in result.head.state_dict().items()}
    return state


@pytest.mark.parametrize("config", [BCE, CONTRASTIVE], ids=["bce", "contrastive"])
def test_training_lowers_validation_loss(dataset, clip, config, tmp_path):
    longer = dataclasses.replace(config, epochs=8, patience=8, augment=False)
    result = train(dataset, clip, longer, tmp_path / "run")
    losses = [epoch.val_loss for epoch in result.history]
    assert min(losses) < 0.9 * losses[0]
    assert result.best_epoch == 1 + int(np.argmin(losses))


@pytest.fixture(scope="module", params=[BCE, CONTRASTIVE], ids=["bce", "contrastive"])
def undisturbed(request, dataset, tiny_clip, tmp_path_factory):
    """The settings of a training of nine steps, and its result."""
    config = dataclasses.replace(request.param, epochs=3)
    clip = load_encoder(str(tiny_clip), device="cpu")
    return config, train(dataset, clip, config, tmp_path_factory.mktemp("undisturbed") / "whole")


@pytest.mark.parametrize("kill_at", [1, 5, 9])
def test_killed_training_ends_with_same_weights(
    dataset, clip, undisturbed, kill_at, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    config, undisturbed = undisturbed
    with pytest.raises(KilledError):
        train(dataset, clip, config, tmp_path / "killed", kill_at=kill_at)
    resumed = train(dataset, clip, config, tmp_path / "killed")
    assert resumed.history == undisturbed.history
    expected, found = weights(undisturbed), weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_contrastive_objective_ignores_unknown_labels(dataset, clip, part_of, tmp_path):
    labels = dataset.label_values.copy()
    labels[::3, 1] = -1
    labels[1::7] = -1
    known = part_of(np.arange(80), labels)
    result = train(known, clip, dataclasses.replace(CONTRASTIVE, epochs=1), tmp_path / "run")
    assert np.isfinite(result.history[0].val_loss)
    objective = trainer(known, clip, CONTRASTIVE).learner.objective
    nothing = np.flatnonzero((labels == -1).all(axis=1))[:2]
    with torch.inference_mode():
        assert objective.loss(torch.eye(2, 24), nothing) == 0


def test_micro_batches_do_not_change_gradient(dataset, clip):
    def gradients(micro_batch_size):
        made = trainer(dataset, clip, CONTRASTIVE)
        # In double precision: attention does not depend on the bias of its keys, so in single
        # precision that gradient is pure rounding error.
        made.learner.encoder.module.double()
        rows, pixels = next(made.images.batches(made.train_rows, 16))
        parts = pixels.double().split(micro_batch_size)
        chunks = [partial(made.learner.encoder.embed_images, part) for part in parts]
        made.learner.objective.backward(chunks, rows, seed=(0,))
        named = made.learner.encoder.module.named_parameters()
        return {name: p.grad for name, p in named if p.grad is not None}

    whole, parts = gradients(16), gradients(3)
    assert whole.keys() == parts.keys()
    assert "logit_scale" in whole
    for name, expected in whole.items():
        assert torch.allclose(parts[name], expected, rtol=1e-5, atol=1e-9), name


@pytest.mark.parametrize("part", ["vision", "last-1", "head"])
def test_frozen_parameters_do_not_change(dataset, clip, part, tmp_path):
    before = {k: v.clone() for k, v in clip.trainable().module.state_dict().items()}
    config = dataclasses.replace(CONTRASTIVE, trainable=part, epochs=1)
    result = train(dataset, clip, config, tmp_path / "run")
    after = result.encoder.module.state_dict()
    moving = {k for k, p in result.encoder.module.named_parameters() if p.requires_grad}
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= moving
    assert "logit_scale" in moved
    assert any("text_model" in name for name in before)
    assert not any("text_model" in name for name in moved)


def test_train_size_limits_training_images(dataset, clip):
    small = trainer(dataset, clip, dataclasses.replace(BCE, train_size=20))
    assert len(set(small.train_rows)) == 20
    assert set(small.train_rows) <= set(dataset.rows("train"))
    with pytest.raises(UsageError, match="`train_size` 49 is more than the 48"):
        trainer(dataset, clip, dataclasses.replace(BCE, train_size=49))


def test_seed_decides_weights(dataset, clip, tmp_path):
    one = train(dataset, clip, dataclasses.replace(BCE, epochs=1), tmp_path / "a")
    other = train(dataset, clip, dataclasses.replace(BCE, epochs=1, seed=1), tmp_path / "b")
    assert not torch.equal(weights(one)["head.1.weight"], weights(other)["head.1.weight"])


def test_training_stops_early_and_keeps_best_epoch(dataset, clip, tmp_path):
    wild = dataclasses.replace(
        BCE, learning_rate=5.0, head_learning_rate=5.0, warmup_ratio=0.0, epochs=30, patience=2
    )
    result = train(dataset, clip, wild, tmp_path / "run")
    assert len(result.history) == result.best_epoch + 2 < 30


def test_training_never_reads_test_images(dataset, clip, tmp_path):
    stream = ImageLoader(dataset, clip, 1, CrashJournal([]))
    read = []
    batches = stream.batches

    def record(rows, size):
        read.extend(rows.tolist())
        return batches(rows, size)

    stream.batches = record
    config = dataclasses.replace(BCE, epochs=1)
    made = Trainer(dataset, clip, config, images=stream)
    made.run(TrainingState(tmp_path / "run", {}))
    assert set(read) == {*dataset.rows("train"), *dataset.rows("val")}


def test_continuing_with_other_settings_is_refused(dataset, clip, tmp_path):
    with pytest.raises(KilledError):
        train(dataset, clip, BCE, tmp_path / "run", kill_at=4)
    with pytest.raises(RunError, match=r"learning_rate: 0\.001 against 0\.01"):
        train(dataset, clip, dataclasses.replace(BCE, learning_rate=1e-2), tmp_path / "run")


def test_damaged_state_is_refused(dataset, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    with pytest.raises(KilledError):
        train(dataset, clip, BCE, tmp_path / "run", kill_at=4)
    last = tmp_path / "run.parts" / "last.pt"
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(RunError, match="is damaged: delete"):
        train(dataset, clip, BCE, tmp_path / "run")
    (tmp_path / "run.parts/settings.json").write_text("{")
    with pytest.raises(RunError, match=r"settings\.json is damaged"):
        train(dataset, clip, BCE, tmp_path / "run")


def test_impossible_trainings_are_refused(dataset, clip, vision, part_of):
    with pytest.raises(UsageError, match="needs a text tower"):
        trainer(dataset, vision, CONTRASTIVE)
    with pytest.raises(UsageError, match="no validation images"):
        trainer(part_of(dataset.rows("train")), clip, BCE)
    with pytest.raises(UsageError, match="`batch_size` 64 is more than the 48 training"):
        trainer(dataset, clip, dataclasses.replace(BCE, batch_size=64))
    nothing = np.zeros((80, 2), dtype=np.int8)
    with pytest.raises(UsageError, match="no training image is positive"):
        trainer(part_of(np.arange(80), nothing), clip, BCE)
    with pytest.raises(UsageError, match="true of all training images or of none"):
        trainer(part_of(np.arange(80), nothing), clip, CONTRASTIVE)
    with pytest.raises(UsageError, match="last-9"):
        trainer(dataset, clip, dataclasses.replace(BCE, trainable="last-9"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),  # on a processor
    ],
)
def test_out_of_memory_error_gives_advice(dataset, clip, tmp_path, monkeypatch, error):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(Trainer, "_train_step", fail)
    with pytest.raises(FeaturecacheError, match="give a smaller `micro_batch_size`"):
        train(dataset, clip, BCE, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unreadable_images_are_left_out_and_recorded(dataset, clip, part_of, tmp_path):
    broken = dataclasses.replace(
        dataset, images=dataset.images.assign(path=["missing.png", *dataset.images["path"][1:]])
    )
    stream = ImageLoader(broken, clip, 1, CrashJournal([]))
    config = dataclasses.replace(BCE, epochs=1)
    made = Trainer(broken, clip, config, images=stream)
    made.run(TrainingState(tmp_path / "run", {}))
    assert stream.failures == {"000.png": "missing: no such file"}


def test_unreadable_batch_is_empty(dataset, clip):
    gone = dataset.images["path"].where(dataset.images.index != 1, "missing.png")
    broken = dataclasses.replace(dataset, images=dataset.images.assign(path=gone))
    batches = list(ImageLoader(broken, clip, 1, CrashJournal([])).batches(np.arange(3), 1))
    assert [rows.tolist() for rows, _ in batches] == [[0], [], [2]]


def test_failed_image_is_not_read_again(dataset, clip, monkeypatch):
    from featurecache.extraction import decode

    names, read_file = [], decode.read_file

    def counted(path):
        names.append(path.name)
        return read_file(path)

    monkeypatch.setattr(decode, "read_file", counted)
    gone = dataset.images["path"].where(dataset.images.index != 2, "missing.png")
    broken = dataclasses.replace(dataset, images=dataset.images.assign(path=gone))
    stream = ImageLoader(broken, clip, 1, CrashJournal([]))
    order = np.array([3, 2, 0, 1])
    for _ in range(3):
        batches = [rows.tolist() for rows, _ in stream.batches(order, 2)]
        assert batches == [[3], [0, 1]]
    assert names.count("missing.png") == 1
    assert len(names) == 1 + 3 * 3


def test_global_generator_is_untouched(dataset, clip, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(dataset, clip, dataclasses.replace(BCE, epochs=1), tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)
