"""Evaluate a fine-tuned encoder on the validation and test images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from featurecache.evaluation.controls import random_features, untrained_controls
from featurecache.evaluation.evaluate import evaluate
from featurecache.evaluation.simple_predictors import any_finding_from_scores
from featurecache.evaluation.split_data import SplitData
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.io import caption_scores, label_captions
from featurecache.finetune.training import FinetunedEncoder
from featurecache.metrics.metrics import Metrics
from featurecache.metrics.thresholds import OperatingPoint
from featurecache.runs.predictions import Predictions
from featurecache.wording import undefined_metrics

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset


def evaluate_encoder(
    finetuned: FinetunedEncoder,
    config: FinetuneConfig,
    dataset: "Dataset",
    *,
    train_rows: NDArray[np.intp],
    rows: NDArray[np.intp],
    sha256: NDArray[np.str_],
    embedding: torch.Tensor,
    warnings: Sequence[str],
    n_bootstrap: int,
    operating_point: OperatingPoint,
) -> tuple[Metrics, Predictions]:
    """Evaluate image embeddings of a fine-tuned encoder.

    Args:
        finetuned: The encoder, with its head if it has one.
        config: Its settings.
        dataset: Images, labels and splits.
        train_rows: Data set rows that it was trained on.
        rows: The N data set rows to predict, from the validation and test splits.
        sha256: SHA-256 of all files of the data set, in hex.
        embedding: The embeddings of ``rows``, (N, D).
        warnings: Warnings to add to the metrics.
        n_bootstrap: Number of bootstrap samples over patients.
        operating_point: The rule by which thresholds are chosen.

    Returns:
        The metrics, and the predictions of the validation and test images among ``rows``.
    """
    images, labels = dataset.images, dataset.label_values
    logits = _logits(finetuned, config, dataset.label_names, embedding)
    random = torch.from_numpy(random_features((len(rows), embedding.shape[1]), seed=0)).to(
        embedding
    )
    random_logits = _logits(finetuned, config, dataset.label_names, random)
    ranking = np.zeros(labels.shape)
    ranking[rows] = logits
    probability = 1 / (1 + np.exp(-ranking))
    split = images["split"].to_numpy(dtype=np.str_)
    known = {
        kind: (labels[train_rows] == value).any(axis=0)
        for kind, value in (("positives", 1), ("negatives", 0))
    }
    data = SplitData(
        truth=labels,
        label_names=dataset.label_names,
        patient=images["patient"].to_numpy(dtype=np.str_),
        view=images["view"].to_numpy(dtype=np.str_),
        train=train_rows,
        val=rows[split[rows] == "val"],
        test=rows[split[rows] == "test"],
        learned=known["positives"] & known["negatives"],
        patients_known=dataset.patients_known,
    )
    _, scored_rows = data.scored
    metrics = evaluate(
        data,
        probability,
        operating_point=operating_point,
        ranking=ranking,
        any_finding=any_finding_from_scores(data, ranking),
        controls=untrained_controls(
            data, ranking, random_logits[np.isin(rows, scored_rows)], n_bootstrap=n_bootstrap
        ),
        warnings=[
            *(
                undefined_metrics(
                    np.array(dataset.label_names)[~has_some].tolist(),
                    ("has", "have"),
                    f"no {kind} in training",
                )
                for kind, has_some in known.items()
                if not has_some.all()
            ),
            *warnings,
        ],
        n_bootstrap=n_bootstrap,
    )
    ids, studies = (images[column].to_numpy(dtype=np.str_) for column in ("id", "study"))
    return metrics, data.predictions(
        probability, ids=ids, studies=studies, splits=split, sha256=sha256
    )


def _logits(
    finetuned: FinetunedEncoder,
    config: FinetuneConfig,
    label_names: Sequence[str],
    embedding: torch.Tensor,
) -> NDArray[np.float64]:
    """Return (N, C): the logits of the head, or of each label's caption against its absence."""
    with torch.inference_mode():
        if finetuned.head is not None:
            logits: NDArray[np.float64] = finetuned.head(embedding).double().cpu().numpy()
            return logits
        captions = label_captions(label_names, config)
        texts = finetuned.encoder.embed_texts(captions).float().cpu().numpy()
        scale = finetuned.encoder.scale()
        return caption_scores(
            embedding.cpu().numpy(), texts, None if scale is None else float(scale)
        ).logits
