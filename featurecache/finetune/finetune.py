"""``finetune``: train an encoder itself on the images of a data set."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.encoders.encoder import Encoder
from featurecache.encoders.loading import as_encoder, check_model
from featurecache.extraction.bit_depth import with_bit_depth
from featurecache.extraction.source import as_dataset
from featurecache.extraction.table import keep_cached_splits
from featurecache.finetune.config import FinetuneConfig, make_config
from featurecache.finetune.random_init import load_source, randomly_initialized
from featurecache.finetune.training_state import require_no_run, state_folder
from featurecache.images.gray_range import check_bit_depth
from featurecache.metrics.thresholds import OperatingPoint
from featurecache.progress import DetailedProgress
from featurecache.runs.run import RUNS_FOLDER, Run
from featurecache.settings import accept_settings
from featurecache.store.cache import Cache
from featurecache.store.layout import cache_path, to_file_name
from featurecache.tracking.tracker import check_trackers

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.extraction.source import DatasetLike

ModelLike = str | os.PathLike[str] | Encoder
OnStart = Callable[["Dataset", Encoder, Path], None]
"""Called before training, with the data set, the initial encoder, and the run folder."""


@accept_settings(FinetuneConfig)
def finetune(
    data: "DatasetLike",
    model: ModelLike = "tiny",
    *,
    objective: str | None = None,
    recipe: str | None = None,
    teacher: ModelLike | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    out: str | os.PathLike[str] | None = None,
    n_bootstrap: int = 1000,
    operating_point: str | OperatingPoint = "f1",
    workers: int = 2,
    bit_depth: int | None = None,
    cache_dir: str | os.PathLike[str] = "cache",
    log: str | Sequence[str] = (),
    progress: DetailedProgress | None = None,
    **settings: Any,
) -> Run:
    """Train an encoder on the images of a data set and write a run folder.

    The result is an encoder like any other: ``extract`` takes the run folder as its model. If the
    process is killed, at any moment, the same call continues from the last saved step. The epoch is
    chosen by validation loss; the test images are only evaluated.

    Args:
        data: The data set: a ``Dataset``, or what ``load_dataset`` takes, such as a name, a path,
            or a tuple of both; or a ``Cache``, for the data set that it was extracted from.
        model: The encoder to start from: a name, the path of a checkpoint folder or of a
            fine-tuning run, or an ``Encoder``.
        objective: "bce", a head on the labels, or "contrastive", images against captions of their
            labels. Required without a recipe.
        recipe: Name of published settings, a key of ``RECIPES``; given settings override it.
        teacher: An encoder whose image embeddings are learned as well (distillation).
        weights: Local checkpoint to use for the model instead of downloading it.
        device: "auto", "cpu", "cuda" or "mps".
        out: The run folder to create; by default ``runs/DATASET-MODEL-OBJECTIVE``.
        n_bootstrap: Number of bootstrap samples over patients; 0 for no intervals.
        operating_point: The rule by which thresholds are chosen on validation images; see
            ``train_head``.
        workers: Number of decoding threads.
        bit_depth: Number of bits in use in files that do not define the range of their gray values;
            see ``extract``.
        cache_dir: Directory of caches. Patients that are in a cache of the data set keep the split
            that they have there, as in ``extract``, so that heads and fine-tuned encoders are
            tested on the same patients; only the splits of others are drawn.
        log: Tracking tools, one or more of "tensorboard", "mlflow" and "wandb", that each epoch and
            the final scores are logged to, under the name of the run folder. What continues after
            it was killed is logged to the same run there.
        progress: Called with the number of finished steps, their maximum, and a description.
        **settings: Every other field of ``FinetuneConfig``.

    Returns:
        The run. ``run.path`` is its folder, which holds the encoder.

    Raises:
        UnknownNameError: There is no such model, data set, recipe, operating point or tracking
            tool, or a setting has an unknown value.
        UsageError: The settings do not fit the encoder or the data set, ``out`` exists already,
            another process is writing it, the model or the teacher was trained on images that
            are scored (those of test, or without any those of validation), or the package of a
            tracking tool is not installed.
        RunError: An unfinished fine-tuning for ``out`` has other settings.
        FeaturecacheError: No image can be read, memory runs out, or a tracking tool cannot be
            reached at the start.

    Example:
        >>> import featurecache as fc
        >>> run = fc.finetune("phantom", "tiny", objective="bce", trainable="head", epochs=1)
        >>> cache = fc.extract("phantom", run.path)
    """
    return run_finetuning(
        data,
        model,
        make_config(recipe, {"objective": objective, **settings}),
        teacher=teacher,
        weights=weights,
        device=device,
        out=out,
        n_bootstrap=n_bootstrap,
        operating_point=OperatingPoint.parse(operating_point),
        workers=workers,
        bit_depth=bit_depth,
        cache_dir=cache_dir,
        log=log,
        progress=progress,
    )


def run_finetuning(
    data: "DatasetLike | Callable[[], Dataset]",
    model: ModelLike,
    config: FinetuneConfig,
    *,
    teacher: ModelLike | None,
    weights: str | os.PathLike[str] | None,
    device: str,
    out: str | os.PathLike[str] | None,
    n_bootstrap: int,
    operating_point: OperatingPoint,
    workers: int,
    bit_depth: int | None,
    cache_dir: str | os.PathLike[str],
    log: str | Sequence[str],
    on_start: OnStart | None = None,
    progress: DetailedProgress | None = None,
) -> Run:
    """Do what ``finetune`` does, with a hook before training.

    Args:
        data: As in ``finetune``, or a function that loads the data set. It is called after all
            names were checked, because loading may take long, and before the encoder is loaded,
            because importing its libraries takes seconds.
        model: See ``finetune``, as for all arguments that are not described here.
        config: All settings.
        teacher: See ``finetune``.
        weights: See ``finetune``.
        device: See ``finetune``.
        out: See ``finetune``.
        n_bootstrap: See ``finetune``.
        operating_point: See ``finetune``.
        workers: See ``finetune``.
        bit_depth: See ``finetune``.
        cache_dir: See ``finetune``.
        log: See ``finetune``.
        on_start: Called before training.
        progress: See ``finetune``.

    Returns:
        The run.
    """
    check_bit_depth(bit_depth)
    trackers = check_trackers(log)
    if out is not None:
        require_no_run(Path(out))
    check_model(model, weights=weights, precision=config.precision)
    if teacher is not None:
        check_model(teacher)
    dataset = data() if callable(data) else as_dataset(data)
    dataset.require_labels()
    from featurecache.finetune.distillation import Teacher
    from featurecache.finetune.run import train_encoder

    load = load_source if config.init == "random" else as_encoder
    encoder = load(model, weights=weights, device=device, precision=config.precision)
    teacher_encoder = (
        None
        if teacher is None
        else Teacher(as_encoder(teacher, device=device, precision=config.precision))
    )
    dataset = with_bit_depth(dataset, bit_depth)
    if not isinstance(data, Cache):  # which has decided already
        own_cache = cache_path(Path(cache_dir), dataset.name, encoder.cache_name)
        dataset = keep_cached_splits(dataset, [own_cache])
    name = to_file_name(f"{dataset.name}-{encoder.name}-{config.objective}")
    target = RUNS_FOLDER / name if out is None else Path(out)
    require_no_run(target)
    if config.init == "random":
        encoder = randomly_initialized(
            encoder,
            folder=state_folder(target) / "start",
            seed=config.seed,
            precision=config.precision,
        )
    if on_start is not None:
        on_start(dataset, encoder, target)
    return train_encoder(
        dataset,
        encoder,
        config,
        target=target,
        workers=workers,
        n_bootstrap=n_bootstrap,
        operating_point=operating_point,
        teacher=teacher_encoder,
        log=trackers,
        progress=progress,
        arguments={
            "data": dataset.source,
            "model": _name_or_folder(model),
            "teacher": _name_or_folder(teacher),
            "weights": None if weights is None else os.fspath(weights),
            "device": encoder.device,
            "bit_depth": dataset.bit_depth,
            "cache_dir": os.fspath(cache_dir),
            "n_bootstrap": n_bootstrap,
            "operating_point": str(operating_point),
        },
    )


def _name_or_folder(model: ModelLike | None) -> str | None:
    return None if model is None or isinstance(model, Encoder) else os.fspath(model)
