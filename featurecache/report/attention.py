"""The attention of a run's head to the places of its example images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.geometry import Geometry
from featurecache.errors import FeaturecacheError
from featurecache.evaluation.from_cache import cached_rows, find_cache
from featurecache.evaluation.heatmaps import above_even
from featurecache.evaluation.trained_model import TrainedModel
from featurecache.features import Features, parse_features
from featurecache.report.load_runs import ScoredRun
from featurecache.store.cache import Cache


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of a head on tokens.

    Attributes:
        cache: the cache with the tokens of the images.
        rows: (N,) row in the cache of each scored image; -1 where it has none.
        model: the head.
        features: the tokens that it takes.
        geometry: which part of an image they are of.
    """

    cache: Cache
    rows: NDArray[np.intp]
    model: TrainedModel
    features: Features
    geometry: Geometry

    def of_image(self, row: int, label: str) -> NDArray[np.floating] | None:
        """Return how far a label's attention is above even, by row and column, (G, G).

        Args:
            row: the image's row among the scored images.
            label: the label.
        """
        cached = int(self.rows[row])
        if cached < 0:
            return None
        tokens = self.cache.read_rows(cached, cached + 1)
        attention = self.model.attention(tokens)[0]
        return above_even(attention[self.model.labels.index(label)], self.features)


def attention_of(run: ScoredRun, caches: Sequence[Path]) -> tuple[Attention | None, str | None]:
    """Return the attention of a run's head; or the reason why there is none, if it has some.

    Args:
        run: the run.
        caches: files in which its cache is looked for first.
    """
    spec: dict[str, Any] = run.config.get("cache", {}).get("spec", {})
    if run.load_model is None or "geometry" not in spec:
        return None, None
    try:
        cache, model = find_cache(run.config["cache"], caches), run.load_model()
        if not isinstance(model, TrainedModel):
            return None, None
        attention = Attention(
            cache,
            cached_rows(cache, run.scored),
            model,
            parse_features(spec["features"]),
            Geometry.from_json(spec["geometry"]),
        )
    except FeaturecacheError as error:
        return None, str(error)
    return attention, None
