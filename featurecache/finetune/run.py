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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from featurecache.errors import RunError
from featurecache.evaluation.controls import random_features, untrained_controls
from featurecache.evaluation.evaluate import caveats, evaluate
from featurecache.evaluation.split_data import SplitData
from featurecache.evaluation.zero_shot_scores import Scores, pair_scores
from featurecache.extraction.crash_journal import CrashJournal
from featurecache.extraction.provenance import provenance_for
from featurecache.finetune.captions import scored_captions
from featurecache.finetune.checkpoint import bookmarks_of, finetune_lock, unfinished
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.dataloader import ImageStream
from featurecache.finetune.distillation import Teacher, teacher_embeddings
from featurecache.finetune.head import build_head
from featurecache.finetune.training import (
    Finetuned,
    Trainer,
    open_checkpoint,
)
from featurecache.io.atomic import require_absent
from featurecache.progress import DetailedProgress
from featurecache.prompts import load_prompts
from featurecache.provenance import PROVENANCE_FILE, base_name
from featurecache.runs.folder import (
    new_run,
    read_config,
    run_kind,
    write_config,
    write_history,
    write_json,
    write_predictions,
)
from featurecache.runs.weights import read_weights

if TYPE_CHECKING:
    from torch import nn

    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder

KIND = "finetune"
WEIGHTS = "head.safetensors"


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning gave.

    Attributes:
        metrics: the document of ``metrics.json``.
        best_epoch: by validation loss.
        failures: image id to the reason why it was left out.
    """

    metrics: dict[str, Any]
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
        metrics["warnings"] += caveats(
            model=encoder.name,
            dataset=manifest.name,
            exposed=base_name(manifest.collection) in known.exposed_to,
            image_level_split=manifest.image_level_split,
            has_test=len(manifest.rows("test")) > 0,
        )
        if images.failures:
            metrics["warnings"].append(f"{len(images.failures)} images could not be read")
        with new_run(target) as folder:
            settings = {
                "settings": asdict(config),
                "labels": list(manifest.label_names),
                "dataset": manifest.name,
                "model": encoder.name,
                "teacher": None if teacher is None else teacher.encoder.name,
                "spec": dict(encoder.image_spec),
                "dim": int(embedding.shape[1]),
                "thresholds": {
                    name: metrics["per_label"][name]["threshold"] for name in manifest.label_names
                },
                "best_epoch": result.best_epoch,
                "trainable_parameters": result.trainable,
                "failures": dict(images.failures),
            }
            write_config(folder, KIND, settings)
            learned = ids[np.concatenate([trainer.train, trainer.val])].tolist()
            provenance = known.with_training(manifest.collection, learned)
            write_json(folder / PROVENANCE_FILE, provenance.to_json())
            write_json(folder / "metrics.json", metrics)
            write_predictions(folder, **predictions)
            write_history(folder, [asdict(epoch) for epoch in result.history])
            result.encoder.save(folder / "encoder")
            if result.head is not None:
                from safetensors.torch import save_file

                state = {k: v.cpu().contiguous() for k, v in result.head.state_dict().items()}
                save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
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


@dataclass(frozen=True)
class FinetunedClassifier:
    """A fine-tuned encoder read from its run folder, as a classifier of its labels."""

    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    config: FinetuneConfig
    encoder: "Encoder"
    head: "nn.Module | None"

    def probabilities(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """(B, D) image embeddings of this encoder to (B, C) probabilities."""
        if self.head is not None:
            with torch.inference_mode():
                logits = self.head(torch.from_numpy(embedding.astype(np.float32))).double().numpy()
            probability: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
            return probability
        encoded = self.encoder.encode_texts(_captions(self.labels, self.config))
        return _caption_scores(embedding, encoded, self.encoder.scale).probabilities


def read_finetuned(
    folder: Path, *, device: str = "auto", precision: str | None = None
) -> FinetunedClassifier:
    """Read a run folder that ``finetune`` wrote.

    Args:
        folder: the run.
        device: where its encoder runs.
        precision: of its encoder: that of the cache whose embeddings it is to classify; None for
            the one that it was trained in.

    Raises:
        RunError: the folder or a file in it is missing, damaged, of another kind or newer.
        CheckpointError: the encoder in it is damaged.
    """
    from featurecache.encoders.loading import load_encoder

    config = read_config(folder, KIND)
    try:
        settings = FinetuneConfig(**config["settings"])
        labels = tuple(config["labels"])
        head = None
        if settings.objective == "bce":
            dim = int(config["dim"])
            state = read_weights(folder, WEIGHTS, sizes=[dim, len(labels)])
            head = build_head(settings.head, dim, len(labels))
            head.load_state_dict(state)
            head.eval()
        thresholds = tuple(float(config["thresholds"][name]) for name in labels)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RunError(f"run folder {folder} contradicts itself: {error}") from error
    encoder = load_encoder(str(folder), device=device, precision=precision or settings.precision)
    return FinetunedClassifier(labels, thresholds, settings, encoder, head)


def _logits(
    result: Finetuned, config: FinetuneConfig, names: Sequence[str], embedding: torch.Tensor
) -> NDArray[np.float64]:
    """(N, C): the head's, or those of each label's caption against its absence."""
    with torch.inference_mode():
        if result.head is not None:
            logits: NDArray[np.float64] = result.head(embedding).double().cpu().numpy()
            return logits
        encoded = result.encoder.embed_texts(_captions(names, config)).float().cpu().numpy()
        scale = result.encoder.scale()
        return _caption_scores(
            embedding.cpu().numpy(), encoded, None if scale is None else float(scale)
        ).logits


def _caption_scores(
    images: NDArray[np.floating], texts: NDArray[np.float32], scale: float | None
) -> Scores:
    """Each label's caption against its absence: (N, D) and (2C, D), positives first, to (N, C)."""
    positive, negative = np.split(texts, 2)
    return pair_scores(images, positive, negative, scale=1.0 if scale is None else scale)


def _captions(names: Sequence[str], config: FinetuneConfig) -> list[str]:
    """The captions that say each label is there, then those that say it is not."""
    positive, negative = scored_captions(names, load_prompts(config.prompts))
    return positive + negative


def _measure(
    manifest: "Dataset",
    train: NDArray[np.intp],
    rows: NDArray[np.intp],
    logits: NDArray[np.float64],
    logits_of_random: NDArray[np.float64],
    *,
    n_bootstrap: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics document, and what ``predictions.csv`` holds."""
    images = manifest.images
    ranking = np.zeros(manifest.labels.shape)
    ranking[rows] = logits
    probability = 1 / (1 + np.exp(-ranking))
    split = images["split"].to_numpy(dtype=np.str_)
    seen = manifest.labels[train]
    known = SplitData(
        truth=manifest.labels,
        label_names=manifest.label_names,
        patient=images["patient"].to_numpy(dtype=np.str_),
        view=images["view"].to_numpy(dtype=np.str_),
        train=train,
        val=rows[split[rows] == "val"],
        test=rows[split[rows] == "test"],
        learned=(seen == 1).any(axis=0) & (seen == 0).any(axis=0),
    )
    metrics = evaluate(known, probability, ranking=ranking, n_bootstrap=n_bootstrap)
    _, scored = known.scored
    metrics["controls"] |= untrained_controls(
        known, ranking, logits_of_random[np.isin(rows, scored)], n_bootstrap=n_bootstrap
    )
    metrics["warnings"] = [
        f"{name} has no positives in training: its figures are null"
        for name, positive in zip(manifest.label_names, (seen == 1).any(axis=0), strict=True)
        if not positive
    ]
    predictions = {
        "ids": images["id"].to_numpy(dtype=np.str_)[rows],
        "patients": images["patient"].to_numpy(dtype=np.str_)[rows],
        "splits": split[rows],
        "label_names": manifest.label_names,
        "truth": manifest.labels[rows],
        "probability": probability[rows],
    }
    return metrics, predictions
