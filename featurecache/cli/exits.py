"""What becomes of errors: one or two lines on stderr, and an exit code.

0    done
1    a failure
2    a user's mistake: an option, a file, a name
130  interrupted
"""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from featurecache.cli.output import say
from featurecache.errors import FeaturecacheError

DEBUG_VARIABLE = "FEATURECACHE_DEBUG"


def with_exit_code(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command end with a message and an exit code where it would raise."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except FeaturecacheError as error:
            _end(str(error), error.exit_code)
        except KeyboardInterrupt:
            _end("interrupted: what was finished is kept, and the same command goes on", 130)
        except BrokenPipeError:
            raise  # typer ends quietly when the reader of its output went away
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _end(f"{where}{error.strerror or error}", 1)

    return run


def _end(message: str, code: int) -> None:
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exc()
    say(f"error: {message}")
    raise typer.Exit(code)
