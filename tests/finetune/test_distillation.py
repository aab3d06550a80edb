"""Learning from a teacher's embeddings in addition to the objective."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from featurecache.encoders.loading import load_encoder
from featurecache.errors import RunError, UsageError
from featurecache.extraction.crash_journal import CrashJournal
from featurecache.finetune import training
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.distillation import Distillation, Teacher, teacher_embeddings
from featurecache.finetune.run import train_encoder
from featurecache.images.decode import read_image
from featurecache.provenance.provenance import Provenance

CONTRASTIVE = FinetuneConfig(
    "contrastive", learning_rate=5e-4, epochs=2, batch_size=16, head_learning_rate=1e-2
)


def test_loss_is_mean_squared_error_on_standardized_targets():
    rng = np.random.default_rng(0)
    targets = rng.normal(5.0, 3.0, (6, 4)).astype(np.float32)
    targets[4] = np.nan
    torch.manual_seed(0)
    distillation = Distillation(targets, dim=3, weight=0.5)
    embedding = torch.randn(2, 3)
    known = np.delete(targets, 4, axis=0)
    wanted = (targets[[1, 5]] - known.mean(axis=0)) / known.std(axis=0)
    unit = embedding / embedding.norm(dim=1, keepdim=True)
    fitted = unit @ distillation.projection.weight.T + distillation.projection.bias
    expected = 0.5 * ((fitted.detach().numpy() - wanted) ** 2).mean()
    assert distillation.loss(embedding, np.array([1, 5])).item() == pytest.approx(
        expected, rel=1e-5
    )
    # A row without a target is ignored.
    wider = torch.cat([embedding, torch.randn(1, 3)])
    assert distillation.loss(wider, np.array([1, 5, 4])).item() == pytest.approx(expected, rel=1e-5)
    assert distillation.loss(wider[:1], np.array([4])).item() == 0


def test_constant_target_does_not_divide_by_zero():
    distillation = Distillation(np.ones((3, 2), dtype=np.float32), dim=2, weight=1.0)
    assert torch.isfinite(distillation.loss(torch.ones(3, 2), np.arange(3)))


def test_teacher_embeddings_are_kept_and_reused(dataset, vision, tmp_path):
    rows = dataset.rows("train")[:5]
    file = tmp_path / "teacher.npy"
    ask = partial(teacher_embeddings, file=file, workers=1, journal=CrashJournal([]))
    embeddings = ask(Teacher(vision, rows), dataset, dataset.rows("train"))
    pixels = [vision.preprocess(read_image(dataset.root / dataset.images["path"][r])) for r in rows]
    assert np.allclose(embeddings[rows], vision.embed_pixels(np.stack(pixels)), atol=1e-5)
    assert np.isnan(np.delete(embeddings, rows, axis=0)).all()
    assert np.array_equal(ask(Teacher(None), dataset, rows), embeddings, equal_nan=True)


def test_student_learns_to_predict_teacher_embeddings(dataset, clip, vision, tmp_path):
    def fit(weight, target):
        """Return R^2 on test of a linear map from the student's to the teacher's embedding."""
        config = dataclasses.replace(CONTRASTIVE, epochs=16, patience=16, teacher_weight=weight)
        train_encoder(dataset, clip, config, target=target, teacher=Teacher(vision), n_bootstrap=0)
        encoder = load_encoder(str(target), device="cpu")

        def embed(model):
            images = [
                model.preprocess(read_image(dataset.root / path)) for path in dataset.images["path"]
            ]
            return model.embed_pixels(np.stack(images)).astype(np.float64)

        student, teacher = embed(encoder), embed(vision)
        student /= np.linalg.norm(student, axis=1, keepdims=True)
        train, test = dataset.rows("train"), dataset.rows("test")
        design = np.column_stack([student, np.ones(len(student))])
        fitted = design @ np.linalg.lstsq(design[train], teacher[train], rcond=1e-2)[0]
        error = ((fitted - teacher)[test] ** 2).sum()
        return 1 - error / ((teacher[test] - teacher[train].mean(axis=0)) ** 2).sum()

    assert fit(10.0, tmp_path / "much") > fit(1e-6, tmp_path / "little")


def test_what_the_teacher_learned_is_checked_and_recorded(dataset, clip, vision, tmp_path):
    config = dataclasses.replace(CONTRASTIVE, epochs=1)
    train = partial(
        train_encoder, dataset, clip, config, target=tmp_path / "run", teacher=Teacher(vision)
    )
    vision.provenance = Provenance(trained_on={"clinic": dataset.records(dataset.rows("test"))})
    with pytest.raises(UsageError, match=f"{vision.name} was trained on 16 of the 16 images"):
        train(n_bootstrap=0)
    other = dataclasses.replace(dataset.records(dataset.rows("test")[:3]), collection="other")
    vision.provenance = Provenance(("clinic",), {"other": other})
    run = train(n_bootstrap=0)
    assert any("possible CLINIC exposure" in text for text in run.warnings)
    assert set(run.provenance.trained_on) == {"clinic", "other"}
    assert run.provenance.exposed_to == ("clinic",)
    assert len(run.provenance.trained_on["other"]) == 3


def test_killed_training_continues_and_other_teacher_is_refused(
    dataset, clip, vision, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    whole = tmp_path / "whole"
    train_encoder(dataset, clip, CONTRASTIVE, target=whole, teacher=Teacher(vision), n_bootstrap=0)

    class KilledError(Exception):
        pass

    def kill(done, total, detail):
        if detail == "epoch 2":
            raise KilledError

    killed = tmp_path / "killed"
    with pytest.raises(KilledError):
        train_encoder(
            dataset,
            clip,
            CONTRASTIVE,
            target=killed,
            teacher=Teacher(vision),
            n_bootstrap=0,
            progress=kill,
        )
    with pytest.raises(RunError, match="teacher"):
        train_encoder(dataset, clip, CONTRASTIVE, target=killed, n_bootstrap=0)
    train_encoder(dataset, clip, CONTRASTIVE, target=killed, teacher=Teacher(vision), n_bootstrap=0)
    for name in ("encoder/model.safetensors", "history.csv", "predictions.csv"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
