"""Library messages name Python arguments; only the command line speaks of its options."""

import ast
import re
from pathlib import Path

import pytest

import featurecache

PACKAGE = Path(featurecache.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if PACKAGE / "cli" not in path.parents)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
FOREIGN = {"--upgrade", "--head"}
"""Options of other programs: pip and Ray."""
WITH_COMMANDS = ("report/reproduce.py", "sharing/card.py")
"""Modules that write command lines, which is their purpose."""


def messages(path: Path) -> list[str]:
    """Return the string literals of a module that are not docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in statements
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_library_messages_mention_no_command_line_option(path: Path) -> None:
    found = [m for text in messages(path) for m in OPTION.findall(text) if m not in FOREIGN]
    if path.relative_to(PACKAGE).as_posix() in WITH_COMMANDS:
        assert found
        return
    assert found == []
