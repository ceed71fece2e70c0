"""Tests of the memorization screen with a model of words and its own training text, the bundled dialogues."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App
from textual.widgets import Input

from engine.analysis.memorization import MIN_PASSAGE_LENGTH, Passage
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.tokenizers.base import EOS_ID, UNK_ID
from engine.data.tokenizers.words import split_words
from engine.runs.loading import LoadedModel
from lotr_tui.formatting import format_percent
from lotr_tui.screens.memorization.occurrences import PassageOccurrences
from lotr_tui.screens.memorization.passage_text import PassageTextView, mark_passages
from lotr_tui.screens.memorization.screen import MemorizationScreen
from lotr_tui.screens.text.layout import Page, sanitize_text
from lotr_tui.screens.text.text_input import MAX_TEXT_CHARACTERS, TextInputBar, marks_to_newlines, newlines_to_marks
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.training_text import load_training_data, load_training_index
from tests.support.analysis import MakeHost, is_idle, open_memorization, painted, static_text, status_text
from tests.support.app import VOCABULARY
from tests.support.open_inspectors import words_session_model
from tests.support.pilot import until


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> SessionModel:
    """Model of words that was trained on the bundled dialogues."""
    return words_session_model(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def training_lines(bundled: SessionModel) -> list[str]:
    """Three lines of the training text with 8 to 12 words and no unknown word."""
    assert bundled.run is not None
    data = load_training_data(bundled.run)
    lines = [data.tokenizer.decode(ids) for ids in data.train_lines if 8 <= len(ids) <= 12 and UNK_ID not in ids]
    return lines[:3]


@pytest.fixture
def text(training_lines: list[str]) -> str:
    """Three copied passages, with new and unknown words between them."""
    first, second, third = training_lines
    return f"{first} zyzzyva {second} zyzzyva pony pony pony {third}"


def copied_words(text: str, session_model: SessionModel) -> list[bool]:
    """Find out for each word whether it is in four consecutive words of a training line, by brute force."""
    assert session_model.run is not None
    data = load_training_data(session_model.run)
    ngrams = {
        tuple(ids[i : i + MIN_PASSAGE_LENGTH])
        for ids in map(list, data.train_lines)
        for i in range(len(ids) - MIN_PASSAGE_LENGTH + 1)
    }
    copied = []
    for line in text.split("\n"):
        ids = [int(token) for token in data.tokenizer.encode(line)]
        mask = [False] * len(ids)
        for i in range(len(ids) - MIN_PASSAGE_LENGTH + 1):
            ngram = tuple(ids[i : i + MIN_PASSAGE_LENGTH])
            if UNK_ID not in ngram and ngram in ngrams:
                mask[i : i + MIN_PASSAGE_LENGTH] = [True] * MIN_PASSAGE_LENGTH
        copied += mask
    return copied


def found_passages(screen: MemorizationScreen) -> tuple[Passage, ...]:
    assert screen.result is not None
    return tuple(screen.result.passages)


def painted_text(app: App[Any]) -> str:
    return painted(app.screen.query_one(PassageTextView))


def metrics(app: App[Any]) -> str:
    return status_text(app, "#metrics")


def occurrences(app: App[Any]) -> str:
    return "\n".join(static_text(app, f"#occurrences {selector}") for selector in ("#heading", "#lines"))


# Without an app


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(4, 12)), max_size=6), st.integers(0, 40))
def test_marking_passages_adds_only_brackets(spans: list[tuple[int, int]], count: int) -> None:
    tokens = tokenize_with_offsets(" ".join(["bilbo", "wizard", "pony"] * 20)[: count * 6], VOCABULARY)
    page = Page.from_tokens(tokens)
    passages: list[Passage] = []
    for start, length in sorted(spans):  # no passage may contain another
        if start + length <= len(tokens) and (
            not passages or (start > passages[-1].start and start + length > passages[-1].start + passages[-1].length)
        ):
            passages.append(Passage(start, length, length, 1, ()))
    marked = mark_passages(page, passages)
    for index in range(len(tokens)):
        token = marked.text[marked.starts[index] : marked.ends[index]]
        assert token == page.text[page.starts[index] : page.ends[index]]
    for number, passage in enumerate(passages, 1):
        assert marked.text[: marked.starts[passage.start]].endswith(f"{number}[")
        assert marked.text[marked.ends[passage.start + passage.length - 1] :].startswith("]")
    unmarked = marked.text.replace("]", "")
    for number in range(len(passages), 0, -1):
        unmarked = unmarked.replace(f"{number}[", "", 1)
    assert unmarked == page.text


@given(st.text(st.one_of(st.characters(), st.sampled_from(list("ab \n"))), max_size=60))
def test_a_text_survives_the_one_line_input(text: str) -> None:
    line = newlines_to_marks(text)
    assert "\n" not in line
    assert line.isprintable()
    expected = [split_words(part) for part in sanitize_text(text).replace("<eos>", "\n").replace("¶", "\n").split("\n")]
    actual = [split_words(part) for part in marks_to_newlines(line).split("\n")]
    assert [tokens for tokens in actual if tokens] == [tokens for tokens in expected if tokens]


# Result


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 50)])
async def test_metrics_and_marks_agree_with_a_brute_force_search(
    make_host: MakeHost, bundled: SessionModel, text: str, size: tuple[int, int]
) -> None:
    app = make_host(session_model=bundled)
    async with app.run_test(size=size) as pilot:
        screen = await open_memorization(pilot, bundled, text)
        copied = copied_words(text, bundled)
        num_new = copied.count(False)
        assert 0 < num_new < len(copied)
        assert metrics(app).startswith(f"{format_percent(num_new / len(copied))} not in a copied passage")
        view = app.screen.query_one(PassageTextView)
        assert [view.is_in_passage(index) for index in range(len(copied))] == copied
        if size[0] == 200:
            longest = max(passage.length for passage in found_passages(screen))
            assert f"{len(copied)} words   {len(found_passages(screen))} passages" in metrics(app)
            assert metrics(app).endswith(f"longest {longest} words   2 unknown")
        assert "1[" in painted_text(app)


async def test_passages_are_underlined_and_the_highlighted_one_is_reversed(
    make_host: MakeHost, bundled: SessionModel, text: str
) -> None:
    app = make_host(session_model=bundled)
    async with app.run_test(size=(200, 50)) as pilot:
        passages = found_passages(await open_memorization(pilot, bundled, text))
        assert len(passages) >= 3
        styles = {
            segment.text: (bool(segment.style.underline), bool(segment.style.reverse))
            for segment in app.screen.query_one(PassageTextView).render_line(0)
            if segment.style is not None
        }
        words = split_words(text)
        assert styles[words[0]] == (False, True)
        assert styles[words[passages[1].start]] == (True, False)
        assert styles["‹zyzzyva›"] == (False, False)


async def test_an_occurrence_is_shown_with_its_line_and_speaker(
    make_host: MakeHost, bundled: SessionModel, training_lines: list[str]
) -> None:
    assert bundled.run is not None
    data = load_training_data(bundled.run)
    app = make_host(session_model=bundled)
    passage = " ".join(training_lines[0].split()[2:8])
    async with app.run_test(size=(200, 50)) as pilot:
        await open_memorization(pilot, bundled, f"zyzzyva {passage} zyzzyva")
        lines = [line for line in data.splits.train if f" {passage} " in f" {' '.join(split_words(line.text))} "]
        assert lines
        assert f"6 words · in {'1 place' if len(lines) == 1 else f'{len(lines)} places'}" in occurrences(app)
        first = lines[0]
        shown = next(line for line in occurrences(app).splitlines() if line.startswith(f"{first.speaker}  "))
        assert shown.replace("[", "").replace("]", "") == f"{first.speaker}  {' '.join(first.text.split(chr(10)))}"
        assert split_words(shown[shown.index("[") : shown.index("]")]) == passage.split()


async def test_keys_move_the_highlight_from_passage_to_passage(
    make_host: MakeHost, bundled: SessionModel, text: str
) -> None:
    app = make_host(session_model=bundled)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_memorization(pilot, bundled, text)
        count = len(found_passages(screen))
        view = app.screen.query_one(PassageTextView)
        assert view.has_focus
        for key, expected in [
            ("right", 1),
            ("left", 0),
            ("left", 0),
            ("down", 1),
            ("up", 0),
            ("end", count - 1),
            ("right", count - 1),
            ("home", 0),
            ("tab", 1),
            ("shift+tab", 0),
        ]:
            await pilot.press(key)
            assert view.highlighted == expected, key
            assert f"passage {expected + 1} of {count} ·" in occurrences(app), key
        await pilot.press("end", "tab")
        assert app.screen.query_one(PassageOccurrences).has_focus
        await pilot.press("down", "up", "pagedown", "pageup", "end", "home", "tab")
        assert app.screen.query_one(Input).has_focus
        await pilot.press("shift+tab", "shift+tab", "home", "shift+tab")
        assert not view.has_focus


async def test_a_click_highlights_a_passage(make_host: MakeHost, bundled: SessionModel, text: str) -> None:
    app = make_host(session_model=bundled)
    async with app.run_test(size=(200, 50)) as pilot:
        screen = await open_memorization(pilot, bundled, text)
        view = app.screen.query_one(PassageTextView)
        passages = found_passages(screen)
        token = passages[-1].start + passages[-1].length - 1
        await pilot.click(PassageTextView, offset=(view.column_of(token) + 1, view.line_of(token)))  # 1 is the padding
        assert view.highlighted == len(passages) - 1
        await pilot.click(PassageTextView, offset=(5, 12))  # below the text
        assert view.highlighted == len(passages) - 1


async def test_a_long_text_scrolls(make_host: MakeHost, bundled: SessionModel, training_lines: list[str]) -> None:
    app = make_host(session_model=bundled)
    async with app.run_test(size=(60, 20)) as pilot:
        await open_memorization(pilot, bundled, " zyzzyva ".join(training_lines * 12))
        view = app.screen.query_one(PassageTextView)
        await pilot.press("pagedown")
        assert view.scroll_offset.y > 0
        await pilot.press("pageup")
        assert view.scroll_offset.y == 0
        await pilot.press("end")
        assert 0 <= view.line_of(view.cursor) - view.scroll_offset.y < view.size.height


async def test_the_text_can_be_edited(make_host: MakeHost, bundled: SessionModel, training_lines: list[str]) -> None:
    app = make_host(session_model=bundled)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_memorization(pilot, bundled, "")
        assert "the text has no words" in metrics(app)
        await pilot.press("f2")
        field = app.screen.query_one(Input)
        assert field.has_focus
        misses = load_training_index.cache_info().misses
        field.value = f"{training_lines[0]} <eos> {training_lines[1]}"
        await pilot.press("enter")
        await until(pilot, lambda: is_idle(app))
        assert app.screen.query_one(PassageTextView).has_focus
        assert metrics(app).startswith("0 % not in a copied passage")
        assert painted_text(app).count("¶") == 1
        assert load_training_index.cache_info().misses - misses <= 1
        await pilot.press("f2", "f2")
        assert app.screen.query_one(PassageTextView).has_focus
        await pilot.press("escape")
        assert not isinstance(app.screen, MemorizationScreen)


async def test_the_input_starts_with_its_cursor_at_the_end(
    make_host: MakeHost, bundled: SessionModel, text: str
) -> None:
    app = make_host(session_model=bundled)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_memorization(pilot, bundled, text)
        await pilot.press("f2", *" pony")
        assert app.screen.query_one(TextInputBar).text == f"{text} pony"


async def test_a_long_text_keeps_its_end(make_host: MakeHost, bundled: SessionModel) -> None:
    app = make_host(session_model=bundled)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_memorization(pilot, bundled, "zyzzyva\n" * 5_000 + "the lamp")
        assert len(screen.text) <= MAX_TEXT_CHARACTERS
        assert screen.text.endswith("\nzyzzyva\nthe lamp")
        assert screen.text.startswith("zyzzyva\n")
        assert app.screen.query_one(TextInputBar).text.endswith("\nthe lamp")


async def test_the_training_text_is_loaded_once_per_session(
    make_host: MakeHost, bundled: SessionModel, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_host(session_model=bundled)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_memorization(pilot, bundled, text)
        monkeypatch.setattr(
            "lotr_tui.session.training_text.load_model", lambda path: pytest.fail("loaded a second time")
        )
        await pilot.press("escape")
        screen = await open_memorization(pilot, bundled, text)
        assert found_passages(screen)


async def test_a_missing_training_text_is_reported_on_one_line(
    make_host: MakeHost, bundled: SessionModel, loaded: LoadedModel, tmp_path: Path
) -> None:
    app = make_host(session_model=bundled)
    async with app.run_test(size=(200, 50)) as pilot:
        for session_model, text, message in [
            (SessionModel("x", "", bundled.model), "the lamp", "no training text: this model has no run"),
            (SessionModel("x", "", bundled.model, run=tmp_path / "gone"), "the lamp", "no training text: "),
            (SessionModel("x", "", loaded.decoder, run=bundled.run), "the lamp", "another vocabulary than this model"),
            (bundled, "", "the text has no words"),
            (bundled, "?! \x1b[ ¿…", "the text has no words"),
            (bundled, "☺ мир", "the model cannot read ☺, мир"),
            (bundled, "zyzzyva " * 5, "100 % not in a copied passage (4 words or more)   5 words   0 passages   5 unk"),
        ]:
            screen = await open_memorization(pilot, session_model, text)
            assert message in metrics(app)
            assert screen.result is None or not found_passages(screen)
            await pilot.press("right", "left", "home", "end", "tab", "pagedown", "escape")


async def test_a_text_without_copied_passages_is_reported(make_host: MakeHost, bundled: SessionModel) -> None:
    app = make_host(session_model=bundled)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_memorization(pilot, bundled, "zyzzyva zyzzyva")
        assert "nothing is copied" in occurrences(app)


async def test_characters_that_the_tokenizer_cannot_read_are_marked_and_listed(
    make_host: MakeHost, bundled: SessionModel, training_lines: list[str]
) -> None:
    first, *rest = training_lines[0].split()
    app = make_host(session_model=bundled)
    async with app.run_test(size=(200, 50)) as pilot:
        await open_memorization(pilot, bundled, f"☺ {first} мир {' '.join(rest)} ☺")
        assert painted_text(app) == f"‹☺› 1[{first} ‹мир› {' '.join(rest)}] ‹☺›"
        assert "cannot read ☺, мир" in metrics(app)


async def test_a_megabyte_of_odd_characters_is_cut_and_sanitized(make_host: MakeHost, bundled: SessionModel) -> None:
    app = make_host(session_model=bundled)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_memorization(pilot, bundled, "[red]文字 é́ \x1b[2J שלום " * 60_000)
        assert len(screen.text) <= MAX_TEXT_CHARACTERS
        assert "\x1b" not in painted_text(app)
        assert "[red]" in painted_text(app)
        await pilot.resize_terminal(20, 5)
        await pilot.press("right", "f2", "f2")
        await pilot.resize_terminal(200, 50)
        assert "\x1b" not in app.screen.query_one(TextInputBar).text


@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark", "ansi-light"])
async def test_passages_stand_out_without_colour_in_every_theme(
    make_host: MakeHost, bundled: SessionModel, text: str, theme: str
) -> None:
    app = make_host(session_model=bundled, theme=theme)
    async with app.run_test(size=(20, 5)) as pilot:
        await pilot.resize_terminal(80, 24)
        await open_memorization(pilot, bundled, text)
        assert "1[" in painted_text(app)
        styles = [segment.style for segment in app.screen.query_one(PassageTextView).render_line(0) if segment.style]
        assert any(style.reverse for style in styles)


def test_every_binding_has_an_id_and_a_tooltip() -> None:
    for owner in (MemorizationScreen, PassageTextView, PassageOccurrences):
        for binding in owner.BINDINGS:
            assert not isinstance(binding, tuple)
            assert binding.id
            assert binding.tooltip


def test_passages_never_contain_eos_or_unknown_words(bundled: SessionModel, training_lines: list[str]) -> None:
    assert bundled.run is not None
    tokens = tokenize_with_offsets("\n".join(training_lines), bundled.model.tokenizer, eos_per_line=True)
    report = load_training_index(bundled.run).find_passages(tokens.ids)
    assert report.passages
    for passage in report.passages:
        assert not np.isin(tokens.ids[passage.start : passage.start + passage.length], [EOS_ID, UNK_ID]).any()
