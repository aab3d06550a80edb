"""Command line: each command parses its options, calls one public function, prints the result."""

from featurecache.cli.app import app as main

__all__ = ["main"]
