"""``serve``: predict images that arrive over HTTP."""

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from featurecache.errors import UsageError
from featurecache.http_server import LOOPBACK, is_loopback, listen, run_until_interrupted
from featurecache.serve.limits import Limits
from featurecache.serve.service import PredictionService, Runs
from featurecache.settings import accept_settings, check_names
from featurecache.store.open import CacheLike

if TYPE_CHECKING:
    from fastapi import FastAPI

StrPath = str | os.PathLike[str]

MIN_TOKEN: Final = 16
"""Characters that a token has at least."""


@accept_settings(Limits)
def serve(
    runs: Runs,
    *,
    cache: CacheLike | None = None,
    host: str = LOOPBACK,
    port: int = 8000,
    token_file: StrPath | None = None,
    share_ids: bool = False,
    models: Sequence[str] | None = None,
    weights: Sequence[StrPath] | None = None,
    device: str = "auto",
    bit_depth: int | None = None,
    announce: Callable[[str], None] = print,
    **settings: Any,
) -> None:
    """Serve the predictions of trained models over HTTP until interrupted.

    ``POST /predict`` takes an image file as the body, and answers with JSON. For research: neither
    featurecache nor such a server is a medical device.

    Example:
        >>> import featurecache as fc
        >>> fc.serve("runs/phantom-tiny-weighted_sum")  # doctest: +SKIP
        http://127.0.0.1:8000

    Args:
        runs: See ``prediction_app``.
        cache: See ``prediction_app``.
        host: Address to listen on. By default only this machine can reach the server; any other
            address needs a token.
        port: Port to listen on; 0 for any that is free.
        token_file: See ``prediction_app``.
        share_ids: See ``prediction_app``.
        models: See ``prediction_app``.
        weights: See ``prediction_app``.
        device: See ``prediction_app``.
        bit_depth: See ``prediction_app``.
        announce: Called with the address once the server answers.
        **settings: see ``Limits``.

    Raises:
        UsageError: ``host`` can be reached by other machines and there is no ``token_file``, the
            port is in use, or see ``prediction_app``.
        FeaturecacheError: See ``prediction_app``.
    """
    if token_file is None and not is_loopback(host):
        raise UsageError(
            f"other machines can reach `host` {host}: give a `token_file`, whose token clients "
            "have to send"
        )
    with listen(host, port) as listener:  # before models are loaded
        app = prediction_app(
            runs,
            cache=cache,
            token_file=token_file,
            share_ids=share_ids,
            models=models,
            weights=weights,
            device=device,
            bit_depth=bit_depth,
            **settings,
        )
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}"
        run_until_interrupted(app, listener, lambda: announce(address))


@accept_settings(Limits)
def prediction_app(
    runs: Runs,
    *,
    cache: CacheLike | None = None,
    token_file: StrPath | None = None,
    share_ids: bool = False,
    models: Sequence[str] | None = None,
    weights: Sequence[StrPath] | None = None,
    device: str = "auto",
    bit_depth: int | None = None,
    **settings: Any,
) -> "FastAPI":
    """Return the ASGI application that ``serve`` runs, for another server, or for tests.

    Example:
        >>> import featurecache as fc
        >>> run = fc.train_head("cache/phantom/tiny.h5", "linear", controls=False)
        >>> app = fc.prediction_app(run, cache="cache/phantom/tiny.h5")
        >>> app.title
        'featurecache'

    Args:
        runs: Runs that trained a model, or their folders. Each model is loaded once.
        cache: Cache of the encoder of one of the runs, or its path: answers have the nearest of its
            images, by cosine.
        token_file: File with a token of at least 16 characters, which clients have to send as
            ``Authorization: Bearer TOKEN``. Without one, requests have to be addressed to
            localhost.
        share_ids: Tell the ids of nearest images, which may name patients, to clients that send the
            token. Not needed for pseudonymized ids.
        models: Name or folder of each encoder, where the names in the runs do not find them.
        weights: Local checkpoint of each encoder.
        device: "auto", "cpu", "cuda" or "mps".
        bit_depth: See ``Run.predict``.
        **settings: see ``Limits``.

    Raises:
        UsageError: The extra ``serve`` is not installed, a run trained no model or needs two
            images, the token is too short, a limit is out of its range, or ids would be shared.
        RunError: An encoder is not the one that a model was trained with, or the cache was made
            with none of them.
        CacheError: The cache is missing or damaged.
    """
    _require_server()
    check_names(Limits, settings)
    limits = Limits(**settings)
    token = None if token_file is None else _read_token(Path(token_file).expanduser())
    service = PredictionService(
        runs,
        cache=cache,
        models=models,
        weights=weights,
        device=device,
        bit_depth=bit_depth,
        image_timeout=limits.image_timeout,
    )
    if token is not None and service.has_original_ids and not share_ids:
        raise UsageError(
            "anyone who has the token would read the ids of cached images, such as names of files: "
            "set `share_ids`, or give a `cache` whose ids are pseudonymized"
        )
    from featurecache.serve.application import build_application

    return build_application(service, token=token, limits=limits)


def _require_server() -> None:
    if find_spec("fastapi") is None or find_spec("prometheus_client") is None:
        raise UsageError("the server needs FastAPI: pip install 'featurecache[serve]'")


def _read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        UsageError: The file cannot be read, or the token is too short or not plain ASCII.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"`token_file` {path} cannot be read: {error}") from error
    if len(token) < MIN_TOKEN or not token.isprintable() or " " in token:
        raise UsageError(
            f"`token_file` {path} has no usable token: write at least {MIN_TOKEN} characters "
            "without spaces, for example those of 'openssl rand -hex 32'"
        )
    return token
