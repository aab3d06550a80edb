"""The ASGI application: requests to answers, within limits."""

import asyncio
import hmac
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from featurecache.errors import ImageError, ImageTimeoutError, UsageError
from featurecache.images.formats import SNIFFED_BYTES, looks_like_image
from featurecache.serve.limits import Limits
from featurecache.serve.service import DEFAULT_NEAREST, NOTICE, PredictionService
from featurecache.views import side_of_view

MAX_NEAREST: Final = 100
BODY_TIMEOUT: Final = 60.0
"""Seconds in which an image has to arrive."""
RETRY_AFTER: Final = 1
"""Seconds after which a client that was turned away may try again."""

_OWN_HOST: Final = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)

_IMAGE_TYPES: Final = (
    *("", "application/octet-stream", "application/dicom"),
    "application/x-www-form-urlencoded",  # what curl says of any body
)
"""Content types under which images are sent, in addition to image/*."""


class Neighbor(BaseModel):
    """An image of the cache."""

    id: str
    cosine: float


class Prediction(BaseModel):
    """What one run predicts; as ``predict --json`` prints it."""

    probabilities: dict[str, float | None]
    thresholds: dict[str, float | None]
    positive: dict[str, bool | None]
    calibrated: dict[str, float | None]
    uncalibrated: dict[str, str]
    sd: dict[str, float | None] | None
    answers: dict[str, Literal["present", "absent", "unsure"] | None]
    unanswered: dict[str, str]
    familiarity: dict[str, float] | None
    not_learned: list[str]
    embedding: list[Any] | None


class Answer(BaseModel):
    """The answer to one image."""

    predictions: dict[str, Prediction]
    nearest: list[Neighbor] | None
    notes: list[str]
    notice: str


def build_application(service: PredictionService, *, token: str | None, limits: Limits) -> FastAPI:
    """Return the application that serves predictions.

    Nothing of a request is written to a disk or a log.

    Args:
        service: Predicts the images.
        token: What clients have to send, as ``Authorization: Bearer TOKEN``. With None, requests
            have to be addressed to this machine.
        limits: Limits on the requests.
    """
    # No documentation pages: they load scripts from the network.
    app = FastAPI(
        title="featurecache",
        description=NOTICE,
        version=version("featurecache"),
        docs_url=None,
        redoc_url=None,
    )
    metrics = _Metrics()
    decoders = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")
    # One thread: several would share the cores, and each would keep memory of its own.
    network = ThreadPoolExecutor(1, thread_name_prefix="embed")

    def authorize(request: Request) -> None:
        if token is None:
            # Otherwise any page in the browser of a user could read answers, under a name of its
            # own that it redirects to this machine. The header, as URLs are parsed leniently.
            if not _OWN_HOST.fullmatch(request.headers.get("host", "")):
                raise HTTPException(403, "this server answers requests to localhost only")
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), token.encode()):
            raise HTTPException(
                401,
                "send the token of this server as the header 'Authorization: Bearer TOKEN'",
                {"WWW-Authenticate": "Bearer"},
            )

    async def receive(request: Request) -> bytes:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in _IMAGE_TYPES and not content_type.startswith("image/"):
            raise HTTPException(
                415,
                f"the body is {content_type!r}: send the content of one image file as the body, "
                "for example as application/octet-stream",
            )
        if int(request.headers.get("content-length", 0)) > limits.max_bytes:
            raise _too_large(limits)
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > limits.max_bytes:
                raise _too_large(limits)
        if not content:
            raise HTTPException(422, "the body is empty: send the content of one image file")
        if not looks_like_image(bytes(content[:SNIFFED_BYTES])):
            raise HTTPException(415, "the body is not an image of a known format, nor DICOM")
        return bytes(content)

    async def answer(request: Request, **options: Any) -> Mapping[str, Any]:
        authorize(request)
        if unknown := sorted(request.query_params.keys() - options.keys()):
            raise HTTPException(
                422, f"unknown parameters: {', '.join(unknown)}; valid: {', '.join(options)}"
            )
        if options["view"] and not side_of_view(options["view"]):
            raise HTTPException(
                422,
                f"view={options['view']} is neither frontal nor lateral: give PA, AP, lateral, LL "
                "or RL, or leave it out",
            )
        if "nearest" in request.query_params and service.cache is None:
            raise HTTPException(422, "this server has no cache to search")
        with metrics.slot(limits.max_requests):
            try:
                async with asyncio.timeout(BODY_TIMEOUT):
                    content = await receive(request)
            except TimeoutError as error:
                raise HTTPException(
                    408, f"the image took over {BODY_TIMEOUT:g} s to arrive"
                ) from error
            except ClientDisconnect as error:
                raise HTTPException(400, "the client went away") from error
            loop = asyncio.get_running_loop()
            try:
                with metrics.stage("decode"):
                    image = await loop.run_in_executor(decoders, service.decode, content)
                with metrics.stage("predict"):
                    call = partial(service.predict, image, **options)
                    return await loop.run_in_executor(network, call)
            except ImageTimeoutError as error:
                raise HTTPException(504, str(error)) from error
            except (ImageError, UsageError) as error:
                raise HTTPException(422, str(error)) from error

    async def predict(
        request: Request,
        view: Annotated[str, Query(max_length=100)] = "",
        nearest: Annotated[int, Query(ge=1, le=MAX_NEAREST)] = DEFAULT_NEAREST,
        embedding: bool = False,
    ) -> Mapping[str, Any]:
        try:
            document = await answer(request, view=view, nearest=nearest, embedding=embedding)
        except HTTPException as error:
            metrics.answers.labels(error.status_code).inc()
            if error.status_code != 408:  # nobody waits for the rest of an image that comes slowly
                await _discard_body(request)
            raise
        except asyncio.CancelledError as error:  # the server ends
            metrics.answers.labels(503).inc()
            raise HTTPException(
                503, "the server ends: try again later", {"Retry-After": str(RETRY_AFTER)}
            ) from error
        except Exception:
            metrics.answers.labels(500).inc()
            raise
        metrics.answers.labels(200).inc()
        return document

    async def about(request: Request) -> dict[str, Any]:
        authorize(request)
        return {**service.describe(), "limits": asdict(limits)}

    async def health() -> dict[str, str]:
        return {"status": "ok"}

    async def expose(request: Request) -> Response:
        authorize(request)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app.add_api_route("/predict", predict, methods=["POST"], response_model=Answer)
    app.add_api_route("/", about, methods=["GET"])
    app.add_api_route("/health", health, methods=["GET"])
    app.add_api_route("/metrics", expose, methods=["GET"])
    app.add_exception_handler(Exception, _report_failure)
    app.add_exception_handler(RequestValidationError, _report_parameters)
    return app


def _too_large(limits: Limits) -> HTTPException:
    return HTTPException(413, f"the image has more than {limits.max_bytes:,} bytes")


async def _discard_body(request: Request) -> None:
    """Receive what is left of a refused request: few clients read an answer before all is sent."""
    if request.headers.get("expect") == "100-continue":
        return  # the client is waiting for the answer
    # RuntimeError: nothing is left.
    with suppress(RuntimeError, ClientDisconnect, TimeoutError):
        async with asyncio.timeout(BODY_TIMEOUT):
            async for _ in request.stream():
                pass


async def _report_failure(request: Request, error: Exception) -> JSONResponse:
    """Answer without details, which the log of the server has."""
    return JSONResponse({"detail": "the server failed: see its output"}, 500)


async def _report_parameters(request: Request, error: Exception) -> JSONResponse:
    """Answer which parameter is wrong, as a sentence like every other refusal."""
    assert isinstance(error, RequestValidationError)
    reasons = (f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
    return JSONResponse({"detail": "; ".join(reasons)}, 422)


class _Metrics:
    """Counters of requests, as Prometheus reads them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.answers = Counter(
            "featurecache_answers",
            "Answers to images, by HTTP status.",
            ["status"],
            registry=self.registry,
        )
        self._in_progress = Gauge(
            "featurecache_images_in_progress",
            "Images that are being received or predicted.",
            registry=self.registry,
        )
        self._seconds = Histogram(
            "featurecache_stage_seconds",
            "Time that an image waits for a stage and is in it.",
            ["stage"],
            registry=self.registry,
        )
        self._n_in_progress = 0

    @contextmanager
    def slot(self, most: int) -> Iterator[None]:
        """Count an image as in progress, unless this many are."""
        if self._n_in_progress >= most:
            raise HTTPException(
                503,
                f"{most} images are being predicted: try again",
                {"Retry-After": str(RETRY_AFTER)},
            )
        self._n_in_progress += 1
        self._in_progress.inc()
        try:
            yield
        finally:
            self._n_in_progress -= 1
            self._in_progress.dec()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        with self._seconds.labels(name).time():
            yield
