"""Limits on the requests that are served."""

from dataclasses import dataclass

from featurecache.settings import check_settings, describe_settings, setting


@describe_settings
@dataclass(frozen=True)
class Limits:
    """Limits on the requests that are served.

    Raises:
        UsageError: A value is out of its range.
    """

    max_bytes: int = setting(
        64 * 2**20, minimum=1, help="Maximum size of an image file, in bytes; larger ones get 413."
    )
    image_timeout: float = setting(
        20.0,
        minimum=0.1,
        help="Maximum time to read one image, in seconds; one that takes longer gets 504.",
    )
    max_requests: int = setting(
        16,
        minimum=1,
        help="Maximum number of images that are received and predicted at the same time; further "
        "ones get 503, and clients have to send them again.",
    )

    def __post_init__(self) -> None:
        check_settings(self)
