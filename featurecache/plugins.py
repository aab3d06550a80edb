"""Load modules that register a user's own encoders, data sets and heads."""

from collections.abc import Iterable
from functools import cache
from importlib import import_module

from featurecache.errors import UsageError

GROUP = "featurecache.plugins"
"""Entry-point group of installed plugins; each entry point names a module to import."""


@cache
def load_entry_points() -> None:
    """Import every installed plugin once.

    Raises:
        UsageError: A plugin cannot be imported.
    """
    from importlib.metadata import entry_points

    for entry_point in entry_points(group=GROUP):
        _import(entry_point.module)


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules that call ``register_encoder``, ``register_dataset`` or ``register_head``.

    Args:
        modules: Dotted names of importable modules, such as ``"my_lab.encoders"``.

    Raises:
        UsageError: A module cannot be imported.
    """
    for module in modules:
        _import(module)


def _import(module: str) -> None:
    try:
        import_module(module)
    except ImportError as error:
        raise UsageError(
            f"the plugin {module} cannot be imported ({error}): check its name, and that it is "
            "installed or in the current folder"
        ) from error
