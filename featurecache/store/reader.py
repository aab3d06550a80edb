"""Read and validate a finished cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.errors import CacheError
from featurecache.io import json as strict_json
from featurecache.io.fingerprint import fingerprint
from featurecache.store.cache import Cache, file_state
from featurecache.store.checksums import require_intact
from featurecache.store.hdf5 import numeric, opened, read_numbers, read_strings, subgroup
from featurecache.store.layout import EMBEDDING, FORMAT, UNKNOWN
from featurecache.store.records import (
    Header,
    ImageTable,
    Labels,
    TextEmbeddings,
    TextSet,
    Utf8,
    from_utf8,
)
from featurecache.store.validation import Value

if TYPE_CHECKING:
    import h5py


def read_cache(path: Path) -> Cache:
    """Read and check a finished cache.

    Raises:
        CacheError: the file is missing, damaged, of a newer version, or contradicts itself; the
            message names the part that is wrong.
    """
    with opened(path, FORMAT) as file:
        state = file_state(path)
        # The embedding is not read here, and so not looked at.
        objects, checksums = require_intact(file, skip=EMBEDDING)
        header, stored = _read_header(file, objects["/"].attributes)
        images, dim = _read_images(file)
        labels = _read_labels(file, len(images))
        text_group = subgroup(file, "text")
        texts = {
            name: _read_text(subgroup(text_group, name), name, objects[f"/text/{name}"].attributes)
            for name in text_group
        }
        failures = _read_failures(subgroup(file, "failures"))
        created = str(objects["/"].attributes.get("created", ""))
    return Cache(
        path=path,
        header=header,
        fingerprint=stored,
        created=created,
        images=images,
        dim=dim,
        labels=labels,
        texts=texts,
        failures=failures,
        state=state,
        sums=None if checksums is None else checksums.rows[EMBEDDING],
    )


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def read_description(where: str, attributes: Mapping[str, Value]) -> tuple[dict[str, Any], str]:
    """The description and fingerprint of a cache or a part.

    Args:
        where: the file.
        attributes: those of its root.

    Raises:
        CacheError: they are missing, or the fingerprint is not the description's.
    """
    try:
        description = strict_json.parse(_text_of(attributes["spec"]))
        stored = str(attributes["fingerprint"])
        altered = not isinstance(description, dict) or fingerprint(description) != stored
    except (KeyError, ValueError, TypeError) as error:
        raise CacheError(f"{where} has no readable 'spec' and 'fingerprint'") from error
    if altered:
        raise CacheError(f"{where}: its fingerprint is not that of its spec; the file was altered")
    return description, stored


def _read_header(file: "h5py.File", attributes: Mapping[str, Value]) -> tuple[Header, str]:
    description, stored = read_description(file.filename, attributes)
    try:
        header = Header(
            model=str(attributes["model"]),
            dataset=str(attributes["dataset"]),
            notes=_texts(attributes["notes"]),
            image_level_split=bool(attributes["image_level_split"]),
            exposed=bool(attributes["exposed"]),
            encoder_spec=description,
            # Files of before have neither: each data set had ids of its own.
            collection=str(attributes.get("collection", attributes["dataset"])),
            trained_on=_read_trained_on(file) if "trained_on" in file else {},
            bf16_cosine=float(attributes["bf16_cosine"]) if "bf16_cosine" in attributes else None,
            revision=str(attributes["revision"]) if "revision" in attributes else None,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise CacheError(
            f"{file.filename} lacks an attribute, or one is unreadable: {error}"
        ) from error
    return header, stored


def _read_trained_on(file: "h5py.File") -> dict[str, frozenset[str]]:
    group = subgroup(file, "trained_on")
    return {name: frozenset(from_utf8(read_strings(group, name)).tolist()) for name in group}


def _texts(attribute: Value) -> tuple[str, ...]:
    texts = strict_json.parse(_text_of(attribute))
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{texts!r} is not a list of texts")
    return tuple(texts)


def _text_of(attribute: Value) -> str:
    if not isinstance(attribute, str):
        raise ValueError(f"{attribute!r} is no text")
    return attribute


def _read_images(file: "h5py.File") -> tuple[ImageTable, int]:
    group = subgroup(file, "images")
    ids = read_strings(group, "id")
    rows = len(ids)
    if not (ids[:-1] < ids[1:]).all():
        raise CacheError(f"{file.filename}: /images/id is not sorted, or an id is there twice")
    images = ImageTable(
        id=ids,
        sha256=read_strings(group, "sha256", shape=(rows,)),
        patient=read_strings(group, "patient", shape=(rows,)),
        split=read_strings(group, "split", shape=(rows,)),
        view=read_strings(group, "view", shape=(rows,)),
        sex=_strings_or_blank(group, "sex", rows),
        age=_strings_or_blank(group, "age", rows),
        size=read_numbers(group, "size", dtype="int64", shape=(rows,)),
        mtime_ns=read_numbers(group, "mtime_ns", dtype="int64", shape=(rows,)),
    )
    embedding = numeric(group, "embedding", dtype="float16", shape=(rows, None))
    return images, int(embedding.shape[1])


def _strings_or_blank(group: "h5py.Group", name: str, rows: int) -> Utf8:
    """A column that files of before do not have: nothing of it is known."""
    if name not in group:
        return np.full(rows, b"")
    return read_strings(group, name, shape=(rows,))


def _read_labels(file: "h5py.File", rows: int) -> Labels:
    group = subgroup(file, "labels")
    names = tuple(from_utf8(read_strings(group, "names")).tolist())
    values = read_numbers(group, "values", dtype="int8", shape=(rows, len(names)))
    if len(set(names)) != len(names):
        raise CacheError(f"{file.filename}: /labels/names holds a name twice")
    if not np.isin(values, (1, 0, UNKNOWN)).all():
        raise CacheError(f"{file.filename}: /labels/values holds others than 1, 0 and -1")
    return Labels(names, values)


def _read_failures(group: "h5py.Group") -> dict[str, str]:
    ids = from_utf8(read_strings(group, "id")).tolist()
    reasons = from_utf8(read_strings(group, "reason", shape=(len(ids),))).tolist()
    if len(set(ids)) != len(ids):
        raise CacheError(f"{group.file.filename}: /failures/id holds an id twice")
    return dict(zip(ids, reasons, strict=True))


def _read_text(group: "h5py.Group", name: str, attributes: Mapping[str, Value]) -> TextSet:
    where = f"{group.file.filename}: {group.name}"
    labels = tuple(from_utf8(read_strings(group, "labels")).tolist())
    if len(set(labels)) != len(labels):
        raise CacheError(f"{where}/labels holds a label twice")
    positive = _read_embeddings(group, len(labels), dim=None)
    dim = positive.embedding.shape[2]
    negative = None
    if "negatives" in group:
        negative = _read_embeddings(subgroup(group, "negatives"), len(labels), dim=dim)
    try:
        encoder = None
        if "encoder" in attributes:
            encoder = dict(strict_json.parse(_text_of(attributes["encoder"])))
        return TextSet(
            name=name,
            fingerprint=str(attributes["fingerprint"]),
            templates=_texts(attributes["templates"]),
            labels=labels,
            positive=positive,
            negative=negative,
            aligned=bool(attributes["aligned"]),
            scale=float(attributes["scale"]) if "scale" in attributes else None,
            bias=float(attributes["bias"]) if "bias" in attributes else None,
            encoder=encoder,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise CacheError(f"{where} lacks an attribute, or one is unreadable: {error}") from error


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
