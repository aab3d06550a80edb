"""Fixtures for inputs: the runner of commands."""

from tests.cli.conftest import isolate_commands, run

__all__ = ["isolate_commands", "run"]
