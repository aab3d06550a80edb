"""Run a frozen encoder over chest X-rays once, and reuse its embeddings for ever."""

from importlib.metadata import version

__version__ = version("featurecache")
