"""Training of heads at the size of ChestX-ray14, compared with common alternatives.

    python benchmarks/heads.py [--rows 86524] [--dim 768] [--rounds 1] [--methods baseline ...]

Embeddings are synthetic, with NIH's label frequencies and a signal that is partly linear; a tenth
of the rows are for validation. Each method trains to its best macro AUROC on them.

baseline, concat, weighted_sum   heads of featurecache, with default settings
products       only the matrix products of baseline's epochs, in the same precision and batches
notebook       a typical notebook: TensorDataset, DataLoader, batch 64, fp32, Adam, patience 3
mlp            scikit-learn's MLPClassifier with the same layers and early stopping
logistic       scikit-learn's LogisticRegression, one per label
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from featurecache.heads.config import HeadConfig, resolve_precision, resolve_schedule
from featurecache.heads.fit import fit_head, predict_probabilities
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import TrainingData
from featurecache.metrics.ranking import auroc

POSITIVES = (11559, 2776, 4667, 2303, 13317, 2516, 1686, 227, 19894, 5782, 6331, 3385, 1431, 5302)
"""Positive images of each finding in ChestX-ray14, of 112,120 images."""
HIDDEN = (512, 256)


def main() -> None:
    """Train with every method and print durations and scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=86_524)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    arguments = parser.parse_args()
    data = synthetic(arguments.rows, arguments.dim)
    print(f"| {arguments.rows:,} x {arguments.dim} | seconds | epochs | validation macro AUROC |")
    print("|---" * 4 + "|")
    for _ in range(arguments.rounds):
        for name in arguments.methods:
            print_row(name, *METHODS[name](data))


def print_row(name: str, seconds: float, epochs: int | None, score: float | None) -> None:
    """Print one row of the table."""
    cell = "–" if score is None else f"{score:.4f}"
    print(f"| {name} | {seconds:.1f} | {epochs or '–'} | {cell} |", flush=True)


def synthetic(rows: int, dim: int) -> TrainingData:
    """Return embeddings from which labels can partly be predicted."""
    generator = np.random.default_rng(0)
    prevalence = np.array(POSITIVES) / 112_120
    labels = (generator.random((rows, len(prevalence))) < prevalence).astype(np.int8)
    directions = generator.standard_normal((len(prevalence), dim)) / np.sqrt(dim)
    spectrum = np.arange(1, dim + 1) ** -0.25
    embedding = np.empty((rows, dim), dtype=np.float16)
    for start in range(0, rows, 8192):
        chunk = labels[start : start + 8192]
        strength = 0.5 + generator.random(chunk.shape)
        signal = (chunk * strength) @ directions
        noise = generator.standard_normal((len(chunk), dim)) * spectrum
        embedding[start : start + 8192] = noise + 0.3 * signal + 0.1 * np.abs(signal)
    order = generator.permutation(rows)
    text = generator.standard_normal((len(prevalence), dim)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)  # like a prompt ensemble
    val, train = np.sort(order[: rows // 10]), np.sort(order[rows // 10 :])
    return TrainingData(embedding, labels, train, val, LabelTexts(text))


def macro_auroc(data: TrainingData, probability: NDArray[np.float64]) -> float:
    """Return the macro AUROC on the validation rows."""
    truth = data.labels[data.val]
    return float(np.mean([auroc(truth[:, c], probability[:, c]) for c in range(truth.shape[1])]))


Result = tuple[float, int | None, float | None]
"""Duration in seconds, epochs and validation macro AUROC; None where they do not apply."""


def featurecache_head(head: str, data: TrainingData) -> Result:
    """Train a head of featurecache with default settings."""
    start = time.perf_counter()
    trained = fit_head(data, HeadConfig(head=head))
    seconds = time.perf_counter() - start
    probability = predict_probabilities(trained.module, data.embedding[data.val])
    return seconds, len(trained.history), macro_auroc(data, probability)


def products(data: TrainingData) -> Result:
    """Compute only the matrix products of the forward and backward passes."""
    import torch

    sizes = (data.embedding.shape[1], *HIDDEN, data.labels.shape[1])
    config = HeadConfig(head="baseline")
    schedule = resolve_schedule(config, len(data.train))
    precision = resolve_precision(config, len(data.train), layer=(sizes[0], sizes[1]))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    values = [torch.randn(schedule.batch_size, size).to(dtype) for size in sizes]
    weights = [torch.randn(after, size).to(dtype) for size, after in pairwise(sizes)]
    start = time.perf_counter()
    for _ in range(schedule.epochs * math.ceil(len(data.train) / schedule.batch_size)):
        for layer, weight in enumerate(weights):
            before, after = values[layer], values[layer + 1]
            before @ weight.T  # output; then the gradients of weight and input
            after.T @ before
            if layer > 0:
                after @ weight
    return time.perf_counter() - start, schedule.epochs, None


def notebook(data: TrainingData) -> Result:
    """Train as in a typical notebook."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    x = torch.from_numpy(data.embedding.astype(np.float32))
    y = torch.from_numpy(data.labels.astype(np.float32))
    first, second = HIDDEN
    model = nn.Sequential(
        *(nn.Linear(x.shape[1], first), nn.BatchNorm1d(first), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Linear(first, second), nn.BatchNorm1d(second), nn.ReLU(), nn.Dropout(0.3)),
        nn.Linear(second, y.shape[1]),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss = nn.BCEWithLogitsLoss()
    loader = DataLoader(TensorDataset(x[data.train], y[data.train]), batch_size=64, shuffle=True)
    best, best_epoch, epoch = 0.0, 0, 0
    start = time.perf_counter()
    while epoch - best_epoch < 3:
        epoch += 1
        model.train()
        for batch, labels in loader:
            optimizer.zero_grad()
            loss(model(batch), labels).backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            probability = torch.sigmoid(model(x[data.val]).double()).numpy()
        if (score := macro_auroc(data, probability)) > best:
            best, best_epoch = score, epoch
    return time.perf_counter() - start, epoch, best


def mlp(data: TrainingData) -> Result:
    """Train scikit-learn's MLPClassifier."""
    from sklearn.neural_network import MLPClassifier

    start = time.perf_counter()
    x, x_val = standardize(data)
    model = MLPClassifier(HIDDEN, early_stopping=True, n_iter_no_change=3, random_state=0)
    model.fit(x, data.labels[data.train])
    return time.perf_counter() - start, model.n_iter_, macro_auroc(data, model.predict_proba(x_val))


def standardize(data: TrainingData) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return standardized training and validation embeddings."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(data.embedding[data.train].astype(np.float32))
    x, x_val = (
        scaler.transform(data.embedding[rows].astype(np.float32)) for rows in (data.train, data.val)
    )
    return x, x_val


def logistic(data: TrainingData) -> Result:
    """Train scikit-learn's LogisticRegression with default regularization."""
    from sklearn.linear_model import LogisticRegression

    start = time.perf_counter()
    x, x_val = standardize(data)
    columns = [
        LogisticRegression(max_iter=200).fit(x, truth).predict_proba(x_val)[:, 1]
        for truth in data.labels[data.train].T
    ]
    return time.perf_counter() - start, None, macro_auroc(data, np.stack(columns, axis=1))


METHODS: dict[str, Callable[[TrainingData], Result]] = {
    **{head: partial(featurecache_head, head) for head in ("baseline", "concat", "weighted_sum")},
    "products": products,
    "notebook": notebook,
    "mlp": mlp,
    "logistic": logistic,
}


if __name__ == "__main__":
    main()
