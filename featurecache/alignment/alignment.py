"""The ``Alignment`` of an image and a text encoder, and the file that holds it.

The file is in safetensors format and lies next to a cache. Its tensors, all float32::

    weight (D, T)   offset (T,)   scale (1,)   bias (1,)

Its metadata, all strings: ``format``, ``version``, ``fingerprint``, ``spec`` (JSON: specs of both
encoders, method, settings, prompts and validation metrics) and ``trained_on`` (JSON: the images
that it was fitted to, as in ``provenance.json``). The fingerprint covers ``spec``, ``trained_on``
and the bytes of the tensors, so that a modified file is detected.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import AlignmentError, UsageError
from featurecache.io import json as strict_json
from featurecache.io.atomic import new_file, require_absent
from featurecache.io.fingerprint import canonical_json, fingerprint
from featurecache.io.system_errors import raise_if_inaccessible
from featurecache.provenance.provenance import (
    TrainingImages,
    training_images_from_json,
    training_images_to_json,
)

FORMAT = "featurecache-alignment"
VERSION = 1


@dataclass(frozen=True, eq=False, repr=False)
class Alignment:
    """An affine map from image embeddings into the space of a text encoder.

    An L2-normalized image embedding x of D values becomes ``x @ weight + offset``, whose cosine
    with a text embedding measures how well the text describes the image. Text embeddings are not
    changed. Fit one with ``align``, or load one from a file.

    Attributes:
        weight: (D, T) float32.
        offset: (T,) float32.
        scale: Factor on the cosine, above 0, like exp(logit_scale) of a CLIP-like model.
        bias: Added to the scaled cosine in sigmoid scores, like logit_bias of a SigLIP model.
        spec: ``image_encoder`` and ``text_encoder`` (their specs), ``model``, ``dataset``,
            ``method``, ``settings``, ``prompts``, ``labels``, ``units`` and ``validation``, all
            of them values with a canonical JSON form.
        trained_on: The images, by collection, that it was fitted to or selected on; those that its
            encoder was fine-tuned on are included.
        path: File that it was loaded from, or where ``save`` writes it by default.

    Example:
        >>> import featurecache as fc
        >>> alignment = fc.align("cache/phantom/dinov2-minilm.h5")  # doctest: +SKIP
        >>> path = alignment.save()  # doctest: +SKIP
        >>> fc.zero_shot("cache/phantom/dinov2-minilm.h5", alignment=path)  # doctest: +SKIP
    """

    weight: NDArray[np.float32]
    offset: NDArray[np.float32]
    scale: float
    bias: float
    spec: Mapping[str, Any]
    trained_on: TrainingImages
    path: Path | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        dims = " to ".join(map(str, self.weight.shape))
        name, dataset = self.spec.get("model"), self.spec.get("dataset")
        auroc = (self.spec.get("validation") or {}).get("auroc")
        score = "" if auroc is None else f", validation AUROC {auroc:.3f}"
        return f"Alignment({self.spec.get('method')}, {name} on {dataset}, {dims} values{score})"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the file holds, in hex."""
        tensors = {
            name: hashlib.sha256(tensor.astype("<f4").tobytes()).hexdigest()
            for name, tensor in self._tensors().items()
        }
        return fingerprint(
            {
                "spec": self.spec,
                "trained_on": training_images_to_json(self.trained_on),
                "tensors": tensors,
            }
        )

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the alignment to a file. The file appears when it is complete.

        Args:
            path: The file to write; by default ``<model>.<prompts>-<method>.alignment.safetensors``
                next to the cache that it was fitted to.

        Returns:
            The path of the file; it may hold this alignment already.

        Raises:
            UsageError: The file exists and holds something else, or there is no default path.
            OSError: The disk is full or not writable.
        """
        from safetensors.numpy import save

        target = self.path if path is None else Path(path).expanduser()
        if target is None:
            raise UsageError("give `path`: the alignment was not fitted to a cache file")
        if _fingerprint_in(target) == self.fingerprint:
            return target
        require_absent(target)
        metadata = {
            "format": FORMAT,
            "version": str(VERSION),
            "fingerprint": self.fingerprint,
            "spec": canonical_json(self.spec),
            "trained_on": canonical_json(training_images_to_json(self.trained_on)),
        }
        with new_file(target) as temporary:
            temporary.write_bytes(_sort_header(save(self._tensors(), metadata=metadata)))
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Alignment":
        """Read and check an alignment file.

        Raises:
            AlignmentError: The file is missing, damaged, modified, of another kind, or of a newer
                format version.
            OSError: The file cannot be accessed.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path).expanduser()
        if not path.is_file():
            raise AlignmentError(f"there is no alignment file at {path}: fit one to the cache")
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                _check_format(path, metadata)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise_if_inaccessible(error, path)
            raise AlignmentError(
                f"{path} cannot be read as safetensors ({error}): restore it, or fit it again"
            ) from error
        try:
            return _parse(path, metadata, tensors)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise AlignmentError(
                f"{path} is damaged ({error}): restore it, or fit it again"
            ) from error

    def _tensors(self) -> dict[str, NDArray[np.float32]]:
        return {
            # safetensors writes an array's memory as it is, ignoring its strides.
            "weight": np.ascontiguousarray(self.weight),
            "offset": np.ascontiguousarray(self.offset),
            "scale": np.array([self.scale], dtype=np.float32),
            "bias": np.array([self.bias], dtype=np.float32),
        }


def as_alignment(alignment: Alignment | str | os.PathLike[str] | None) -> Alignment | None:
    """Return an alignment as it is, or load it from its path, for functions that accept both.

    Raises:
        AlignmentError: As ``Alignment.load``.
    """
    if alignment is None or isinstance(alignment, Alignment):
        return alignment
    return Alignment.load(alignment)


def require_absent_or_alignment(path: Path) -> None:
    """Check that a path is free, or holds an alignment: ``save`` accepts an equal one.

    Raises:
        UsageError: It is another file, or a damaged one.
    """
    if _fingerprint_in(path) is None:
        require_absent(path)


def _fingerprint_in(path: Path) -> str | None:
    try:
        return Alignment.load(path).fingerprint
    except AlignmentError:
        return None


def _sort_header(content: bytes) -> bytes:
    """Sort the header of a safetensors file, which has its metadata in a random order."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = canonical_json(strict_json.parse(content[8:start])).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise AlignmentError(
            f"{path} is a safetensors file, but not an alignment (format: "
            f"{metadata.get('format')!r}): give an alignment file"
        )
    if metadata.get("version") != str(VERSION):
        raise AlignmentError(
            f"{path} has format version {metadata.get('version')!r}, but this featurecache reads "
            f"only {VERSION}: upgrade featurecache"
        )


def _parse(
    path: Path, metadata: Mapping[str, str], tensors: Mapping[str, NDArray[Any]]
) -> Alignment:
    for name, n_dimensions in (("weight", 2), ("offset", 1), ("scale", 1), ("bias", 1)):
        tensor = tensors[name]
        if tensor.dtype != np.float32 or tensor.ndim != n_dimensions:
            raise ValueError(
                f"{name} is {tensor.dtype} of shape {tensor.shape}, but should be float32 with "
                f"{n_dimensions} dimensions"
            )
        if not np.isfinite(tensor).all():
            raise ValueError(f"{name} has values that are not finite")
    weight, offset, scale, bias = (tensors[name] for name in ("weight", "offset", "scale", "bias"))
    if weight.shape[1:] != offset.shape or scale.shape != (1,) or bias.shape != (1,):
        raise ValueError(
            f"the shapes of weight {weight.shape}, offset {offset.shape}, scale {scale.shape} and "
            f"bias {bias.shape} do not match"
        )
    alignment = Alignment(
        weight=weight,
        offset=offset,
        scale=float(scale[0]),
        bias=float(bias[0]),
        spec=strict_json.validate(strict_json.parse(metadata["spec"]), dict[str, Any]),
        trained_on=training_images_from_json(strict_json.parse(metadata["trained_on"])),
        path=path,
    )
    if alignment.fingerprint != metadata["fingerprint"]:
        raise ValueError("its fingerprint does not match its content, which was modified")
    return alignment
