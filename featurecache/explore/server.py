"""Show a table of images in the browser: Apple's Embedding Atlas, served to this machine only."""

import secrets
import webbrowser
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import ImageError, UsageError
from featurecache.explore.table import NEIGHBORS, ROW, X, Y
from featurecache.http_server import LOOPBACK, listen, run_until_interrupted
from featurecache.images.subprocess_decoder import SubprocessDecoder

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

IMAGE: Final = "image"
"""Column with the address of each image."""

MAX_SIDE: Final = 768
"""Pixels of the longer side of an image in the browser."""

_IMAGE_STYLE: Final = {"renderer": "image", "options": {"size": 160}, "display": "full"}

_POLICY: Final = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob: data:; "
    "frame-ancestors 'none'"
)
"""Content-Security-Policy: the page can request nothing from anywhere else."""


def require_explorer() -> None:
    """Check that the package of the explorer is installed.

    Raises:
        UsageError: It is not.
    """
    if find_spec("embedding_atlas") is None:
        raise UsageError("the explorer needs Embedding Atlas: pip install 'featurecache[explore]'")


def serve(
    table: "pd.DataFrame",
    files: Mapping[str, Path],
    *,
    text: str,
    bit_depth: int | None,
    port: int,
    browser: bool,
    announce: Callable[[str], None],
) -> None:
    """Serve a table of images until interrupted.

    The server listens on the loopback interface, below a path that nobody can guess: neither other
    users of this machine nor other pages in the browser can read from it.

    Args:
        table: See ``explorer_table``.
        files: Files of images by id; images without a file are not shown.
        text: Column with the text that is searched and shown beside an image.
        bit_depth: See ``decode_image``.
        port: Port; 0 for any that is free.
        browser: Open the page in the browser.
        announce: Called with the address once the server listens.

    Raises:
        UsageError: The port is in use or not allowed.
    """
    with listen(LOOPBACK, port) as listener:
        secret = secrets.token_urlsafe(16)
        address = f"http://{LOOPBACK}:{listener.getsockname()[1]}/{secret}/"

        def show() -> None:
            announce(address)
            if browser:
                webbrowser.open(address)

        application = _application(table, files, secret, address, text, bit_depth)
        run_until_interrupted(application, listener, show)


def _application(
    table: "pd.DataFrame",
    files: Mapping[str, Path],
    secret: str,
    address: str,
    text: str,
    bit_depth: int | None,
) -> Any:
    import embedding_atlas
    from embedding_atlas.data_source import DataSource
    from embedding_atlas.options import make_embedding_atlas_props
    from embedding_atlas.server import make_server
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Mount, Route

    paths = [files.get(image_id) for image_id in table["id"]]
    if files:
        urls = [f"{address}image/{row}" if path else None for row, path in enumerate(paths)]
        table.insert(list(table).index("id") + 1, IMAGE, urls)
    decoder = SubprocessDecoder()

    async def image(request: Request) -> Response:
        row = request.path_params["row"]
        path = paths[row] if row < len(paths) else None
        if path is None:
            return Response(status_code=404)
        try:
            content = await run_in_threadpool(_as_png, decoder, path, bit_depth)
        except ImageError as error:
            return Response(str(error), status_code=404, media_type="text/plain")
        return Response(content, media_type="image/png", headers={"Cache-Control": "private"})

    columns = {"x": X, "y": Y, "neighbors": NEIGHBORS, "text": text}
    if files:
        columns["image"] = IMAGE
    props = make_embedding_atlas_props(
        row_id=ROW,
        **columns,
        labels=[],
        initial_state={"columnStyles": {IMAGE: _IMAGE_STYLE}},
    )
    # Not an argument yet: what the page shows before anybody changes it.
    props["defaultChartsConfig"] = {
        "exclude": ["id", IMAGE, "patient", "study"],
        "embedding": {"data": {**columns, "category": "split"}},
    }
    source = DataSource(secret, table, {"props": props})
    static = Path(embedding_atlas.__file__).parent / "static"
    atlas = make_server(source, static_path=str(static), duckdb_uri="server")
    return Starlette(
        routes=[Route(f"/{secret}/image/{{row:int}}", image), Mount(f"/{secret}", atlas)],
        middleware=[Middleware(_WithPolicy)],
    )


def _as_png(decoder: SubprocessDecoder, path: Path, bit_depth: int | None) -> bytes:
    from PIL import Image

    (pixels,) = decoder.read(path, [_reduced], bit_depth=bit_depth)
    content = BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def _reduced(image: "Image") -> NDArray[np.uint8]:
    image = image.convert("L")
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.asarray(image, dtype=np.uint8)


class _WithPolicy:
    """Adds the Content-Security-Policy to every response."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(b"content-security-policy", _POLICY.encode())]
                headers.append((b"referrer-policy", b"no-referrer"))
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        await self._application(scope, receive, send_with_policy)
