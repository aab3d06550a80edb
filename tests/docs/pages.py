"""Code blocks of Markdown pages."""

import re
import shlex
from pathlib import Path

NOT_RUN = "# not run:"
"""First line of a block that needs images or weights of the reader; the rest of it says which."""


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced code blocks of a language, also those that are not run."""
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def runnable(page: Path, language: str) -> list[str]:
    """Return the blocks that a test can run."""
    return [block for block in blocks(page, language) if not block.startswith(NOT_RUN)]


def command_lines(shell: str) -> list[list[str]]:
    """Return the arguments of every featurecache command in a block of shell code."""
    found = []
    for line in shell.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and "=" in words[0]:  # a variable of the environment
            words = words[1:]
        if words and words[0] == "featurecache" and "..." not in words:
            found.append(words[1:])
    return found
