"""What a training logs to tracking tools, and which tools there are."""

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final, Protocol

from typing_extensions import TypedDict

from featurecache.errors import FeaturecacheError, FeaturecacheWarning, UnknownNameError, UsageError
from featurecache.io import json as strict_json
from featurecache.io.atomic import new_file
from featurecache.io.system_errors import raise_if_inaccessible

Scalar = str | int | float | bool


class Tracker(Protocol):
    """One training in a tracking tool.

    Attributes:
        id: What the tool continues a training by; None if it needs nothing but the folder.
    """

    id: str | None

    def __init__(
        self, folder: Path, settings: Mapping[str, Scalar], *, id: str | None, n_points: int
    ) -> None:
        """Start to log a training, or continue.

        Args:
            folder: The run folder, after which the training is called.
            settings: Settings of the training.
            id: What a training that continues was logged as; None for a new one.
            n_points: Number of points that were logged before.
        """
        ...

    @staticmethod
    def errors() -> tuple[type[Exception], ...]:
        """Return the exceptions of the tool, such as for a server that does not answer."""
        ...

    def log_point(self, step: int, values: Mapping[str, float]) -> None:
        """Log one line of the history.

        Args:
            step: Number of the epoch, from 1.
            values: Values of the epoch by name.
        """
        ...

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Log the scores of the finished training by name."""
        ...

    def close(self, *, failed: bool) -> None:
        """Write everything that is not written yet.

        Args:
            failed: Whether the training ended with an exception.
        """
        ...


TRACKERS: Final[Mapping[str, tuple[str, str]]] = {
    "tensorboard": ("tensorboard", "featurecache.tracking.tensorboard:TensorBoardTracker"),
    "mlflow": ("mlflow", "featurecache.tracking.mlflow:MlflowTracker"),
    "wandb": ("wandb", "featurecache.tracking.wandb:WandbTracker"),
}
"""By name, which is also that of the extra: the package that a tracker needs, and its class."""

_SERIES: Final = ("seed", "model", "label")
"""Columns of a history whose values distinguish several series of lines."""


class _Logged(TypedDict):
    """How far a training was logged to a tool."""

    id: str | None
    points: int


def check_trackers(log: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of trackers, after checking that their packages are installed.

    Args:
        log: A name, or several.

    Raises:
        UnknownNameError: There is no such tracker.
        UsageError: Its package is not installed.
    """
    names = tuple(dict.fromkeys([log] if isinstance(log, str) else log))
    for name in names:
        if name not in TRACKERS:
            raise UnknownNameError("tracker", name, TRACKERS)
        package, _ = TRACKERS[name]
        if find_spec(package) is None:
            raise UsageError(
                f"logging to {name} needs {package}: pip install 'featurecache[{name}]'"
            )
    return names


@contextmanager
def open_trackers(
    names: Sequence[str], folder: Path, settings: Mapping[str, Any], *, state: Path | None = None
) -> Iterator["Trackers"]:
    """Log a training to several tools within the body.

    Args:
        names: Keys of ``TRACKERS``.
        folder: The run folder.
        settings: Settings of the training; None and what is nested are allowed.
        state: File that holds how far the training was logged, for one that continues after it was
            killed; None for one that does not.

    Raises:
        FeaturecacheError: A tool cannot be reached.
        UsageError: The file is damaged, or a package that a tool needs is not installed.
    """
    trackers = Trackers(state)
    try:
        for name in names:
            trackers.open(name, folder, _flatten(settings))
        yield trackers
    except BaseException:
        trackers.close(failed=True)
        raise
    trackers.close(failed=False)


class Trackers:
    """The tools that a training is logged to.

    One that fails during the training is left out from there on, with a ``FeaturecacheWarning``:
    the training is worth more than its log.
    """

    def __init__(self, state: Path | None) -> None:
        """Read how far the training was logged; see ``open_trackers``."""
        self._state = state
        self._open: dict[str, Tracker] = {}
        self._logged: dict[str, _Logged] = {}
        if state is not None and state.exists():
            try:
                self._logged = strict_json.validate(strict_json.read(state), dict[str, _Logged])
            except (OSError, ValueError) as error:
                raise_if_inaccessible(error, state)
                raise UsageError(
                    f"{state} is damaged: delete it, and the training is logged as a new one"
                ) from error

    def open(self, name: str, folder: Path, settings: Mapping[str, Scalar]) -> None:
        """Start to log to a tool; see ``open_trackers``."""
        logged = self._logged.get(name, _Logged(id=None, points=0))
        tracker_class: type[Tracker] = resolve_name(TRACKERS[name][1])
        try:
            tracker = tracker_class(folder, settings, id=logged["id"], n_points=logged["points"])
        except ImportError as error:
            raise UsageError(
                f"logging to {name} needs {error.name}: pip install 'featurecache[{name}]'"
            ) from error
        except tracker_class.errors() as error:
            raise FeaturecacheError(f"logging to {name} failed: {error}") from error
        self._open[name] = tracker
        self._logged[name] = _Logged(id=tracker.id, points=logged["points"])
        self._save()

    def log_history(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Log the lines of a history that were not logged before.

        Args:
            lines: All lines so far, as in ``history.csv``.
        """
        points = list(_points(lines))
        for name, tracker in list(self._open.items()):
            with self._reported(name):
                for step, values in points[self._logged[name]["points"] :]:
                    tracker.log_point(step, values)
                    self._logged[name]["points"] += 1
        self._save()

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Log the scores of the finished training by name."""
        for name, tracker in list(self._open.items()):
            with self._reported(name):
                tracker.log_scores(scores)

    def close(self, *, failed: bool) -> None:
        """Write everything that is not written yet; see ``Tracker.close``."""
        for name, tracker in list(self._open.items()):
            with self._reported(name):
                tracker.close(failed=failed)

    @contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        tracker = self._open[name]
        try:
            yield
        except tracker.errors() as error:
            del self._open[name]
            warnings.warn(
                f"logging to {name} failed and ends here: {error}",
                FeaturecacheWarning,
                stacklevel=4,
            )

    def _save(self) -> None:
        if self._state is not None and self._logged:
            with new_file(self._state) as temporary:
                temporary.write_text(json.dumps(self._logged), encoding="utf-8")


def _flatten(settings: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return settings as scalars: without None, and what is nested as JSON."""
    return {
        name: value if isinstance(value, Scalar) else json.dumps(value)
        for name, value in settings.items()
        if value is not None
    }


def _points(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the epoch and the numbers of each line, such as ``val_loss``.

    Numbers of one of several members or labels are called ``val_loss/seed 1``. Lines of candidates,
    which have no epoch, are counted.
    """
    counts = Counter[str]()
    for line in lines:
        keys = [key for key in _SERIES if line.get(key, "") != ""]
        series = "".join(f"/{key} {line[key]}" for key in keys)
        counts[series] += 1
        yield (
            int(line.get("epoch", counts[series])),
            {
                f"{name}{series}": float(value)
                for name, value in line.items()
                if name not in (*_SERIES, "epoch")
                and isinstance(value, int | float)
                and not isinstance(value, bool)
            },
        )
