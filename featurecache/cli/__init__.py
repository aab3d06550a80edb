"""The command line: parse, call one public function, print; nothing else."""

from featurecache.cli.app import app as main

__all__ = ["main"]
