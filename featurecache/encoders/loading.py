"""From a name to an encoder: registered ones, any fitting hub repository, or a folder."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featurecache.encoders.checkpoint import (
    OPEN_CLIP,
    TRANSFORMERS,
    Checkpoint,
    open_architecture,
    open_checkpoint,
    read_json,
)
from featurecache.encoders.clip import MODEL_TYPES, DualEncoder
from featurecache.encoders.compatibility import library_difference
from featurecache.encoders.encoder import Encoder
from featurecache.encoders.hub import MODELS_VARIABLE, find_checkpoint
from featurecache.encoders.inference import resolve_device, resolve_precision
from featurecache.encoders.medclip import MedclipEncoder, find_medclip
from featurecache.encoders.medclip_network import MODEL_TYPE as MEDCLIP_TYPE
from featurecache.encoders.open_clip import OpenClipEncoder, require_open_clip
from featurecache.encoders.pair import PairEncoder
from featurecache.encoders.registry import SPECS, EncoderSpec, exposed_to
from featurecache.encoders.unimodal import TEXT_TYPES, VISION_TYPES, TextEncoder, VisionEncoder
from featurecache.errors import CheckpointError, UnknownNameError, UsageError
from featurecache.provenance import Provenance, read_provenance

_log = logging.getLogger(__name__)

HUB_PREFIX = "hf:"

_EMBEDDED = Path(__file__).parent

RUN_FORMAT = "featurecache-run"
"""What a run folder's config.json has as its ``format``."""

_Adapter = (
    type[DualEncoder]
    | type[VisionEncoder]
    | type[TextEncoder]
    | type[MedclipEncoder]
    | type[OpenClipEncoder]
)
_SHAPES: dict[str, _Adapter] = {
    **dict.fromkeys(MODEL_TYPES, DualEncoder),
    **dict.fromkeys(VISION_TYPES, VisionEncoder),
    **dict.fromkeys(TEXT_TYPES, TextEncoder),
    MEDCLIP_TYPE: MedclipEncoder,
}


def load_encoder(
    name: str,
    *,
    weights: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Encoder:
    """Make an encoder ready: its files found, its configuration read, its weights not yet loaded.

    Args:
        name: a registry name (see ``SPECS``), ``hf:ORG/NAME`` or ``hf:ORG/NAME@REVISION``, or the
            path of a checkpoint folder or of a run that fine-tuned an encoder.
        weights: a local checkpoint folder to use for ``name``; for medclip also its file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto`` (fp32), ``fp32`` or ``bf16``.

    Raises:
        UnknownNameError: no such name.
        UsageError: the options contradict each other, or an extra is not installed.
        CheckpointError: the weights are missing, incomplete, or of an unsupported shape.
    """
    device = resolve_device(device)
    precision = resolve_precision(precision)
    folder = Path(name).expanduser()
    if name in SPECS:
        spec = SPECS[name]
        encoder = _load_registered(spec, weights=weights, device=device, precision=precision)
        encoder.provenance = (
            read_provenance(_EMBEDDED / name)
            if spec.embedded and weights is None
            else Provenance(exposed_to(name))
        )
    elif name.startswith(HUB_PREFIX):
        hub_id, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
        checkpoint = find_checkpoint(
            hub_id.rpartition("/")[2],
            hub_id=hub_id,
            layout=TRANSFORMERS,
            weights=weights,
            revision=revision or None,
        )
        encoder = _load_by_shape(checkpoint, name=name, device=device, precision=precision)
        encoder.provenance = Provenance(exposed_to(name))
        encoder.revision = checkpoint.revision
    elif folder.is_dir():
        if weights is not None:
            raise UsageError(f"the model {name} is a folder of weights: leave out --weights")
        inner = _encoder_folder(folder)
        checkpoint = open_checkpoint(inner, TRANSFORMERS)
        encoder = _load_by_shape(
            checkpoint, name=folder.resolve().name, device=device, precision=precision
        )
        if inner != folder:
            encoder.provenance = read_provenance(folder)
    else:
        error = UnknownNameError("model", name, SPECS)
        error.args = (f"{error}; a model may also be hf:ORG/NAME or the path of a folder",)
        raise error
    return encoder


def load_architecture(folder: Path, *, device: str = "auto") -> Encoder:
    """Make an encoder from a folder without weights, or whose weights are not wanted.

    It can ``preprocess``, and be trained from fresh weights by ``trainable(init_seed=...)``;
    what needs weights, descriptions and embeddings included, raises CheckpointError.

    Args:
        folder: config.json with the files of the image processor and the tokenizer.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        UsageError: this machine has no such device.
        CheckpointError: a file is missing, or the model is of an unsupported shape.
    """
    return _load_by_shape(
        open_architecture(folder),
        name=folder.resolve().name,
        device=resolve_device(device),
        precision="fp32",
    )


def _encoder_folder(folder: Path) -> Path:
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
    if spec.family == "pair":
        if weights is not None:
            raise UsageError(
                f"{spec.name} has two checkpoints, so --weights cannot name them: put "
                f"{' and '.join(spec.parts)} into ${MODELS_VARIABLE}"
            )
        vision, text = (
            _load_registered(SPECS[part], weights=None, device=device, precision=precision)
            for part in spec.parts
        )
        return PairEncoder(vision, text, name=spec.name)
    if spec.family == "medclip":
        checkpoint = find_medclip(weights)
        return MedclipEncoder(checkpoint, name=spec.name, device=device, precision=precision)
    if spec.family == "open_clip":
        require_open_clip(spec.name)
    if spec.embedded:
        checkpoint = open_checkpoint(weights or _EMBEDDED / spec.name, TRANSFORMERS)
    else:
        checkpoint = find_checkpoint(
            spec.name,
            hub_id=spec.hub_ids[0],
            layout=OPEN_CLIP if spec.family == "open_clip" else TRANSFORMERS,
            weights=weights,
            gated=spec.gated,
        )
    families: dict[str, _Adapter] = {
        "dual": DualEncoder,
        "vision": VisionEncoder,
        "text": TextEncoder,
        "open_clip": OpenClipEncoder,
    }
    family = families[spec.family]
    encoder = family(checkpoint, name=spec.name, device=device, precision=precision)
    encoder.revision = checkpoint.revision
    return encoder


def _load_by_shape(checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> Encoder:
    model_type = checkpoint.config().get("model_type")
    if model_type not in _SHAPES:
        raise CheckpointError(
            f"{name} has model_type {model_type!r} in its config.json; supported are "
            f"{', '.join(_SHAPES)}"
        )
    return _SHAPES[model_type](checkpoint, name=name, device=device, precision=precision)


def reload_encoder(
    name: str,
    spec: Mapping[str, Any],
    *,
    made_by: str,
    model: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
) -> Encoder:
    """Load the encoder behind a cache or a run again, in its precision.

    Other versions of the libraries are logged as a warning.

    Args:
        name: Name of the encoder.
        spec: Its image spec, as the cache or the run records it.
        made_by: The cache or run, for messages.
        model: Name or folder to load in place of ``name``.
        weights: Local checkpoint; None for the usual places.
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        The encoder.

    Raises:
        RunError: The encoder that was found is another one; the message names the field.
    """
    encoder = load_encoder(
        model or name,
        weights=None if weights is None else Path(weights),
        device=device,
        precision=str(spec.get("precision", "auto")),
    )
    if difference := library_difference(spec, encoder.image_spec, run=made_by):
        _log.warning("%s was made with other library versions (%s)", made_by, difference)
    return encoder
