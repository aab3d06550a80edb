"""How the image network of an encoder is executed: by which library, in which numbers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from typing_extensions import TypedDict

from featurecache.errors import UsageError

BACKENDS: Final = ("torch", "openvino")
PRECISIONS: Final = ("fp32", "bf16", "bf16-weights", "fp16", "int8")
"""``bf16`` multiplies matrices in bf16 and keeps the rest in fp32, ``bf16-weights`` and ``fp16``
keep weights and activations in the format, and ``int8`` multiplies 8-bit integers."""


@dataclass(frozen=True)
class Execution:
    """One way to execute a network.

    Attributes:
        backend: The library, one of ``BACKENDS``.
        precision: The format of numbers, one of ``PRECISIONS``.
    """

    backend: str
    precision: str

    @classmethod
    def of_spec(cls, spec: Mapping[str, Any]) -> "Execution":
        """Return the execution that an encoder spec states; ``EXACT`` if it states none."""
        return cls(
            str(spec.get("backend", EXACT.backend)), str(spec.get("precision", EXACT.precision))
        )

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


EXACT: Final = Execution("torch", "fp32")
"""What every other execution is compared with."""


AUTOMATIC_PRECISIONS: Final = ("fp32", "bf16", "bf16-weights", "fp16")
"""The precisions that may be chosen by measuring; others have to be asked for."""


def check_execution(backend: str, precision: str) -> None:
    """Check that there are such a backend and precision, or "auto".

    Raises:
        UsageError: There is no such name, or the two contradict each other.
    """
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"unknown backend {backend!r}: use auto, {', '.join(BACKENDS)}")
    if precision not in ("auto", "exact", *PRECISIONS):
        raise UsageError(
            f"unknown precision {precision!r}: use auto, exact, {', '.join(PRECISIONS)}"
        )
    if precision == "exact" and backend not in ("auto", EXACT.backend):
        raise UsageError(f"exact means {EXACT}: leave out `backend`")


def default_execution(backend: str, precision: str) -> Execution:
    """Return the execution where nothing can be measured.

    Args:
        backend: One of ``BACKENDS``, or "auto" for torch, unless only OpenVINO has the precision.
        precision: One of ``PRECISIONS``, or "auto" or "exact" for fp32.
    """
    if precision in ("auto", "exact"):
        precision = EXACT.precision
    if backend == "auto":
        backend = "openvino" if precision == "int8" else EXACT.backend
    return Execution(backend, precision)


def is_allowed(execution: Execution, backend: str, precision: str) -> bool:
    """Return whether an execution is one of those that ``backend`` and ``precision`` ask for."""
    if precision == "exact":
        return execution == EXACT
    return backend in ("auto", execution.backend) and precision in ("auto", execution.precision)


def automatic_executions(
    executions: Iterable[Execution], backend: str, precision: str
) -> list[Execution]:
    """Return those executions among which measuring may choose.

    Args:
        executions: The executions that an encoder supports.
        backend: One of ``BACKENDS``, or "auto".
        precision: One of ``PRECISIONS``, "exact", or "auto" for ``AUTOMATIC_PRECISIONS``.
    """
    precisions = AUTOMATIC_PRECISIONS if precision == "auto" else PRECISIONS
    return [
        one
        for one in executions
        if one.precision in precisions and is_allowed(one, backend, precision)
    ]


class Measurement(TypedDict):
    """What an execution did in a probe.

    Attributes:
        backend: See ``Execution``.
        precision: See ``Execution``.
        images_per_second: Median over the rounds; None if the execution failed, or was ruled out by
            its cosine.
        min_cosine: Smallest cosine similarity to the embeddings by ``EXACT``; None if it failed.
    """

    backend: str
    precision: str
    images_per_second: float | None
    min_cosine: float | None


class Probe(TypedDict):
    """A comparison of several executions on one machine.

    Attributes:
        images: Number of different images that were embedded.
        measurements: One for each execution.
    """

    images: int
    measurements: list[Measurement]


def format_probe(probe: Probe) -> str:
    """Return a probe in words, such as "measured on 32 images: torch fp32 26.3 images/s, ..."."""
    parts = []
    for one in probe["measurements"]:
        name = f"{one['backend']} {one['precision']}"
        if one["min_cosine"] is None:
            parts.append(f"{name} failed")
            continue
        rate = one["images_per_second"]
        speed = "not timed" if rate is None else f"{rate:.1f} images/s"
        is_exact = Execution(one["backend"], one["precision"]) == EXACT
        parts.append(f"{name} {speed}" + ("" if is_exact else f" (cosine {one['min_cosine']:.5f})"))
    return f"measured on {probe['images']} images: {', '.join(parts)}"
