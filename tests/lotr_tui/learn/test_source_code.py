"""Source code behind a chapter: the lines of a definition, and one line for what cannot be read."""

import inspect
from pathlib import Path

import pytest

import lotr_tui.learn.source_code as module
from engine.errors import InvalidInputError
from engine.models.ngram import KneserNey
from lotr_tui.learn.source_code import SourceExcerpt, SourceLink, read_source


@pytest.mark.parametrize(("symbol", "definition"), [("KneserNey", KneserNey), ("KneserNey.advance", KneserNey.advance)])
def test_excerpt_is_what_python_finds(symbol: str, definition: object) -> None:
    lines, first = inspect.getsourcelines(definition)  # type: ignore[arg-type]
    assert read_source(SourceLink("engine/models/ngram.py", symbol)) == SourceExcerpt("".join(lines).rstrip(), first)


def use_file(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> SourceLink:
    """Write a source file, and return a link to `f` in it."""
    monkeypatch.setattr(module, "ROOT", folder)
    (folder / "a.py").write_bytes(content)
    return SourceLink("a.py", "f")


def test_excerpt_has_the_decorators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = use_file(tmp_path, monkeypatch, b"x = 1\n\n@cache\n@other(\n    3\n)\ndef f():\n    return 1\n\ny = 2\n")
    assert read_source(link) == SourceExcerpt("@cache\n@other(\n    3\n)\ndef f():\n    return 1", 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"def g(): ...\n", "a.py does not define f; install lotr-tui again"),
        (b"f = 3\n", "a.py does not define f; install lotr-tui again"),
        (b"def f(:\n", "a.py is damaged; install lotr-tui again"),
        (b"def f(): '\xff'\n", "a.py is damaged; install lotr-tui again"),
        (b"def f(): '\0'\n", "a.py is damaged; install lotr-tui again"),
    ],
)
def test_file_without_the_definition_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    link = use_file(tmp_path, monkeypatch, content)
    with pytest.raises(InvalidInputError) as error:
        read_source(link)
    assert str(error.value) == message


def test_missing_file_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = use_file(tmp_path, monkeypatch, b"")
    (tmp_path / "a.py").unlink()
    with pytest.raises(InvalidInputError, match=r"^a.py cannot be read: No such file or directory; install lotr-tui"):
        read_source(link)
