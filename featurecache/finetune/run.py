"""Fine-tune, measure and save: the whole path from images to a run folder.

config.json        everything needed to repeat it
encoder/           a normal Hugging Face folder: the fine-tuned encoder
head.safetensors   of the BCE objective
provenance.json    the images that the encoder has learned from
metrics.json, predictions.csv, history.csv
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from featurecache.errors import RunError
from featurecache.evaluation.controls import random_features, untrained_controls
from featurecache.evaluation.evaluate import caveats, evaluate
from featurecache.evaluation.split_data import SplitData
from featurecache.extraction.crash_journal import CrashJournal
from featurecache.extraction.provenance import provenance_for
from featurecache.finetune.checkpoint import bookmarks_of, finetune_lock, unfinished
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.dataloader import ImageStream
from featurecache.finetune.distillation import Teacher, teacher_embeddings
from featurecache.finetune.io import KIND, WEIGHTS, caption_scores, label_captions
from featurecache.finetune.training import (
    Finetuned,
    Trainer,
    open_checkpoint,
)
from featurecache.io.atomic import require_absent
from featurecache.metrics.metrics import Metrics
from featurecache.progress import DetailedProgress
from featurecache.provenance import base_name
from featurecache.runs.folder import run_kind
from featurecache.runs.predictions import Predictions
from featurecache.runs.run import Run, write_run

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning gave.

    Attributes:
        metrics: the document of ``metrics.json``.
        best_epoch: by validation loss.
        failures: image id to the reason why it was left out.
    """

    metrics: Metrics
    best_epoch: int
    failures: Mapping[str, str]


def finetune(
    manifest: "Dataset",
    encoder: "Encoder",
    config: FinetuneConfig,
    *,
    target: Path,
    workers: int = 2,
    n_bootstrap: int = 1000,
    teacher: Teacher | None = None,
    progress: DetailedProgress | None = None,
) -> FinetuneResult:
    """Train an encoder on the images of a manifest and write a run folder.

    Killed at any moment, be it by a decoder that crashes, the same call goes on from the last saved
    step, and on a CPU ends with the same weights as an undisturbed one. The epoch is chosen by
    validation loss; the test images are read once, at the end.

    Args:
        manifest: images, labels and splits.
        encoder: where to start from.
        config: settings.
        target: the run folder to make.
        workers: decoding threads.
        n_bootstrap: number of bootstrap samples over patients.
        teacher: an encoder whose image embeddings it learns from as well.
        progress: told how far it is.

    Raises:
        UsageError: the settings do not fit the encoder or the data, something is at ``target``, or
            another process is at work on it.
        RunError: an unfinished fine-tuning for ``target`` has other settings.
        FeaturecacheError: images cannot be read at all, or memory runs out.
    """
    with finetune_lock(target), ExitStack() as stack:
        require_unfinished(target)
        ids = manifest.images["id"].to_numpy(dtype=np.str_)
        known = provenance_for(manifest, encoder)
        known.require_unseen(manifest.collection, ids[manifest.rows("test")].tolist())
        bookmarks = stack.enter_context(closing(CrashJournal([bookmarks_of(target)])))
        images = ImageStream(manifest, encoder, workers, bookmarks)
        trainer = Trainer(manifest, encoder, config, images=images)
        checkpoint = open_checkpoint(target, manifest, encoder, config, teacher)
        if teacher is not None:
            file = checkpoint.folder / "teacher.npy"
            trainer.learn_from(
                teacher_embeddings(
                    teacher,
                    manifest,
                    trainer.train,
                    file=file,
                    workers=workers,
                    bookmarks=bookmarks,
                    progress=progress,
                )
            )
        result = trainer.run(checkpoint, progress)
        rows, embedding = trainer.embed(
            np.concatenate([manifest.rows("val"), manifest.rows("test")])
        )
        random = torch.from_numpy(random_features((len(rows), embedding.shape[1]), seed=0)).to(
            embedding
        )
        logits, of_random = (
            _logits(result, config, manifest.label_names, shown) for shown in (embedding, random)
        )
        metrics, predictions = _measure(
            manifest, trainer.train, rows, logits, of_random, n_bootstrap=n_bootstrap
        )
        warnings = caveats(
            model=encoder.name,
            dataset=manifest.name,
            exposed=base_name(manifest.collection) in known.exposed_to,
            image_level_split=manifest.image_level_split,
            has_test=len(manifest.rows("test")) > 0,
        )
        if images.failures:
            warnings.append(f"{len(images.failures)} images could not be read")
        metrics = metrics.replace(warnings=[*metrics.warnings, *warnings])
        learned = ids[np.concatenate([trainer.train, trainer.val])].tolist()
        run = Run(
            kind=KIND,
            config={
                "settings": asdict(config),
                "labels": list(manifest.label_names),
                "dataset": manifest.name,
                "model": encoder.name,
                "teacher": None if teacher is None else teacher.encoder.name,
                "spec": dict(encoder.image_spec),
                "dim": int(embedding.shape[1]),
                "thresholds": {
                    name: metrics.per_label[name].threshold for name in manifest.label_names
                },
                "best_epoch": result.best_epoch,
                "trainable_parameters": result.trainable,
                "failures": dict(images.failures),
            },
            metrics=metrics,
            scored=predictions,
            default_name=target.name,
            history=[asdict(epoch) for epoch in result.history],
            provenance=known.with_training(manifest.collection, learned),
        )
        write_run(run, target, partial(_write_weights, result))
        checkpoint.delete()
        return FinetuneResult(metrics, result.best_epoch, dict(images.failures))


def require_unfinished(target: Path) -> None:
    """A run that is there is not made again; what is left of its own fine-tuning goes.

    Raises:
        UsageError: something is at ``target`` already.
    """
    with suppress(RunError):  # it is no run at all
        if unfinished(target).is_dir() and run_kind(target) == KIND:
            # Whoever wrote the run was killed before it could do this.
            shutil.rmtree(unfinished(target), ignore_errors=True)
    require_absent(target)


def _logits(
    result: Finetuned, config: FinetuneConfig, names: Sequence[str], embedding: torch.Tensor
) -> NDArray[np.float64]:
    """(N, C): the head's, or those of each label's caption against its absence."""
    with torch.inference_mode():
        if result.head is not None:
            logits: NDArray[np.float64] = result.head(embedding).double().cpu().numpy()
            return logits
        encoded = result.encoder.embed_texts(label_captions(names, config)).float().cpu().numpy()
        scale = result.encoder.scale()
        return caption_scores(
            embedding.cpu().numpy(), encoded, None if scale is None else float(scale)
        ).logits


def _measure(
    manifest: "Dataset",
    train: NDArray[np.intp],
    rows: NDArray[np.intp],
    logits: NDArray[np.float64],
    logits_of_random: NDArray[np.float64],
    *,
    n_bootstrap: int,
) -> tuple[Metrics, Predictions]:
    """The metrics document, and what ``predictions.csv`` holds."""
    images = manifest.images
    ranking = np.zeros(manifest.label_values.shape)
    ranking[rows] = logits
    probability = 1 / (1 + np.exp(-ranking))
    split = images["split"].to_numpy(dtype=np.str_)
    seen = manifest.label_values[train]
    known = SplitData(
        truth=manifest.label_values,
        label_names=manifest.label_names,
        patient=images["patient"].to_numpy(dtype=np.str_),
        view=images["view"].to_numpy(dtype=np.str_),
        train=train,
        val=rows[split[rows] == "val"],
        test=rows[split[rows] == "test"],
        learned=(seen == 1).any(axis=0) & (seen == 0).any(axis=0),
    )
    _, scored = known.scored
    metrics = evaluate(
        known,
        probability,
        ranking=ranking,
        controls=untrained_controls(
            known, ranking, logits_of_random[np.isin(rows, scored)], n_bootstrap=n_bootstrap
        ),
        warnings=[
            f"{name} has no positives in training: its metrics are undefined"
            for name, positive in zip(manifest.label_names, (seen == 1).any(axis=0), strict=True)
            if not positive
        ],
        n_bootstrap=n_bootstrap,
    )
    predictions = Predictions(
        ids=images["id"].to_numpy(dtype=np.str_)[rows],
        patients=images["patient"].to_numpy(dtype=np.str_)[rows],
        splits=split[rows],
        label_names=manifest.label_names,
        truth=manifest.label_values[rows],
        probability=probability[rows],
    )
    return metrics, predictions


def _write_weights(result: Finetuned, folder: Path) -> None:
    result.encoder.save(folder / "encoder")
    if result.head is not None:
        from safetensors.torch import save_file

        state = {k: v.cpu().contiguous() for k, v in result.head.state_dict().items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
