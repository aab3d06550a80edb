"""Train an encoder on images, evaluate it, and write the run folder.

config.json        everything that is needed to repeat the run
encoder/           the fine-tuned encoder, an ordinary Hugging Face folder
head.safetensors   head of the BCE objective
provenance.json    the images that the encoder was trained on
metrics.json, predictions.csv, history.csv
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.evaluation.evaluate import caveats
from featurecache.evaluation.split_data import choose_scored
from featurecache.extraction.crash_journal import CrashJournal
from featurecache.extraction.plan import file_states
from featurecache.extraction.provenance import (
    is_exposed,
    provenance_for,
    require_unseen_content,
    require_unseen_images,
)
from featurecache.extraction.reuse import FileHashes
from featurecache.extraction.update import count_listed
from featurecache.finetune.config import KIND, FinetuneConfig
from featurecache.finetune.dataloader import ImageLoader
from featurecache.finetune.distillation import Teacher, teacher_embeddings
from featurecache.finetune.evaluate import evaluate_encoder
from featurecache.finetune.io import WEIGHTS
from featurecache.finetune.training import FinetunedEncoder, Trainer
from featurecache.finetune.training_state import (
    TrainingState,
    finetune_lock,
    require_no_run,
    state_folder,
)
from featurecache.images.subprocess_decoder import IMAGE_TIMEOUT
from featurecache.io.fingerprint import fingerprint
from featurecache.metrics.cohort import Cohort, count_unused, describe_splits
from featurecache.metrics.thresholds import F1, OperatingPoint
from featurecache.progress import DetailedProgress
from featurecache.provenance.leaks import SplitCopies, copies_across_splits, warn_of_seen
from featurecache.provenance.provenance import Provenance
from featurecache.provenance.records import ImageRecords
from featurecache.runs.run import Run, load_run, write_run
from featurecache.runs.tracking import describe_training, final_scores
from featurecache.store.records import Utf8, count_by_reason, from_utf8, to_utf8
from featurecache.tracking.tracker import open_trackers
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder


def train_encoder(
    dataset: "Dataset",
    encoder: "Encoder",
    config: FinetuneConfig,
    *,
    target: Path,
    workers: int = 2,
    n_bootstrap: int = 1000,
    operating_point: OperatingPoint = F1,
    teacher: Teacher | None = None,
    log: Sequence[str] = (),
    progress: DetailedProgress | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Run:
    """Train an encoder on the images of a data set and write a run folder.

    If the process is killed, at any moment and even by a decoder that crashes, the same call
    continues from the last saved step and, on a CPU, ends with the same weights as an undisturbed
    one. The epoch is chosen by validation loss; the test images are read once, at the end. Without
    any, the validation images are scored.

    Args:
        dataset: Images, labels and splits.
        encoder: The encoder to start from.
        config: Settings.
        target: The run folder to create.
        workers: Number of decoding threads.
        n_bootstrap: Number of bootstrap samples over patients.
        operating_point: The rule by which thresholds are chosen.
        teacher: An encoder whose image embeddings are learned as well.
        log: Tracking tools that the training is logged to.
        progress: Called with the number of finished steps, their maximum, and a description.
        arguments: Arguments of ``finetune`` to record, to repeat it; see ``FinetuneArguments``.

    Returns:
        The run, loaded from its folder.

    Raises:
        UsageError: The settings do not fit the encoder or the data set, ``target`` exists already,
            another process is writing it, or the encoder or its teacher was trained on images that
            are scored.
        RunError: An unfinished fine-tuning for ``target`` has other settings.
        FeaturecacheError: No image can be read, memory runs out, or a tracking tool cannot be
            reached at the start.
    """
    with finetune_lock(target), ExitStack() as stack:
        require_no_run(target)
        _, scored = choose_scored({split: dataset.rows(split) for split in ("val", "test")})
        sources = [encoder] if teacher is None else [encoder, teacher.encoder]
        for source in sources:
            require_unseen_images(dataset, source, scored)
        with closing(CrashJournal([state_folder(target) / "crash_journal"])) as journal:
            images = ImageLoader(dataset, encoder, workers, journal)
            # Before the training: a copy of a scored image must not be learned from.
            records = images.read_records()
            splits = dataset.images["split"].to_numpy(dtype=np.str_)
            copies = copies_across_splits(records, splits)
            learned_from = records.take(copies.without(np.flatnonzero(splits != "test")))
            provenance, warnings, of_learning = Provenance(), list[str](), list[str]()
            for source in sources:
                earlier = provenance_for(dataset, source)
                warnings += require_unseen_content(dataset, source, records.take(scored))
                of_learning += warn_of_seen(learned_from, earlier.trained_on, by=source.name)
                provenance = provenance.union(earlier)
            trainer = Trainer(dataset, encoder, config, images=images, copies=copies)
            files = _hash_files(dataset, records, workers)
            state = TrainingState(target, _all_settings(dataset, files, encoder, config, teacher))
            if teacher is not None:
                embeddings = teacher_embeddings(
                    teacher,
                    dataset,
                    trainer.train_rows,
                    file=state.folder / "teacher.npy",
                    workers=workers,
                    journal=journal,
                    progress=progress,
                )
                trainer.learner.add_teacher(embeddings)
            trackers = stack.enter_context(
                open_trackers(
                    log,
                    target,
                    _settings_to_log(target, dataset, encoder, config, teacher, arguments or {}),
                    state=state.folder / "tracking.json",
                )
            )
            finetuned = trainer.run(
                state,
                progress,
                on_epoch=lambda epochs: trackers.log_history(list(map(asdict, epochs))),
            )
            rows, embedding = trainer.learner.embed(
                np.concatenate([trainer.val_rows, dataset.rows("test")])
            )
            warnings += [*of_learning, *copies.warnings()]
            warnings += caveats(
                model=" with ".join(source.name for source in sources),
                dataset=dataset.name,
                exposed=is_exposed(dataset, provenance),
                image_level_split=dataset.image_level_split,
                has_test=len(dataset.rows("test")) > 0,
                patients_known=dataset.patients_known,
                shared_patients=0,  # a Dataset refuses them unless the split is by image
            )
            if images.failures:
                warnings.append(f"{count_noun(len(images.failures), 'image')} could not be read")
            metrics, predictions = evaluate_encoder(
                finetuned,
                config,
                dataset,
                train_rows=trainer.train_rows,
                rows=rows,
                sha256=from_utf8(records.sha256),
                embedding=embedding,
                warnings=warnings,
                n_bootstrap=n_bootstrap,
                operating_point=operating_point,
            )
            history = [asdict(epoch) for epoch in finetuned.history]
            trained_on = np.concatenate([trainer.train_rows, trainer.val_rows])
            run = Run(
                kind=KIND,
                config={
                    "settings": asdict(config),
                    **({} if arguments is None else {"arguments": arguments}),
                    "labels": list(dataset.label_names),
                    "label_policy": dataset.policy.applied_to(dataset.cells, dataset.label_names),
                    "dataset": dataset.name,
                    "bit_depth": dataset.bit_depth,
                    "model": encoder.name,
                    "teacher": None if teacher is None else teacher.encoder.name,
                    "spec": dict(encoder.image_spec),
                    "dim": int(embedding.shape[1]),
                    "operating_point": str(operating_point),
                    "thresholds": {
                        name: metrics.per_label[name].threshold for name in dataset.label_names
                    },
                    "learning_caveats": of_learning,
                    "best_epoch": finetuned.best_epoch,
                    "trainable_parameters": finetuned.n_trainable,
                    "failures": dict(images.failures),
                    "excluded": {**dataset.excluded, **count_by_reason(images.failures)},
                    "cohort": _describe_cohort(trainer, dataset, copies).to_json(),
                },
                metrics=metrics,
                scored=predictions,
                default_name=target.name,
                history=history,
                provenance=provenance.with_training(records.take(trained_on)),
            )
            write_run(run, target, partial(_write_weights, finetuned))
            trackers.log_history(history)
            trackers.log_scores(final_scores(metrics, finetuned.best_epoch))
        state.delete()
        return load_run(target)


def _describe_cohort(trainer: Trainer, dataset: "Dataset", copies: SplitCopies) -> Cohort:
    """Return what became of the images of a data set, and what those are like that were used.

    Args:
        trainer: What was trained, on which rows.
        dataset: The data set.
        copies: Images that were not learned from.
    """
    images, listed = dataset.images, count_listed(dataset)
    failures = trainer.images.failures
    is_readable = ~images["id"].isin(failures).to_numpy()
    columns = {
        name: images[name].to_numpy(dtype=np.str_)
        for name in ("patient", "split", "sex", "age", "view")
    }
    rows = {"train": trainer.train_rows, "val": trainer.val_rows, "test": dataset.rows("test")}
    rows = {split: of_split[is_readable[of_split]] for split, of_split in rows.items()}
    patient, split = columns.pop("patient"), columns.pop("split")
    known = dataset.patients_known
    return Cohort(
        left_out=dict(dataset.excluded),
        n_loaded=listed["images"],
        n_patients_loaded=listed["patients"],
        failed=count_by_reason(failures),
        n_images=int(is_readable.sum()),
        n_patients=len(np.unique(patient[is_readable])) if known else None,
        unused=count_unused(rows, split=np.where(is_readable, split, ""), copies=copies.rows),
        splits=describe_splits(
            rows,
            patient=patient if known else None,
            truth=dataset.label_values,
            label_names=dataset.label_names,
            **columns,
        ),
    )


def _hash_files(dataset: "Dataset", records: ImageRecords, workers: int) -> Utf8:
    """Return the SHA-256 of every file, also of those that cannot be decoded, in hex, (N,)."""
    hashes = FileHashes(
        dataset,
        to_utf8(dataset.images["id"]),
        file_states(dataset),
        workers=workers,
        image_timeout=IMAGE_TIMEOUT,
    )
    hashes.read(np.flatnonzero(records.sha256 == b""))
    return np.where(records.sha256 == b"", hashes.sha256, records.sha256)


def _all_settings(
    dataset: "Dataset",
    files: Utf8,
    encoder: "Encoder",
    config: FinetuneConfig,
    teacher: Teacher | None,
) -> dict[str, Any]:
    """Return everything that decides the result of a fine-tuning."""
    images = {
        "id": dataset.images["id"].tolist(),
        "split": dataset.images["split"].tolist(),
        "labels": dataset.label_values.tolist(),
    }
    return {
        **asdict(config),
        "dataset": dataset.name,
        "bit_depth": dataset.bit_depth,
        "images": fingerprint(images),
        "files": fingerprint({"sha256": from_utf8(files).tolist()}),
        "model": encoder.name,
        "encoder": fingerprint(encoder.image_spec),
        "teacher": None if teacher is None else teacher.fingerprint,
    }


def _settings_to_log(
    target: Path,
    dataset: "Dataset",
    encoder: "Encoder",
    config: FinetuneConfig,
    teacher: Teacher | None,
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the settings of a training for tracking tools."""
    settings = {**arguments, "teacher": None if teacher is None else teacher.encoder.name}
    return describe_training(
        KIND, dataset.name, encoder.name, target, {**settings, **asdict(config)}
    )


def _write_weights(finetuned: FinetunedEncoder, folder: Path) -> None:
    finetuned.encoder.save(folder / "encoder")
    if finetuned.head is not None:
        from safetensors.torch import save_file

        state = {k: v.cpu().contiguous() for k, v in finetuned.head.state_dict().items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
