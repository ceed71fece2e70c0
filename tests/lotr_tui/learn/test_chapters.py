"""Chapters, their source code, and the progress: shared between sessions, not lost through damage or a full disk."""

import importlib
import inspect
from operator import attrgetter

import pytest

from engine.errors import InvalidInputError
from lotr_tui.learn.chapters import CHAPTERS, find_chapter, read_source
from lotr_tui.learn.progress import Progress, ProgressStore, progress_file


def test_chapter_is_found_by_name_or_number():
    assert [find_chapter(chapter.name) for chapter in CHAPTERS] == [*range(9)]
    assert [find_chapter(str(number)) for number in range(1, 10)] == [*range(9)]


@pytest.mark.parametrize("name", ["0", "10", "-1", "1.0", "", "\u00b2", "chapter", pytest.param("1" * 5000, id="long")])
def test_unknown_chapter_is_refused_with_the_names(name):
    with pytest.raises(InvalidInputError, match="The chapters are 1 to 9, or tokens, counting, perplexity"):
        find_chapter(name)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: str(chapter.name))
def test_source_link_leads_to_a_definition_of_readable_length(chapter):
    file, symbol = chapter.source.split(" · ")
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    lines, first = inspect.getsourcelines(attrgetter(symbol)(module))
    assert read_source(chapter) == ("".join(lines).rstrip(), first)
    assert len(lines) <= 150


def test_next_session_reads_the_saved_progress(home):
    store = ProgressStore()
    assert (store.current, store.notice) == (Progress(), "")
    assert store.save() == ""
    assert not home.exists()  # nothing is written before something was done
    store.add(done="tokens")
    store.add(last="counting")
    assert store.save() == ""
    assert ProgressStore().current == Progress(("tokens",), "counting")
    assert progress_file() == home / "learn.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ('{"version": 2, "done": [], "last": ""}', "newer"),
        ('{"version": 1, "done": "tokens", "last": ""}', "done: expected array, got str"),
    ],
)
def test_damaged_or_newer_file_is_set_aside_and_reported_in_one_line(home, content, message):
    home.mkdir()
    progress_file().write_text(content)
    store = ProgressStore()
    assert store.current == Progress()
    assert message in store.notice
    assert "set aside as learn.json.damaged-1; the class begins again" in store.notice
    assert store.notice.isprintable()
    store.add(done="tokens")
    assert store.save() == ""
    assert (home / "learn.json.damaged-1").read_text() == content
    assert ProgressStore().current == Progress(("tokens",))
