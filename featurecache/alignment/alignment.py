"""The alignment of two encoders, and the file that holds it.

A safetensors file beside a cache. Its tensors, all float32::

    weight (D, T)   offset (T,)   scale (1,)   bias (1,)

Its metadata, texts by name: ``format``, ``version``, ``fingerprint``, ``spec`` (JSON: descriptions
of both encoders, the method, its settings, prompts and validation figures) and ``trained_on``
(JSON: collection to the ids that it learned from). The fingerprint is of ``spec``, ``trained_on``
and the tensors' bytes, so that a file that was altered is noticed.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import AlignmentError
from featurecache.io import json as strict_json
from featurecache.io.atomic import new_file, require_absent
from featurecache.io.fingerprint import canonical_json, fingerprint

FORMAT = "featurecache-alignment"
VERSION = 1


@dataclass(frozen=True, eq=False)
class Alignment:
    """An affine map of image embeddings into the space of a text encoder.

    An image embedding x of D values, brought to unit length, becomes ``x @ weight + offset``, whose
    cosines with text embeddings mean something. The texts stay as they are.

    Attributes:
        weight: (D, T) float32.
        offset: (T,) float32.
        scale: the factor on the cosine, above 0, as exp(logit_scale) of a trained pair.
        bias: added to the scaled cosine in sigmoid scores, as logit_bias of a trained pair.
        spec: ``image_encoder`` and ``text_encoder`` (descriptions), ``model``, ``dataset``,
            ``method``, ``settings``, ``prompts``, ``labels`` and ``validation``, as a value with a
            canonical JSON.
        trained_on: collection to the ids of the images that it, or its encoder's fine-tuning,
            learned from or chose something by.
    """

    weight: NDArray[np.float32]
    offset: NDArray[np.float32]
    scale: float
    bias: float
    spec: Mapping[str, Any]
    trained_on: Mapping[str, frozenset[str]]

    @cached_property
    def fingerprint(self) -> str:
        """The sha256, in hex, of all that it holds."""
        tensors = {
            name: hashlib.sha256(tensor.astype("<f4").tobytes()).hexdigest()
            for name, tensor in self.tensors().items()
        }
        return fingerprint({"spec": self.spec, "trained_on": self._ids(), "tensors": tensors})

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """As the file holds them."""
        numbers = {"scale": self.scale, "bias": self.bias}
        return {
            # safetensors writes the memory of an array as it lies, whatever its strides.
            "weight": np.ascontiguousarray(self.weight),
            "offset": np.ascontiguousarray(self.offset),
            **{name: np.array([number], dtype=np.float32) for name, number in numbers.items()},
        }

    def metadata(self) -> dict[str, str]:
        """As the file holds it."""
        return {
            "format": FORMAT,
            "version": str(VERSION),
            "fingerprint": self.fingerprint,
            "spec": canonical_json(self.spec),
            "trained_on": canonical_json(self._ids()),
        }

    def _ids(self) -> dict[str, list[str]]:
        return {collection: sorted(ids) for collection, ids in self.trained_on.items()}


def write_alignment(target: Path, alignment: Alignment) -> None:
    """Write an alignment, whole or not at all.

    Raises:
        UsageError: something is at ``target`` already.
        OSError: the disk is full or not writable.
    """
    from safetensors.numpy import save_file

    require_absent(target)
    with new_file(target) as unfinished:
        save_file(alignment.tensors(), unfinished, metadata=alignment.metadata())


def read_alignment(path: Path) -> Alignment:
    """Read and check an alignment.

    Raises:
        AlignmentError: the file is missing, damaged, altered, of another kind or newer.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise AlignmentError(f"no alignment at {path}: make one with 'featurecache align'")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AlignmentError(
            f"{path} cannot be read as safetensors ({error}): restore it from a copy, or make it "
            "again with 'featurecache align'"
        ) from error
    try:
        alignment = _parse(metadata, tensors)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise AlignmentError(
            f"{path} is damaged ({error}): restore it from a copy, or make it again with "
            "'featurecache align'"
        ) from error
    return alignment


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise AlignmentError(
            f"{path} is safetensors but no alignment (format: {metadata.get('format')!r}): make "
            "one with 'featurecache align'"
        )
    version = metadata.get("version", "")
    if not version.isascii() or not version.isdigit() or int(version) < 1:
        raise AlignmentError(f"{path} has no valid format version (found {version!r})")
    if int(version) > VERSION:
        raise AlignmentError(
            f"{path} has format version {version}, this featurecache reads up to {VERSION}: "
            "upgrade with 'pip install --upgrade featurecache'"
        )


def _parse(metadata: Mapping[str, str], tensors: Mapping[str, NDArray[Any]]) -> Alignment:
    for name, dimensions in (("weight", 2), ("offset", 1), ("scale", 1), ("bias", 1)):
        tensor = tensors[name]
        if tensor.dtype != np.float32 or tensor.ndim != dimensions or not np.isfinite(tensor).all():
            raise ValueError(
                f"{name} is {tensor.dtype} {tensor.shape}, or not finite: expected float32 of "
                f"{dimensions} dimensions"
            )
    weight, offset = tensors["weight"], tensors["offset"]
    scale, bias = tensors["scale"], tensors["bias"]
    if weight.shape[1:] != offset.shape or scale.shape != (1,) or bias.shape != (1,):
        raise ValueError(
            f"weight {weight.shape}, offset {offset.shape}, scale {scale.shape} and bias "
            f"{bias.shape} do not fit each other"
        )
    alignment = Alignment(
        weight=weight,
        offset=offset,
        scale=float(scale[0]),
        bias=float(bias[0]),
        spec=strict_json.validate(strict_json.parse(metadata["spec"]), dict[str, Any]),
        trained_on={
            collection: frozenset(ids)
            for collection, ids in strict_json.validate(
                strict_json.parse(metadata["trained_on"]), dict[str, list[str]]
            ).items()
        },
    )
    if alignment.fingerprint != metadata["fingerprint"]:
        raise ValueError("its fingerprint is not that of what it holds; the file was altered")
    return alignment
