"""Read and validate a finished cache."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from featurecache.errors import CacheError
from featurecache.execution import Probe
from featurecache.io import json as strict_json
from featurecache.io.fingerprint import fingerprint
from featurecache.label_cells import VALID_CELLS, LabelPolicy
from featurecache.provenance.perceptual_hash import HASH_BYTES
from featurecache.provenance.records import ImageRecords
from featurecache.store.cache import Cache, file_state
from featurecache.store.checksums import require_intact
from featurecache.store.hdf5 import numeric, opened, read_numbers, read_strings, subgroup
from featurecache.store.layout import EMBEDDING, FORMAT
from featurecache.store.records import (
    Counts,
    Extraction,
    Header,
    ImageTable,
    Labels,
    Listed,
    TextEmbeddings,
    TextSet,
    from_utf8,
)
from featurecache.store.validation import Value
from featurecache.store.validity import image_problems, label_problems, require_valid

if TYPE_CHECKING:
    import h5py

_Plain = TypeVar("_Plain", str, int, float, bool)
_KINDS: Final = {str: "text", int: "an integer", float: "a number", bool: "a boolean"}


def read_cache(path: str | os.PathLike[str]) -> Cache:
    """Read and validate a finished cache; its embeddings are left in the file.

    Args:
        path: The file.

    Raises:
        CacheError: The file is missing, damaged, of another version, or contradicts itself; the
            message names the part that is wrong.
    """
    path = Path(path)
    with opened(path, FORMAT) as file:
        state = file_state(file)
        objects, checksums = require_intact(file, skip=EMBEDDING)
        attributes = objects["/"].attributes
        encoder_spec, spec_fingerprint = read_encoder_spec(file.filename, attributes)
        images, dim = _read_images(file)
        header = _read_header(file, attributes, encoder_spec)
        text_group = subgroup(file, "text")
        return Cache(
            path=path,
            header=header,
            fingerprint=spec_fingerprint,
            created=str(attributes.get("created", "")),
            images=images,
            dim=dim,
            labels=_read_labels(file, len(images), header.policy),
            texts={
                name: _read_text(
                    subgroup(text_group, name), name, objects[f"/text/{name}"].attributes
                )
                for name in text_group
            },
            failures=_read_failures(subgroup(file, "failures")),
            state=state,
            sums=checksums.rows[EMBEDDING],
        )


def read_encoder_spec(
    file_name: str, attributes: Mapping[str, Value]
) -> tuple[dict[str, Any], str]:
    """Return the encoder spec of a cache or chunk file, and its fingerprint.

    Args:
        file_name: The file, for messages.
        attributes: Those of its root.

    Raises:
        CacheError: They are missing, or the fingerprint does not match the spec.
    """
    try:
        encoder_spec = strict_json.parse(_require_text(attributes["spec"]))
        stored = str(attributes["fingerprint"])
        matches = isinstance(encoder_spec, dict) and fingerprint(encoder_spec) == stored
    except (KeyError, ValueError, TypeError) as error:
        raise CacheError(
            f"{file_name} is damaged: it has no readable 'spec' and 'fingerprint'"
        ) from error
    if not matches:
        raise CacheError(f"{file_name} is damaged: its fingerprint does not match its spec")
    return encoder_spec, stored


def _read_header(
    file: "h5py.File", attributes: Mapping[str, Value], encoder_spec: Mapping[str, Any]
) -> Header:
    group = subgroup(file, "trained_on")
    trained_on = {
        collection: _read_training_images(subgroup(group, collection), collection)
        for collection in group
    }
    try:
        return Header(
            model=_typed(attributes, "model", str),
            dataset=_typed(attributes, "dataset", str),
            notes=_parse_texts(attributes["notes"]),
            image_level_split=_typed(attributes, "image_level_split", bool),
            exposed=_typed(attributes, "exposed", bool),
            encoder_spec=encoder_spec,
            collection=_typed(attributes, "collection", str),
            trained_on=trained_on,
            probe=_parse_as(attributes["probe"], Probe) if "probe" in attributes else None,
            revision=_typed(attributes, "revision", str) if "revision" in attributes else None,
            excluded=_parse_as(attributes["excluded"], Counts),
            listed=_parse_as(attributes["listed"], Listed) if "listed" in attributes else None,
            bit_depth=_typed(attributes, "bit_depth", int) if "bit_depth" in attributes else None,
            libraries=tuple(_parse_as(attributes.get("libraries", "[]"), list[dict[str, str]])),
            split_draw=_typed({"split_draw": "", **attributes}, "split_draw", str),
            policy=LabelPolicy(**_parse_as(attributes.get("label_policy", "{}"), dict[str, str])),
            table=_parse_as(attributes.get("table", "{}"), dict[str, str]),
            extraction=_parse_as(attributes["extraction"], Extraction),
            imported=_parse_as(attributes.get("imported", "{}"), dict[str, str]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise CacheError(
            f"{file.filename} is damaged: an attribute is missing or unreadable: {error}"
        ) from error


def _read_training_images(group: "h5py.Group", collection: str) -> ImageRecords:
    ids = read_strings(group, "id")
    rows = len(ids)
    return ImageRecords(
        collection=collection,
        id=ids,
        patient=read_strings(group, "patient", shape=(rows,)),
        sha256=read_strings(group, "sha256", shape=(rows,)),
        perceptual_hash=read_numbers(
            group, "perceptual_hash", dtype="uint8", shape=(rows, HASH_BYTES)
        ),
    )


def _parse_texts(attribute: Value) -> tuple[str, ...]:
    texts = strict_json.parse(_require_text(attribute))
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{texts!r} is not a list of texts")
    return tuple(texts)


def _parse_as(attribute: Value, shape: Any) -> Any:
    return strict_json.validate(strict_json.parse(_require_text(attribute)), shape)


def _typed(attributes: Mapping[str, Value], name: str, kind: type[_Plain]) -> _Plain:
    """Return an attribute of a type; where that is float, an integer will do."""
    value = attributes[name]
    if type(value) is kind or (kind is float and type(value) is int):
        return kind(value)
    raise ValueError(f"{name} is {value!r}, not {_KINDS[kind]}")


def _require_text(attribute: Value) -> str:
    if not isinstance(attribute, str):
        raise ValueError(f"{attribute!r} is not text")
    return attribute


def _read_images(file: "h5py.File") -> tuple[ImageTable, int]:
    group = subgroup(file, "images")
    ids = read_strings(group, "id")
    rows = len(ids)
    if not (ids[:-1] < ids[1:]).all():
        raise CacheError(f"{file.filename} is damaged: /images/id is not sorted, or has duplicates")
    texts = ("sha256", "patient", "split", "view", "sex", "age", "path")
    images = ImageTable(
        id=ids,
        **{name: read_strings(group, name, shape=(rows,)) for name in texts},
        study=read_strings(group, "study", shape=(rows,))
        if "study" in group
        else np.zeros(rows, dtype="S1"),
        perceptual_hash=read_numbers(
            group, "perceptual_hash", dtype="uint8", shape=(rows, HASH_BYTES)
        ),
        size=read_numbers(group, "size", dtype="int64", shape=(rows,)),
        mtime_ns=read_numbers(group, "mtime_ns", dtype="int64", shape=(rows,)),
    )
    dim = int(numeric(group, "embedding", dtype="float16", shape=(rows, None)).shape[1])
    if dim == 0:
        raise CacheError(f"{file.filename} is damaged: {EMBEDDING} has no columns")
    require_valid(file.filename, image_problems(images))
    return images, dim


def _read_labels(file: "h5py.File", rows: int, policy: LabelPolicy) -> Labels:
    group = subgroup(file, "labels")
    names = tuple(from_utf8(read_strings(group, "names")).tolist())
    cells = read_numbers(group, "values", dtype="int8", shape=(rows, len(names)))
    if len(set(names)) != len(names):
        raise CacheError(f"{file.filename} is damaged: /labels/names has duplicates")
    require_valid(file.filename, label_problems(names, "/labels/names"))
    present = np.flatnonzero(np.bincount(cells.view(np.uint8).ravel(), minlength=256))
    if not set(present.astype(np.uint8).view(np.int8).tolist()) <= VALID_CELLS:
        raise CacheError(
            f"{file.filename} is damaged: /labels/values has values that are no cells of labels"
        )
    return Labels(names, cells, policy)


def _read_failures(group: "h5py.Group") -> dict[str, str]:
    ids = from_utf8(read_strings(group, "id")).tolist()
    reasons = from_utf8(read_strings(group, "reason", shape=(len(ids),))).tolist()
    if len(set(ids)) != len(ids):
        raise CacheError(f"{group.file.filename} is damaged: /failures/id has duplicates")
    return dict(zip(ids, reasons, strict=True))


def _read_text(group: "h5py.Group", name: str, attributes: Mapping[str, Value]) -> TextSet:
    where = f"{group.file.filename} is damaged: {group.name}"
    labels = tuple(from_utf8(read_strings(group, "labels")).tolist())
    if len(set(labels)) != len(labels):
        raise CacheError(f"{where}/labels has duplicates")
    positive = _read_embeddings(group, len(labels), dim=None)
    dim = positive.embedding.shape[2]
    negative = None
    if "negatives" in group:
        negative = _read_embeddings(subgroup(group, "negatives"), len(labels), dim=dim)
    try:
        return TextSet(
            name=name,
            fingerprint=_typed(attributes, "fingerprint", str),
            templates=_parse_texts(attributes["templates"]),
            labels=labels,
            positive=positive,
            negative=negative,
            aligned=_typed(attributes, "aligned", bool),
            scale=_typed(attributes, "scale", float) if "scale" in attributes else None,
            bias=_typed(attributes, "bias", float) if "bias" in attributes else None,
            encoder_spec=dict(strict_json.parse(_require_text(attributes["encoder"])))
            if "encoder" in attributes
            else None,
            n_cut=_typed(attributes, "n_cut", int) if "n_cut" in attributes else 0,
            max_tokens=_typed(attributes, "max_tokens", int)
            if "max_tokens" in attributes
            else None,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise CacheError(f"{where} has a missing or unreadable attribute: {error}") from error


def _read_embeddings(group: "h5py.Group", labels: int, *, dim: int | None) -> TextEmbeddings:
    prompts = from_utf8(read_strings(group, "prompts", shape=(labels, None)))
    embedding = read_numbers(
        group, "embedding", dtype="float32", shape=(labels, prompts.shape[1], dim)
    )
    return TextEmbeddings(
        prompts=tuple(tuple(row) for row in prompts.tolist()),
        embedding=embedding,
        ensemble=read_numbers(
            group, "ensemble", dtype="float32", shape=(labels, embedding.shape[2])
        ),
    )
