"""The ladder: columns that differ by temperature."""

import math
from itertools import pairwise

import pytest
from textual.widgets import Input

from engine.errors import InvalidInputError
from engine.generation.generate import TextInProgress, TokenEvent, generate
from engine.generation.settings import SamplerSettings
from lotr_tui.screens.inspect import comparison
from lotr_tui.screens.inspect.columns import DIFFERENCE_MARK, GenerationColumns
from lotr_tui.screens.inspect.comparison import WIDE_TEMPERATURES, LadderScreen, parse_ladder
from lotr_tui.session.comparison import first_difference
from lotr_tui.session.read_text import PromptContext
from lotr_tui.session.session_model import SessionModel
from tests.support.app import VOCABULARY, make_decoder
from tests.support.columns import column_lines, columns_text, generated_words, note_text, until_columns_ended
from tests.support.pilot import text_of, until
from tests.support.slow_models import FakeSlowModel, slow_session_model

TOP_K = SamplerSettings(top_k=20)
PROMPT = "the tower"


async def open_ladder(pilot, prompt=PROMPT, settings=TOP_K, pace=0):
    screen = LadderScreen(SessionModel("tiny", "for tests", make_decoder()), prompt, settings, 3, pace)
    await pilot.app.push_screen(screen)
    await pilot.pause()
    return screen


def expected_events(temperature, settings=TOP_K):
    settings = SamplerSettings(temperature=temperature, top_k=settings.top_k, max_tokens=settings.max_tokens)
    ids = VOCABULARY.encode(PROMPT).tolist()
    events = generate(TextInProgress(make_decoder(), ids, settings, 3))
    return [event for event in events if isinstance(event, TokenEvent)]


def expected_words(temperature, settings=TOP_K):
    return [event.text for event in expected_events(temperature, settings)]


def temperatures(screen):
    return [slot.temperature for slot in screen.slots]


async def test_each_column_is_the_text_of_its_temperature_with_the_first_difference_marked(make_host, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with make_host(theme="ansi-dark").run_test(size=(200, 50)) as pilot:
        screen = await open_ladder(pilot)
        await until_columns_ended(pilot, screen)
        expected = [expected_events(temperature) for temperature in WIDE_TEMPERATURES]
        texts = [[event.text for event in events] for events in expected]
        assert [generated_words(slot) for slot in screen.slots] == texts
        painted = columns_text(screen)
        for temperature, events in zip(WIDE_TEMPERATURES, expected, strict=True):
            bits = -sum(event.logprob for event in events) / math.log(2) / len(events)
            for figure in (f"{temperature:.2f}", f"{bits:.2f} bits/word", f"{len(events)} words"):
                assert figure in painted
        assert "stopped at 30" in painted or "end of line" in painted
        assert "seed 3" in text_of(screen.query_one("#status"))
        columns = screen.query_one(GenerationColumns)
        segments = [segment for y in range(columns.size.height) for segment in columns.render_line(y)]
        marked = [segment for segment in segments if DIFFERENCE_MARK in segment.text]
        places = [first_difference(left, text) for left, text in pairwise(texts)]
        differing = [text[place] for text, place in zip(texts[1:], places, strict=True) if place is not None]
        assert sorted(segment.text for segment in marked) == sorted(DIFFERENCE_MARK + word for word in differing) != []
        for place in places:
            assert ("= same as left" if place is None else f"≠ at word {place + 1} · ") in painted

        before = [slot.events for slot in screen.slots]
        await pilot.press("right", "plus", "plus", "plus")
        await until_columns_ended(pilot, screen)
        after = [slot.events for slot in screen.slots]
        assert [a is b for a, b in zip(before, after, strict=True)] == [True, False, True, True, True]
        assert generated_words(screen.slots[1]) == expected_words(0.75)


async def test_temperatures_are_typed_chosen_added_and_removed(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot)
        field = screen.query_one("#temperatures", Input)
        await until_columns_ended(pilot, screen)
        assert temperatures(screen) == parse_ladder(field.value) == list(WIDE_TEMPERATURES)
        field.value = "0.9 0.9"
        await pilot.press("right")
        assert (screen.selected_index, field.value) == (1, "0.9 0.9")  # typed, and not used before enter
        await pilot.press("enter")
        await until_columns_ended(pilot, screen)
        first, second = (generated_words(slot) for slot in screen.slots)
        assert first == second != []
        assert "= same as left" in columns_text(screen)
        assert DIFFERENCE_MARK not in columns_text(screen)
        await pilot.press(*["x"] * 2)
        assert len(screen.slots) == 1
        assert "one column must stay" in note_text(screen)
        await pilot.press(*["a"] * comparison.MAX_COLUMNS)
        assert len(screen.slots) == comparison.MAX_COLUMNS
        assert "the maximum; x removes one" in note_text(screen)
        assert temperatures(screen) == parse_ladder(field.value)


async def test_the_selected_column_is_visible_and_chosen_by_a_click(make_host):
    async with make_host().run_test(size=(60, 20)) as pilot:
        screen = await open_ladder(pilot, settings=SamplerSettings(max_tokens=300))
        await until_columns_ended(pilot, screen)
        await pilot.press(*["right"] * 5)
        assert column_lines(screen)[0].replace("temp ", "").split() == ["0.90", "1.20", "1.50"]
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        for number, x in ((3, 50), (4, 78)):
            await pilot.click(GenerationColumns, offset=(x, 1))
            assert screen.selected_index == number


async def test_stopping_keeps_the_generated_words(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        endless = SamplerSettings(top_k=20, max_tokens=1000)
        screen = await open_ladder(pilot, pace=50, settings=endless)
        await until(pilot, lambda: all(generated_words(slot) for slot in screen.slots))
        await pilot.press("escape")
        await until_columns_ended(pilot, screen)
        assert pilot.app.screen is screen
        assert "stopped by" in columns_text(screen)
        for slot, temperature in zip(screen.slots, WIDE_TEMPERATURES, strict=True):
            words = generated_words(slot)
            assert words == expected_words(temperature, endless)[: len(words)]
        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


async def test_ladder_reads_the_conversation_once_and_line_breaks_begin_lines(hosted):
    model, settings = FakeSlowModel(), SamplerSettings(max_tokens=20)
    model.prefer("\n", 14)
    async with hosted((120, 35)) as (pilot, app):
        screen = LadderScreen(slow_session_model(model), "bilbo is", settings, 7, 0, PromptContext("conversation"))
        await app.push_screen(screen)
        await until_columns_ended(pilot, screen)
        num_context = len(model.chat.encode(model.chat.encoded[-1]))
        assert model.num_read <= num_context + len(screen.slots) * settings.max_tokens
        assert "\n" in screen.slots[2].shown_words
        assert "¶" not in columns_text(screen)


async def test_invalid_controls_are_reported_on_one_line(make_host):
    async with make_host().run_test(size=(120, 24)) as pilot:
        screen = await open_ladder(pilot)
        for field, value, message in (
            ("#temperatures", "0.5 3", "temperature 3.0 is out of range"), ("#prompt", "   ", "type a prompt first"),
            ("#temperatures", "  ", "there is no temperature"),
        ):  # fmt: skip
            await until_columns_ended(pilot, screen)
            valid = screen.query_one(field, Input).value
            screen.query_one(field, Input).value = value
            await pilot.press("enter")
            await pilot.pause()
            assert message in note_text(screen)
            assert "\n" not in note_text(screen)
            screen.query_one(field, Input).value = valid
            await pilot.press("enter")
            await pilot.pause()
            assert message not in note_text(screen)


def test_temperatures_are_parsed_as_they_are_formatted():
    assert parse_ladder("0.5, .7 0.75,1 2.") == [0.5, 0.7, 0.75, 1.0, 2.0]
    values = [0.0, 0.05, 0.125, 0.7251, 1.0, 2.0]
    assert parse_ladder(" ".join(map(comparison.format_temperature, values))) == values
    for invalid in ("nan", "inf", "-1", "1e9", "warm"):
        with pytest.raises(InvalidInputError):
            parse_ladder(invalid)
