"""Load an encoder by name: a registered one, a Hugging Face repository, or a folder."""

import os
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from featurecache.device import resolve_device
from featurecache.encoders.averaged_views import AveragedViews, check_views
from featurecache.encoders.checkpoint import (
    OPEN_CLIP,
    TRANSFORMERS,
    Checkpoint,
    open_architecture,
    open_checkpoint,
    read_json,
    require_no_file,
)
from featurecache.encoders.checkpoint_encoder import CheckpointEncoder
from featurecache.encoders.clip import DualEncoder
from featurecache.encoders.compatibility import library_difference
from featurecache.encoders.encoder import Encoder
from featurecache.encoders.hub import MODELS_VARIABLE, find_checkpoint, local_folder
from featurecache.encoders.medclip import MedclipEncoder, find_medclip
from featurecache.encoders.medclip_network import MODEL_TYPE as MEDCLIP_TYPE
from featurecache.encoders.open_clip import OpenClipEncoder, require_open_clip
from featurecache.encoders.pair import PairEncoder
from featurecache.encoders.preprocessing import check_resize
from featurecache.encoders.registry import (
    ENCODERS,
    EncoderSpec,
    custom_loader,
    exposed_to,
    find_encoder,
)
from featurecache.encoders.timm import TimmEncoder, hub_id_of
from featurecache.encoders.unimodal import ConvNextEncoder, TextEncoder, VisionEncoder
from featurecache.errors import (
    CheckpointError,
    FeaturecacheWarning,
    RunError,
    UnknownNameError,
    UsageError,
)
from featurecache.execution import check_execution, default_execution
from featurecache.features import parse_features
from featurecache.provenance.provenance import PROVENANCE_FILE, Provenance, read_provenance

HUB_PREFIX: Final = "hf:"
TIMM_PREFIX: Final = "timm:"

RUN_FORMAT: Final = "featurecache-run"
"""The ``format`` in the ``config.json`` of a run folder."""

_EMBEDDED = Path(__file__).parent

_FAMILIES: dict[str, type[CheckpointEncoder]] = {
    "dual": DualEncoder,
    "vision": VisionEncoder,
    "text": TextEncoder,
    "open_clip": OpenClipEncoder,
    "timm": TimmEncoder,
}
_MODEL_TYPES: dict[str, type[CheckpointEncoder]] = {
    **dict.fromkeys(DualEncoder.model_types, DualEncoder),
    **dict.fromkeys(VisionEncoder.model_types, VisionEncoder),
    **dict.fromkeys(ConvNextEncoder.model_types, ConvNextEncoder),
    **dict.fromkeys(TextEncoder.model_types, TextEncoder),
    MEDCLIP_TYPE: MedclipEncoder,
}


def load_encoder(
    name: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    resize: str = "published",
    features: str | None = None,
    views: int = 1,
) -> Encoder:
    """Load a frozen encoder.

    Its files are found and its configuration is read at once; the weights are read when they are
    first needed.

    Args:
        name: A registered name, such as ``"xraysiglip"`` (``featurecache models`` lists them);
            ``"hf:ORG/NAME"`` or ``"hf:ORG/NAME@REVISION"`` for a Hugging Face repository;
            ``"timm:NAME"`` for a model of timm, such as ``"timm:convnext_tiny.fb_in22k"``; or the
            path of a checkpoint folder or of a run that fine-tuned an encoder.
        weights: A local checkpoint folder to use for ``name``; for medclip also a weight file.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"mps"``.
        backend: Library that executes the image network: ``"torch"``; ``"openvino"``, on a CPU; or
            ``"auto"``, which is torch unless only OpenVINO has the precision. Texts are always
            encoded by torch, in fp32.
        precision: Numbers that the image network computes with: ``"fp32"``; ``"bf16"``, for matrix
            products; ``"bf16-weights"``; on a GPU ``"fp16"``; or with OpenVINO ``"int8"``.
            ``"exact"`` is fp32 by torch, and so is ``"auto"``: what is faster and leaves the
            embeddings as they are can be measured only on images, which ``extract`` has.
        resize: How an image becomes the square that the network sees. ``"published"``: as the
            checkpoint says, which may crop the image (DINOv2's drops 23 % of a square one);
            ``"pad"``: the whole image, centered on a black square; ``"stretch"``: the whole image,
            without keeping its proportions. Embeddings of different ways are never mixed.
        features: What of the image network is returned. ``"projected"``: the space that images
            share with texts, the default where there is one; ``"pooled"``: the vector before that
            projection, the default of others; ``"cls"``: the class token; ``"mean"``: the mean of
            the patch tokens; ``"cls+mean"``: both, concatenated; ``"layers:-1,-2,-3,-4"``: the
            class tokens of these layers, counted from the last; ``"layers:-1,-2+mean"``: with the
            mean of the patch tokens of each; ``"tokens:7"``: the class token and the patch tokens,
            averaged to 7 rows of 7. Only ``"projected"`` ones are comparable with texts.
        views: Number of views of an image whose embeddings are averaged: the image itself, and
            copies that are shifted, scaled and rotated a little, never mirrored.

    Returns:
        The encoder; see ``Encoder`` for its attributes and methods.

    Raises:
        UnknownNameError: There is no such encoder, or way to resize.
        UsageError: The arguments contradict each other, the encoder does not offer the features,
            this machine lacks the device, or an optional dependency is not installed.
        CheckpointError: The weights are missing, incomplete or of an unsupported model type.

    Example:
        >>> import featurecache as fc
        >>> encoder = fc.load_encoder("tiny", device="cpu")
        >>> encoder.dim, encoder.has_text, encoder.aligned
        (128, True, True)
        >>> encoder.encode_texts(["signs of edema"]).shape
        (1, 128)
    """
    check_model(
        name,
        backend=backend,
        precision=precision,
        resize=resize,
        features=features,
        views=views,
    )
    path = None if weights is None else Path(weights).expanduser()
    execution, device = default_execution(backend, precision), resolve_device(device)
    encoder = _load(os.fspath(name), path, device=device, precision=execution.precision)
    encoder.use_backend(execution.backend)
    encoder.use_resize(resize)
    if features is not None:
        encoder.use_features(parse_features(features))
    return encoder if views == 1 else AveragedViews(encoder, views)


def _load(name: str, path: Path | None, *, device: str, precision: str) -> Encoder:
    if name.startswith(HUB_PREFIX):
        return _load_from_hub(name, weights=path, device=device, precision=precision)
    if name.startswith(TIMM_PREFIX):
        return _load_timm(name, weights=path, device=device, precision=precision)
    if spec := find_encoder(name):
        encoder = _load_registered(spec, weights=path, device=device, precision=precision)
        if spec.embedded and path is None:
            encoder.provenance = _embedded_provenance(name)
        elif encoder.provenance == Provenance():
            encoder.provenance = Provenance(spec.exposed_to)
        return encoder
    if path is not None:
        raise UsageError(f"{name} is a folder with weights of its own: leave out `weights`")
    return _load_folder(Path(name).expanduser(), device=device, precision=precision)


@cache
def _embedded_provenance(name: str) -> Provenance:
    """Read it once: its thousands of images take longer to parse than the rest to load."""
    return read_provenance(_EMBEDDED / name)


def check_model(
    model: str | os.PathLike[str] | Encoder,
    *,
    weights: str | os.PathLike[str] | None = None,
    backend: str = "auto",
    precision: str = "auto",
    resize: str = "published",
    features: str | None = None,
    views: int = 1,
) -> None:
    """Check what ``as_encoder`` is going to load, as far as that takes no time.

    Args:
        model: See ``as_encoder``.
        weights: See ``as_encoder``.
        backend: See ``as_encoder``.
        precision: See ``as_encoder``.
        resize: See ``as_encoder``.
        features: See ``as_encoder``.
        views: See ``as_encoder``.

    Raises:
        UnknownNameError: There is no such model, or way to resize.
        CheckpointError: The model or ``weights`` is a single file.
        UsageError: An argument has no effect on an ``Encoder``, or there is no such backend,
            precision or features.
    """
    check_resize(resize)
    check_views(views)
    wanted = None if features is None else parse_features(features)
    check_execution(backend, precision)
    if isinstance(model, Encoder):
        if weights is not None:
            raise UsageError(f"{model.name} is loaded already: leave out `weights`")
        if resize not in ("published", model.resize):
            raise UsageError(f"{model.name} is loaded already: give `resize` to load_encoder")
        if wanted not in (None, model.features):
            raise UsageError(f"{model.name} is loaded already: give `features` to load_encoder")
        if views not in (1, model.n_views):
            raise UsageError(f"{model.name} is loaded already: give `views` to load_encoder")
        return
    name = os.fspath(model)
    spec = find_encoder(name)
    is_known = name.startswith((HUB_PREFIX, TIMM_PREFIX)) or spec is not None
    family = "dual" if spec is None else spec.family
    if weights is not None and family not in ("custom", "medclip"):
        layout = OPEN_CLIP if family == "open_clip" else TRANSFORMERS
        is_converted = name.startswith(TIMM_PREFIX) or bool(spec and spec.download)
        require_no_file(Path(weights).expanduser(), layout, model=name if is_converted else None)
    if not is_known and not Path(name).expanduser().is_dir():
        require_no_file(Path(name).expanduser())
        hint = "a model may also be hf:ORG/NAME, timm:NAME or the path of a folder"
        raise UnknownNameError("model", name, ENCODERS, hint=hint)


def encoder_class(model: str) -> type[Encoder] | None:
    """Return the class of a model's encoder, which states what it embeds, without loading it.

    Args:
        model: See ``load_encoder``.

    Returns:
        The class; None for a repository of the hub, whose configuration would be downloaded, and
        for an encoder with a loader of its own.

    Raises:
        CheckpointError: A folder is no checkpoint, or its model type is not supported.
    """
    if model.startswith(TIMM_PREFIX):
        return TimmEncoder
    if spec := find_encoder(model):
        families = {**_FAMILIES, "pair": PairEncoder, "medclip": MedclipEncoder}
        return families.get(spec.family)
    if model.startswith(HUB_PREFIX):
        return None
    folder = _encoder_folder(Path(model).expanduser())
    return _class_of(open_checkpoint(folder, TRANSFORMERS), name=folder.name)


def as_encoder(
    model: str | os.PathLike[str] | Encoder,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    resize: str = "published",
    features: str | None = None,
    views: int = 1,
) -> Encoder:
    """Return an encoder as it is, and load one that is given by its name or folder.

    Args:
        model: An encoder, or what ``load_encoder`` takes.
        weights: See ``load_encoder``; only with a name.
        device: See ``load_encoder``. An encoder keeps its own.
        backend: See ``load_encoder``. An encoder keeps its own.
        precision: See ``load_encoder``. An encoder keeps its own.
        resize: See ``load_encoder``; only with a name.
        features: See ``load_encoder``; only with a name.
        views: See ``load_encoder``; only with a name.

    Raises:
        UsageError: ``weights``, ``resize``, ``features`` or ``views`` is given beside an encoder;
            or see ``load_encoder``.
    """
    if isinstance(model, Encoder):
        check_model(model, weights=weights, resize=resize, features=features, views=views)
        return model
    return load_encoder(
        model,
        weights=weights,
        device=device,
        backend=backend,
        precision=precision,
        resize=resize,
        features=features,
        views=views,
    )


def reload_encoder(
    name: str,
    spec: Mapping[str, Any],
    *,
    model: str | os.PathLike[str] | Encoder | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    source: object = None,
    argument: str = "model",
) -> Encoder:
    """Load the encoder that a cache or a run was made with, executed in the same way.

    A difference in library versions alone gives a ``FeaturecacheWarning``.

    Args:
        name: Name of the encoder, as the cache or run has it.
        spec: Its image spec, as the cache or run has it.
        model: What to load instead of ``name``, such as a folder of the same weights.
        weights: A local checkpoint; None for the usual places.
        device: See ``load_encoder``.
        source: The cache or run, named in messages; None for the encoder's name.
        argument: The caller's argument that ``model`` comes from, named in messages.

    Raises:
        RunError: The encoder differs from ``spec`` in more than library versions; the message
            names the field. Or no model has that name.
    """
    source = f"what {name} embedded" if source is None else source
    if "imported" in spec:
        raise RunError(
            f"{source} has embeddings that another program made with {name}, which featurecache "
            "cannot run: no other image or text can be embedded like them"
        )
    backend, precision = (str(spec.get(name, "auto")) for name in ("backend", "precision"))
    resize, features = str(spec.get("resize", "published")), spec.get("features")
    views = spec.get("views", 1)
    try:
        encoder = as_encoder(
            model or name,
            weights=weights,
            device=device,
            backend=backend,
            precision=precision,
            resize=resize,
            features=features,
            views=views,
        )
    except UnknownNameError as error:
        if model is not None:
            raise
        raise RunError(
            f"{source} needs the encoder {name}, which is not a registered model: give its folder "
            f"as `{argument}`"
        ) from error
    if difference := library_difference(spec, encoder.image_spec, source=source):
        warnings.warn(
            f"{source} was made with other library versions ({difference})",
            FeaturecacheWarning,
            stacklevel=2,
        )
    return encoder


def load_architecture(folder: str | os.PathLike[str], *, device: str = "auto") -> Encoder:
    """Load an encoder from a folder without its weights.

    It can ``preprocess`` and be trained from random weights by ``trainable(init_seed=...)``.
    Whatever needs weights, specs and embeddings included, raises CheckpointError.

    Args:
        folder: Folder with config.json and the files of the image processor and the tokenizer.
        device: See ``load_encoder``.

    Raises:
        UsageError: This machine has no such device.
        CheckpointError: A file is missing, or the model type is not supported.
    """
    return _load_by_model_type(
        open_architecture(Path(folder).expanduser()),
        name=Path(folder).expanduser().resolve().name,
        device=resolve_device(device),
        precision="fp32",
    )


def _load_from_hub(name: str, *, weights: Path | None, device: str, precision: str) -> Encoder:
    hub_id, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
    checkpoint = find_checkpoint(
        hub_id.rpartition("/")[2],
        hub_id=hub_id,
        layout=TRANSFORMERS,
        weights=weights,
        revision=revision or None,
    )
    encoder = _load_by_model_type(checkpoint, name=name, device=device, precision=precision)
    encoder.provenance = Provenance(exposed_to(name))
    return encoder


def _load_timm(name: str, *, weights: Path | None, device: str, precision: str) -> Encoder:
    model = name.removeprefix(TIMM_PREFIX)
    if weights is None:
        checkpoint = find_checkpoint(model, hub_id=hub_id_of(model), layout=TRANSFORMERS)
    else:
        require_no_file(weights, model=name)
        checkpoint = open_checkpoint(weights, TRANSFORMERS)
    architecture = checkpoint.config().get("architecture")
    if architecture != model.partition(".")[0]:
        raise CheckpointError(
            f"{checkpoint.folder} has weights of the architecture {architecture!r}, not {model}"
        )
    return TimmEncoder(checkpoint, name=name, device=device, precision=precision)


def _load_folder(folder: Path, *, device: str, precision: str) -> Encoder:
    encoder_folder = _encoder_folder(folder)
    checkpoint = open_checkpoint(encoder_folder, TRANSFORMERS)
    encoder = _load_by_model_type(
        checkpoint, name=folder.resolve().name, device=device, precision=precision
    )
    if encoder_folder != folder or (folder / PROVENANCE_FILE).is_file():
        encoder.provenance = read_provenance(folder)
    return encoder


def _encoder_folder(folder: Path) -> Path:
    """Return the folder itself, or the encoder inside the folder of a fine-tuning run."""
    config = folder / "config.json"
    if not config.is_file() or read_json(config).get("format") != RUN_FORMAT:
        return folder
    if not (folder / "encoder").is_dir():
        raise CheckpointError(
            f"{folder} is a run without an encoder of its own: give a fine-tuning run, or the "
            "model that the run was made with"
        )
    for path in (folder, *folder.rglob("*")):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(
                f"{path} is a link out of the run folder: put the file itself there, or make the "
                "run again"
            )
    return folder / "encoder"


def _load_registered(
    spec: EncoderSpec, *, weights: Path | None, device: str, precision: str
) -> Encoder:
    if spec.family == "custom":
        loader = custom_loader(spec.name)
        encoder = loader(device=device, precision=precision, weights=weights)
        if not isinstance(encoder, Encoder):
            raise UsageError(
                f"the loader of the encoder {spec.name} returned a {type(encoder).__name__}, not "
                "an Encoder: correct the function that was registered"
            )
        encoder.name = spec.name
        return encoder
    if spec.family == "pair":
        if weights is not None:
            raise UsageError(
                f"{spec.name} has two checkpoints, so `weights` cannot name them: put "
                f"{' and '.join(spec.members)} into ${MODELS_VARIABLE}"
            )
        vision, text = (
            _load_registered(ENCODERS[member], weights=None, device=device, precision=precision)
            for member in spec.members
        )
        return PairEncoder(vision, text, name=spec.name)
    if spec.family == "medclip":
        return MedclipEncoder(
            find_medclip(weights), name=spec.name, device=device, precision=precision
        )
    if spec.family == "open_clip":
        require_open_clip(spec.name)
    if spec.embedded:
        checkpoint = open_checkpoint(weights or _EMBEDDED / spec.name, TRANSFORMERS)
    elif spec.download:
        folder = weights or _converted_folder(spec)
        require_no_file(folder, model=spec.name)
        checkpoint = open_checkpoint(folder, TRANSFORMERS)
        return _load_by_model_type(checkpoint, name=spec.name, device=device, precision=precision)
    else:
        checkpoint = find_checkpoint(
            spec.name,
            hub_id=spec.hub_ids[0],
            layout=OPEN_CLIP if spec.family == "open_clip" else TRANSFORMERS,
            weights=weights,
            gated=spec.gated,
        )
    return _FAMILIES[spec.family](checkpoint, name=spec.name, device=device, precision=precision)


def _converted_folder(spec: EncoderSpec) -> Path:
    if folder := local_folder(spec.name):
        return folder
    raise CheckpointError(
        f"the weights of {spec.name} are not on this machine: get them {spec.download}, "
        f"convert them with convert_checkpoint(FILE, FOLDER, model={spec.name!r}) in Python or "
        f"'featurecache models convert', and give the folder as `weights`, or put it at "
        f"${MODELS_VARIABLE}/{spec.name}"
    )


def _load_by_model_type(
    checkpoint: Checkpoint, *, name: str, device: str, precision: str
) -> Encoder:
    return _class_of(checkpoint, name=name)(
        checkpoint, name=name, device=device, precision=precision
    )


def _class_of(checkpoint: Checkpoint, *, name: str) -> type[CheckpointEncoder]:
    config = checkpoint.config()
    model_type = config.get("model_type")
    if model_type is None and "architecture" in config:
        return TimmEncoder
    if model_type not in _MODEL_TYPES:
        raise CheckpointError(
            f"{name} has model_type {model_type!r} in its config.json; supported are "
            f"{', '.join(_MODEL_TYPES)}, and what timm writes"
        )
    return _MODEL_TYPES[model_type]
