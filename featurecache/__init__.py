"""Run a frozen encoder over chest X-rays once, and reuse its embeddings for ever."""

import logging
from importlib.metadata import version

__version__ = version("featurecache")

# Whoever uses the package decides what is logged where; by itself it says nothing.
logging.getLogger(__name__).addHandler(logging.NullHandler())
