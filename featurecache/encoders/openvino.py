"""Execute an image network with OpenVINO, converted once and kept in the user's cache folder."""

import errno
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock, local
from typing import TYPE_CHECKING, Any, Final

from featurecache.encoders.encoder import Array
from featurecache.errors import FeaturecacheWarning, UsageError
from featurecache.io import json as strict_json
from featurecache.io.atomic import new_folder
from featurecache.io.fingerprint import canonical_json, fingerprint, sha256_of_file
from featurecache.io.user_cache import user_cache

if TYPE_CHECKING:
    import torch

EXTRA: Final = "openvino"
OPENVINO_LIBRARIES: Final = ("openvino", "nncf")

_MODEL, _WEIGHTS, _HASHES = "model.xml", "model.bin", "sha256.json"
_HINTS: Final = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""In what the operations compute that are not on 8-bit integers."""


def has_openvino() -> bool:
    """Return whether the libraries of the extra are installed."""
    return all(find_spec(name) is not None for name in OPENVINO_LIBRARIES)


def require_openvino() -> None:
    """Raise with the installation command if OpenVINO is missing.

    Raises:
        UsageError: It is not installed.
    """
    if not has_openvino():
        raise UsageError(f"openvino is not installed: pip install 'featurecache[{EXTRA}]'")


class OpenVinoNetwork:
    """An image network on the CPU, loaded when it is first needed.

    Like ``InferenceNetwork``, it does not keep the function that loads the torch module.

    Args:
        precision: ``fp32``; ``bf16`` for matrix products in bf16; or ``int8`` for weights that NNCF
            compressed to 8-bit integers, asymmetrically by output channel, and activations that are
            quantized by token while the network runs.
    """

    def __init__(self, *, precision: str) -> None:
        self._precision = precision
        self._lock = Lock()
        self._compiled: dict[tuple[int, str], Any] = {}
        self._of_thread = local()

    def embed(
        self,
        pixels: Array,
        spec: Mapping[str, Any],
        load: "Callable[[], torch.nn.Module]",
    ) -> Array:
        """Embed a batch of pixels, (B, 3, H, W) to (B, D) float32.

        Args:
            pixels: The pixels.
            spec: The image spec of the features, by which the converted network is cached.
            load: Reads the network as a module of one argument, the pixels; called only if no
                converted one is cached.
        """
        import torch

        threads = torch.get_num_threads()
        key = (threads, str(spec.get("features")))
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = self._compile(pixels.shape[2:], threads, spec, load)
        requests = self._of_thread.__dict__.setdefault("requests", {})
        if key not in requests:
            requests[key] = self._compiled[key].create_infer_request()
        embedding: Array = requests[key].infer({0: pixels}, share_inputs=True)[0]
        return embedding.copy()

    def _compile(
        self,
        size: tuple[int, ...],
        threads: int,
        spec: Mapping[str, Any],
        load: "Callable[[], torch.nn.Module]",
    ) -> Any:
        import openvino

        # Threads that embed at the same time have a stream each, with as many cores as torch would
        # use in them.
        streams = max(1, (os.cpu_count() or 1) // threads)
        with _converted(size, spec, load, compress=self._precision == "int8") as folder:
            return openvino.Core().compile_model(
                folder / _MODEL,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": _HINTS[self._precision],
                    "NUM_STREAMS": str(streams),
                    "INFERENCE_NUM_THREADS": streams * threads,
                    "ENABLE_CPU_PINNING": False,
                },
            )


@contextmanager
def _converted(
    size: tuple[int, ...],
    spec: Mapping[str, Any],
    load: "Callable[[], torch.nn.Module]",
    *,
    compress: bool,
) -> Iterator[Path]:
    """Yield a folder that holds the converted network, which is temporary if it cannot be kept."""
    document = {**spec, "precision": "int8" if compress else "fp32", "size": list(size)}
    versions = document.pop("libraries", None)
    name = Path(fingerprint(document), fingerprint(versions))
    convert = partial(_convert, size, load, compress=compress)
    try:
        folder = _kept_folder(name, convert)
    except OSError as error:
        _warn(f"the converted network cannot be kept ({error}), and is converted each time")
        with TemporaryDirectory(prefix="featurecache-", ignore_cleanup_errors=True) as temporary:
            convert(Path(temporary))
            yield Path(temporary)
    else:
        yield folder


def _kept_folder(name: Path, convert: Callable[[Path], None]) -> Path:
    """Return the folder of a network in the user's cache, where it is converted if necessary.

    Then the same network is removed as other versions of the libraries converted it.

    Args:
        name: Fingerprints of the network and of the versions of the libraries.
        convert: Writes the converted network into a folder.

    Raises:
        OSError: The cache cannot be written.
    """
    folder = user_cache() / "openvino" / name
    if folder.exists():
        if _is_intact(folder):
            return folder
        _warn(f"{folder} is damaged: the network is converted again")
        shutil.rmtree(folder, ignore_errors=True)
    try:
        with new_folder(folder) as unfinished:
            convert(unfinished)
            files = (_MODEL, _WEIGHTS)
            hashes = {file: sha256_of_file(unfinished / file) for file in files}
            (unfinished / _HASHES).write_text(canonical_json(hashes), encoding="utf-8")
    except OSError:
        if not _is_intact(folder):  # another process may have converted it meanwhile
            raise
    for other in folder.parent.iterdir():
        # What other processes have not finished has a hidden name.
        if other != folder and not other.name.startswith("."):
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _warn(message: str) -> None:
    warnings.warn(message, FeaturecacheWarning, stacklevel=2)


def _is_intact(folder: Path) -> bool:
    try:
        hashes = strict_json.read(folder / _HASHES)
        return all(hashes[name] == sha256_of_file(folder / name) for name in (_MODEL, _WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _convert(
    size: tuple[int, ...],
    load: "Callable[[], torch.nn.Module]",
    folder: Path,
    *,
    compress: bool,
) -> None:
    """Write a network, for batches of any size, into a folder."""
    import torch

    with _quietly():
        import openvino
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        module = load().eval().requires_grad_(False)
        with torch.inference_mode():
            # Tracing a second time, to compare, would take nearly half of the conversion.
            traced = TorchScriptPythonDecoder(
                module, example_input=torch.zeros(2, 3, *size), trace_kwargs={"check_trace": False}
            )
            model = openvino.convert_model(traced, input=[-1, 3, *size])
        if compress:
            import nncf

            # Convolutions gain nothing from compressed weights, and those with group norm (BiT)
            # came out wrong, and differently each time.
            model = nncf.compress_weights(
                model,
                mode=nncf.CompressWeightsMode.INT8_ASYM,
                ignored_scope=nncf.IgnoredScope(types=["Convolution"], validate=False),
            )
        try:
            openvino.save_model(model, folder / _MODEL, compress_to_fp16=False)
        except RuntimeError as error:  # "basic_ios::clear: iostream error", such as on a full disk
            raise OSError(errno.EIO, "cannot be written", str(folder / _MODEL)) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Convert without warnings, progress bars and, above all, without statistics for Intel.

    Both libraries send statistics of every conversion to Google Analytics, unless the user declined
    or these variables say that they run in a test.
    """
    import io
    import logging
    from contextlib import redirect_stdout

    variables = {"CI": "true", "NNCF_CI": "1"}
    before = {name: os.environ.get(name) for name in variables}
    loggers = [logging.getLogger(name) for name in ("nncf", "transformers")]
    levels = [logger.level for logger in loggers]
    os.environ.update(variables)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
