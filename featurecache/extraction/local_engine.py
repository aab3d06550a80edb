"""The engine that runs in this process."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from featurecache.concurrency import worker_threads
from featurecache.extraction.decode import Item, Mark
from featurecache.extraction.encode import MOST_LANES, Take, device_of, encode_ahead, timed

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder


def encode_locally(
    items: Iterable[Item],
    encoders: Sequence["Encoder"],
    take: Take,
    *,
    batch_size: int,
    workers: int,
    image_timeout: float,
    mark: Mark,
) -> None:
    """Encode on all cores of this machine, or on its GPU; see ``Engine``."""
    with worker_threads(device_of(encoders), most=MOST_LANES) as lanes:
        events = encode_ahead(
            items,
            encoders,
            lanes,
            batch_size=batch_size,
            workers=workers,
            image_timeout=image_timeout,
            mark=mark,
        )
        with closing(events):
            try:
                for event, seconds in timed(events):
                    take(event, seconds)
            finally:
                # An interrupt must not cost the batches that are on their way.
                for event, seconds in timed(lanes.rest()):
                    take(event, seconds)
