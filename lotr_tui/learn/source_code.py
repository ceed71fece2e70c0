"""Source code that a chapter links to, found without importing it."""

import ast
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InvalidInputError

ROOT = Path(__file__).resolve().parents[2]
"""Folder that contains the packages `engine` and `lotr_tui`."""


@dataclass(frozen=True)
class SourceLink:
    """A function or class of this program."""

    path: str
    """Path of the file below the folder of the packages, such as `engine/models/ngram.py`."""
    symbol: str
    """Qualified name in the file, such as `KneserNey.advance`."""

    @property
    def label(self) -> str:
        """Path and name as they are displayed."""
        return f"{self.path} · {self.symbol}"


@dataclass(frozen=True)
class SourceExcerpt:
    """Lines of a source file."""

    text: str
    first_line: int
    """Number of the first line in the file."""


def read_source(link: SourceLink) -> SourceExcerpt:
    """Return the lines of a function or class, with its decorators; the file is parsed and not run.

    Raises:
        InvalidInputError: If the file cannot be read, or does not define the symbol.
    """
    try:
        text = (ROOT / link.path).read_text(encoding="utf-8")
        node: ast.AST = ast.parse(text)
    except OSError as error:
        raise InvalidInputError(f"{link.path} cannot be read: {error.strerror}; install lotr-tui again") from error
    except (SyntaxError, ValueError) as error:
        raise InvalidInputError(f"{link.path} is damaged; install lotr-tui again") from error
    for name in link.symbol.split("."):
        node = _find_definition(node, name, link)
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = text.splitlines()[first - 1 : node.end_lineno]
    return SourceExcerpt("\n".join(lines), first)


def _find_definition(node: ast.AST, name: str, link: SourceLink) -> ast.AST:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and child.name == name:
            return child
    raise InvalidInputError(f"{link.path} does not define {link.symbol}; install lotr-tui again")
