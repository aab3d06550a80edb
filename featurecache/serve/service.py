"""Predict one image after another with models that are loaded once."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.compatibility import check_encoder_specs
from featurecache.encoders.encoder import Encoder, decode_and_preprocess
from featurecache.errors import ImageError, UsageError
from featurecache.evaluation.trained_model import TrainedModel
from featurecache.images.bit_depth import bit_depth_note, bit_depth_of
from featurecache.images.gray_range import check_bit_depth
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.metrics.similarity import l2_normalize
from featurecache.provenance.names import key_fingerprint
from featurecache.retrieval.query import nearest_images
from featurecache.runs.prediction import embed_pixels
from featurecache.runs.predictions import prediction_document
from featurecache.runs.run import Run, as_run, displayed_names
from featurecache.store.cache import Cache
from featurecache.store.open import CacheLike, open_cache
from featurecache.store.records import NON_FINITE_EMBEDDING
from featurecache.units import BOTH_SIDES
from featurecache.views import side_of_view

StrPath = str | os.PathLike[str]
Runs = Run | StrPath | Sequence[Run | StrPath]

NOTICE: Final = "For research; not a medical device."
"""Part of every answer."""

DEFAULT_NEAREST: Final = 5


@dataclass(frozen=True, eq=False)
class _Group:
    """Models that take the same embedding.

    Attributes:
        specs: Specs of their encoders.
        encoders: These encoders, loaded once.
        bit_depth: Bit depth with which images are read; None to judge it from the image.
        models: The models, by what their run is called.
    """

    specs: Sequence[Mapping[str, Any]]
    encoders: Sequence[Encoder]
    bit_depth: int | None
    models: dict[str, TrainedModel]


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An image that is ready to be embedded.

    Attributes:
        pixels: For each group of models, and each of its encoders, the pixels, (3, H, W).
        notes: What was assumed about the file.
    """

    pixels: Sequence[Sequence[NDArray[np.float32]]]
    notes: Sequence[str]


class PredictionService:
    """Predicts images with several models, each of which is loaded once.

    ``decode`` may be called by several threads at once, ``predict`` by one at a time.

    Args:
        runs: See ``prediction_app``.
        cache: See ``prediction_app``.
        models: See ``prediction_app``.
        weights: See ``prediction_app``.
        device: See ``prediction_app``.
        bit_depth: See ``prediction_app``.
        image_timeout: Maximum time to read one image, in seconds.

    Raises:
        FeaturecacheError: See ``prediction_app``.
    """

    def __init__(
        self,
        runs: Runs,
        *,
        cache: CacheLike | None,
        models: Sequence[str] | None,
        weights: Sequence[StrPath] | None,
        device: str,
        bit_depth: int | None,
        image_timeout: float,
    ) -> None:
        check_bit_depth(bit_depth)
        given = [runs] if isinstance(runs, Run | str | os.PathLike) else runs
        loaded = [as_run(run) for run in given]
        if not loaded:
            raise UsageError("give at least one run")
        names = displayed_names([run.name for run in loaded], [run.path for run in loaded])
        self.runs = dict(zip(names, loaded, strict=True))
        for name, run in self.runs.items():
            if run.units.study_features == BOTH_SIDES:
                raise UsageError(
                    f"{name} takes a frontal and a lateral image of a study, but a request has one "
                    "image: give a run of images, or one with `study_features` mean"
                )
        self.cache = None if cache is None else open_cache(cache)
        encoders: dict[str, Sequence[Encoder]] = {}
        groups: dict[tuple[str, int | None], _Group] = {}
        for name, run in self.runs.items():
            model = cast("TrainedModel", run.require_model())
            specs = model.encoder_specs()
            key = json.dumps(specs, sort_keys=True)
            if key not in encoders:
                encoders[key] = model.load_encoders(models=models, weights=weights, device=device)
            depth = bit_depth or model.bit_depth
            group = groups.setdefault((key, depth), _Group(specs, encoders[key], depth, {}))
            group.models[name] = model
        self._groups = list(groups.values())
        self._cached = None if self.cache is None else self._group_of_cache(self.cache)
        self._decoder = SubprocessDecoder(timeout=image_timeout)
        # Networks are loaded, and compiled, at their first use.
        self._embed(self.decode(_sample_image()).pixels)

    @property
    def has_original_ids(self) -> bool:
        """Whether the ids of nearest images are those of the data set, not pseudonyms."""
        return self.cache is not None and not key_fingerprint(self.cache.header.collection)

    def describe(self) -> dict[str, Any]:
        """Return what is served, as a JSON value."""
        return {
            "runs": {
                name: {
                    "kind": run.kind,
                    "model": run.model_name,
                    "dataset": run.dataset_name,
                    "views": run.units.views,
                    "labels": list(run.scored.label_names),
                }
                for name, run in self.runs.items()
            },
            "n_cached_images": None if self.cache is None else len(self.cache),
            "notice": NOTICE,
        }

    def decode(self, content: bytes) -> DecodedImage:
        """Decode an image in a subprocess and preprocess it for each encoder.

        Args:
            content: Content of the image file.

        Raises:
            ImageError: The image cannot be read, or took too long.
        """
        pixels, notes = [], []
        for group in self._groups:
            bit_depth = group.bit_depth
            if bit_depth is None:
                bit_depth = bit_depth_of(self._decoder, content)
                notes += [] if bit_depth is None else [bit_depth_note(bit_depth)]
            pixels.append(
                decode_and_preprocess(self._decoder, content, group.encoders, bit_depth=bit_depth)
            )
        return DecodedImage(pixels, list(dict.fromkeys(notes)))

    def predict(
        self,
        image: DecodedImage,
        *,
        view: str = "",
        nearest: int = DEFAULT_NEAREST,
        embedding: bool = False,
    ) -> dict[str, Any]:
        """Predict an image.

        Args:
            image: The image.
            view: Its view, for runs of frontal or of lateral images; "" if unknown.
            nearest: Number of nearest images of the cache.
            embedding: Whether to return the embedding as well.

        Returns:
            The answer to a request, as a JSON value.

        Raises:
            UsageError: A run needs another view.
            ImageError: The embedding is not finite.
        """
        for name, run in self.runs.items():
            if run.units.views not in ("all", side_of_view(view)):
                raise UsageError(
                    f"{name} was trained on {run.units.views} images: state the view of the image, "
                    f"such as view={'PA' if run.units.views == 'frontal' else 'lateral'}"
                )
        embeddings = self._embed(image.pixels)
        predictions = {
            name: {
                **prediction_document(
                    model.predict_embedding(vector, view=view).iloc[0], model.labels, model.rules
                ),
                "embedding": vector[0].tolist() if embedding else None,
            }
            for group, vector in zip(self._groups, embeddings, strict=True)
            for name, model in group.models.items()
        }
        found = None
        if self.cache is not None and self._cached is not None:
            vector = embeddings[self._groups.index(self._cached)]
            direction = l2_normalize(vector, "image")[0]
            rows = np.arange(len(self.cache))
            table = nearest_images(self.cache, direction, rows, nearest)
            found = table[["id", "cosine"]].to_dict("records")
        return {
            "predictions": {name: predictions[name] for name in self.runs},
            "nearest": found,
            "notes": list(image.notes),
            "notice": NOTICE,
        }

    def _embed(self, pixels: Sequence[Sequence[NDArray[np.float32]]]) -> list[NDArray[np.float16]]:
        """Return the embedding of one image for each group, (1, D) or (1, T, D)."""
        embeddings = []
        for group, arrays in zip(self._groups, pixels, strict=True):
            embedding, usable = embed_pixels(
                group.encoders, [array[np.newaxis] for array in arrays]
            )
            if not usable[0]:
                raise ImageError(NON_FINITE_EMBEDDING)
            embeddings.append(embedding)
        return embeddings

    def _group_of_cache(self, cache: Cache) -> _Group:
        """Return the models whose embeddings can be compared with those of a cache.

        Raises:
            UsageError: There are none, or the cache holds tokens or studies.
        """
        cache.require_images()
        cache.require_vectors()
        specs = [member.header.encoder_spec for member in cache.members]
        refusal: UsageError | None = None
        for group in self._groups:
            try:
                check_encoder_specs(group.specs, specs, source=next(iter(group.models)))
            except UsageError as error:
                refusal = refusal or error
            else:
                return group
        assert refusal is not None
        raise refusal


def _sample_image() -> bytes:
    from PIL import Image

    content = BytesIO()
    Image.linear_gradient("L").save(content, format="PNG")
    return content.getvalue()
