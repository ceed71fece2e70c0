"""Tests of the ladder: columns that differ by temperature."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from textual.binding import Binding
from textual.events import MouseScrollUp
from textual.pilot import Pilot
from textual.widgets import Input

from engine.errors import InvalidInputError
from engine.generation.columns import first_difference, fraction_differing
from engine.generation.generate import TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.models.numpy_lstm import NumpyLSTM
from lotr_tui.screens.comparison.columns import DIFFERENCE_MARK, GenerationColumns
from lotr_tui.screens.comparison.ladder import (
    MAX_COLUMNS,
    NOTEBOOK_TEMPERATURES,
    WIDE_TEMPERATURES,
    LadderScreen,
)
from lotr_tui.screens.comparison.screen import GenerationColumnsScreen
from lotr_tui.screens.comparison.temperatures import format_temperature, parse_temperatures, step_temperature
from lotr_tui.session.column_output import ColumnOutput
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import MakeHost
from tests.support.app import VOCABULARY, make_decoder
from tests.support.columns import SIZES, column_lines, columns_text, generated_words, note_text, until_columns_ended
from tests.support.pilot import set_field, text_of, until
from tests.support.sampling import make_token_event

TOP_K = SamplerSettings(top_k=20)
PROMPT = "the tower"


async def open_ladder(
    pilot: Pilot[None], prompt: str = PROMPT, seed: int | None = 3, settings: SamplerSettings = TOP_K, pace: float = 0
) -> LadderScreen:
    screen = LadderScreen(SessionModel("tiny", "for tests", make_decoder()), prompt, settings, seed, pace)
    await pilot.app.push_screen(screen)
    await pilot.pause()
    return screen


def expected_events(
    model: NumpyLSTM, temperature: float, seed: int, settings: SamplerSettings = TOP_K
) -> list[TokenEvent]:
    """Return the tokens that one column alone generates."""
    settings = SamplerSettings(temperature=temperature, top_k=settings.top_k, max_tokens=settings.max_tokens)
    ids = VOCABULARY.encode(PROMPT).tolist()
    return [event for event in generate(model, ids, settings, seed) if isinstance(event, TokenEvent)]


def temperatures(screen: GenerationColumnsScreen) -> list[float]:
    return [slot.temperature for slot in screen.slots]


@SIZES
async def test_each_column_is_the_text_of_its_temperature(make_host: MakeHost, size: tuple[int, int]) -> None:
    async with make_host().run_test(size=size) as pilot:
        screen = await open_ladder(pilot)
        await until_columns_ended(pilot, screen)
        expected = [expected_events(make_decoder(), temperature, 3) for temperature in WIDE_TEMPERATURES]
        assert [generated_words(slot.output) for slot in screen.slots] == [
            [e.text for e in events] for events in expected
        ]
        painted = columns_text(screen)
        assert all(
            f"{temperature:.2f}" in painted
            for temperature in (WIDE_TEMPERATURES if size[0] == 80 else WIDE_TEMPERATURES[:3])
        )
        for events in expected[:3]:
            bits = -sum(event.logprob for event in events) / math.log(2) / len(events)
            assert f"{bits:.2f} bits/word" in painted
            assert f"{len(events)} words" in painted
        assert "stopped at 30" in painted or "end of line" in painted
        status = text_of(screen.query_one("#status"))
        assert "ladder: continuations" in status
        assert "seed 3" in status


async def test_the_first_difference_is_marked_and_described(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(200, 50)) as pilot:
        screen = await open_ladder(pilot)
        await until_columns_ended(pilot, screen)
        texts = [
            [event.text for event in expected_events(make_decoder(), temperature, 3)]
            for temperature in WIDE_TEMPERATURES
        ]
        columns = screen.query_one(GenerationColumns)
        marked = [
            segment
            for y in range(columns.size.height)
            for segment in columns.render_line(y)
            if DIFFERENCE_MARK in segment.text
        ]
        places = [first_difference(left, text) for left, text in pairwise(texts)]
        assert any(place is not None for place in places)
        expected = [
            DIFFERENCE_MARK + text[place] for text, place in zip(texts[1:], places, strict=True) if place is not None
        ]
        assert sorted(segment.text for segment in marked) == sorted(expected)
        assert all(segment.style is not None and segment.style.underline for segment in marked)
        for place in places:
            assert ("= same words" if place is None else f"≠ at word {place + 1} · ") in columns_text(screen)


async def test_f2_chooses_the_temperatures_of_the_notebook_and_back(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot)
        for expected in (WIDE_TEMPERATURES, NOTEBOOK_TEMPERATURES, WIDE_TEMPERATURES):
            await until_columns_ended(pilot, screen)
            assert temperatures(screen) == list(expected)
            assert parse_temperatures(screen.query_one("#temperatures", Input).value, 5) == list(expected)
            for slot in screen.slots:
                words = [event.text for event in expected_events(make_decoder(), slot.temperature, 3)]
                assert generated_words(slot.output) == words
            await pilot.press("f2")


async def test_equal_temperatures_give_identical_columns(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot, prompt="")
        screen.query_one("#temperatures", Input).value = "0.9 0.9"
        screen.query_one("#prompt", Input).value = PROMPT
        await pilot.press("enter")
        await until_columns_ended(pilot, screen)
        first, second = (generated_words(slot.output) for slot in screen.slots)
        assert first == second != []
        assert "= same words" in columns_text(screen)
        assert DIFFERENCE_MARK not in columns_text(screen)


async def test_columns_of_similar_temperatures_are_similar(make_host: MakeHost) -> None:
    """Over eight seeds, the fraction of different words falls with the difference of the temperatures to 0."""
    temperatures = (1.9, 1.0, 0.75, 0.700000001)
    fractions: list[list[float]] = [[] for _ in temperatures]
    async with make_host().run_test(size=(120, 24)) as pilot:
        screen = await open_ladder(pilot, prompt="")
        screen.query_one("#temperatures", Input).value = " ".join(f"{value}" for value in (0.7, *temperatures))
        screen.query_one("#prompt", Input).value = PROMPT
        for seed in range(8):
            screen.query_one("#seed Input", Input).value = str(seed)
            await pilot.press("enter")
            await until_columns_ended(pilot, screen)
            assert screen.prompt_and_seed is not None
            assert screen.prompt_and_seed[1] == seed
            first, *rest = (generated_words(slot.output) for slot in screen.slots)
            for values, words in zip(fractions, rest, strict=True):
                values.append(fraction_differing(first, words))
    means = [sum(values) / len(values) for values in fractions]
    assert means[0] > 0.3
    assert means == sorted(means, reverse=True)
    assert means[2] < means[0] / 2
    assert fractions[-1] == [0] * 8


BINDING_IDS = {
    "columns.generate",
    "columns.stop",
    "columns.close",
    "columns.seed",
    "columns.add",
    "columns.remove",
    "columns.lower-temperature",
    "columns.raise-temperature",
    "columns.previous",
    "columns.next",
    "columns.up",
    "columns.down",
    "columns.interrupt",
}


def test_every_binding_is_tested_and_has_a_tooltip() -> None:
    bindings = [binding for binding in GenerationColumnsScreen.BINDINGS if isinstance(binding, Binding)]
    assert {binding.id for binding in bindings} == BINDING_IDS
    assert len(bindings) == len(BINDING_IDS) == len(GenerationColumnsScreen.BINDINGS)
    assert all(binding.tooltip for binding in bindings)


@SIZES
async def test_every_key_acts_as_described(make_host: MakeHost, size: tuple[int, int]) -> None:
    async with make_host().run_test(size=size) as pilot:
        screen = await open_ladder(pilot, prompt="")
        assert all(slot.output.is_empty for slot in screen.slots)
        await pilot.press(*"lamp", "enter")
        await until_columns_ended(pilot, screen)
        assert all(generated_words(slot.output) for slot in screen.slots)

        await pilot.press("f6", "f6")
        assert screen.selected_index == 2
        await pilot.press("f5")
        assert screen.selected_index == 1
        await pilot.press("f8")
        assert temperatures(screen) == [0.3, 0.65, 0.9, 1.2, 1.5]
        await pilot.press("f7", "down")
        assert temperatures(screen) == [0.3, 0.55, 0.9, 1.2, 1.5]
        await pilot.press("up")
        assert temperatures(screen) == list(WIDE_TEMPERATURES)
        await pilot.press("f3")
        assert temperatures(screen) == [0.3, 0.6, 0.75, 0.9, 1.2, 1.5]
        assert screen.selected_index == 2
        await pilot.press("f4")
        assert temperatures(screen) == list(WIDE_TEMPERATURES)
        await until_columns_ended(pilot, screen)

        screen.query_one(GenerationColumns).focus()  # the keys without modifiers apply where no text is typed
        await pilot.press("right", "right", "left", "plus", "minus", "delete")
        assert temperatures(screen) == [0.3, 0.6, 0.9, 1.2]
        assert screen.selected_index == 3
        await until_columns_ended(pilot, screen)

        before = screen.prompt_and_seed
        await pilot.press("ctrl+r")
        assert screen.prompt_and_seed is not None
        assert before is not None
        assert screen.prompt_and_seed[0] == before[0]
        assert screen.prompt_and_seed[1] != before[1]
        assert screen.query_one("#seed Input", Input).value == str(screen.prompt_and_seed[1])
        await until_columns_ended(pilot, screen)

        set_field(pilot.app, "max_tokens", "400")  # type: ignore[arg-type]
        await pilot.press("enter")
        await until_columns_ended(pilot, screen)
        end = column_lines(screen)[-1]
        await pilot.press("pageup")
        assert column_lines(screen)[-1] != end
        await pilot.press("pagedown")
        assert column_lines(screen)[-1] == end

        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
async def test_stopping_keeps_the_generated_words(make_host: MakeHost, key: str) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        endless = SamplerSettings(top_k=20, max_tokens=1000)
        screen = await open_ladder(pilot, pace=50, settings=endless)
        await until(pilot, lambda: all(generated_words(slot.output) for slot in screen.slots))
        await pilot.press(key)
        await until_columns_ended(pilot, screen)
        assert pilot.app.screen is screen
        assert "cancelled" in {slot.output.done_event.reason for slot in screen.slots if slot.output.done_event}
        assert "stopped by" in columns_text(screen)
        for slot, temperature in zip(screen.slots, WIDE_TEMPERATURES, strict=True):
            words = generated_words(slot.output)
            assert (
                words
                == [event.text for event in expected_events(make_decoder(), temperature, 3, endless)][: len(words)]
            )
        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


async def test_changing_a_temperature_regenerates_only_that_column(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot)
        await until_columns_ended(pilot, screen)
        before = [slot.output.events for slot in screen.slots]
        await pilot.press("f6", "f8", "f8", "f8")
        await until_columns_ended(pilot, screen)
        after = [slot.output.events for slot in screen.slots]
        assert [a is b for a, b in zip(before, after, strict=True)] == [True, False, True, True, True]
        assert generated_words(screen.slots[1].output) == [
            event.text for event in expected_events(make_decoder(), 0.75, 3)
        ]


async def test_a_click_selects_a_column_and_the_wheel_scrolls(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot, settings=SamplerSettings(max_tokens=300))
        await until_columns_ended(pilot, screen)
        for number, x in ((3, 50), (0, 2), (4, 78)):
            await pilot.click(GenerationColumns, offset=(x, 1))
            assert screen.selected_index == number
        rule = column_lines(screen)[4]
        assert rule.rstrip().endswith("━" * 14)
        assert "━" not in rule[:-14]
        end = column_lines(screen)
        columns = screen.query_one(GenerationColumns)
        columns.post_message(MouseScrollUp(columns, 5, 8, 0, -1, 0, False, False, False))
        await until(pilot, lambda: column_lines(screen) != end)
        columns.scroll_lines(10**6)
        assert column_lines(screen) == end


async def test_the_selected_column_is_visible_on_a_narrow_terminal(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(60, 20)) as pilot:
        screen = await open_ladder(pilot)
        await until_columns_ended(pilot, screen)
        assert "1–3 of 5" in columns_text(screen)
        assert column_lines(screen)[0].replace("temp ", "").split() == ["0.30", "0.60", "0.90"]
        await pilot.press("f6", "f6", "f6", "f6", "f6")
        assert screen.selected_index == 4
        assert column_lines(screen)[0].replace("temp ", "").split() == ["0.90", "1.20", "1.50"]
        assert "3–5 of 5" in columns_text(screen)
        await pilot.press("f5", "f5", "f5")
        assert column_lines(screen)[0].replace("temp ", "").split() == ["0.60", "0.90", "1.20"]


INVALID_FIELDS = [
    ("#temperatures", "0.5 3", "temperature 3.0 is out of range"),
    ("#temperatures", "0.5 1.2.3", "temperature '1.2.3' is not a number"),
    ("#temperatures", "  ", "there is no temperature"),
    ("#temperatures", "1 " * (MAX_COLUMNS + 1), "are too many"),
    ("#seed Input", "99999999999999999999", "out of range"),
    ("#max_tokens Input", "0", "max-tokens 0 is out of range"),
    ("#prompt", "   ", "type a prompt first"),
    ("#prompt", "?!", "no word"),
    ("#prompt", "xylophone quartz", "knows none"),
]


async def test_an_invalid_control_is_reported_on_one_line(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(120, 24)) as pilot:
        screen = await open_ladder(pilot)
        for field, value, message in INVALID_FIELDS:
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
        await until_columns_ended(pilot, screen)
        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


async def test_the_number_of_columns_is_between_1_and_the_maximum(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot)
        await pilot.press(*["f4"] * 6)
        assert len(screen.slots) == 1
        assert "one column must stay" in note_text(screen)
        await pilot.press(*["f3"] * MAX_COLUMNS)
        assert len(screen.slots) == MAX_COLUMNS
        assert "the maximum; f4 removes one" in note_text(screen)
        assert temperatures(screen) == parse_temperatures(screen.query_one("#temperatures", Input).value, MAX_COLUMNS)


async def test_unknown_words_of_the_prompt_are_named(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot, prompt="the [red]zebra[/] tower")
        assert "the model does not know: red, zebra" in note_text(screen)
        await until_columns_ended(pilot, screen)
        assert all(generated_words(slot.output) for slot in screen.slots)
        await pilot.press("f8", "f8", "f8", "f8")  # to a second column of 0.70; only this column is generated
        assert note_text(screen) == "the model does not know: red, zebra"


@pytest.mark.parametrize("prompt", ["the\x1b[31m tower", "the " * 5000, "the 高い塔 \u202etower é", "[bold]the[/nope"])
async def test_odd_prompts_are_displayed_safely(make_host: MakeHost, prompt: str) -> None:
    async with make_host().run_test(size=(60, 20)) as pilot:
        screen = await open_ladder(pilot, prompt=prompt)
        await until_columns_ended(pilot, screen)
        assert "\x1b" not in columns_text(screen) + note_text(screen)


async def test_the_terminal_can_be_resized_during_generation(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(200, 50)) as pilot:
        screen = await open_ladder(pilot, pace=200, settings=SamplerSettings(max_tokens=60))
        for size in ((60, 20), (20, 5), (1, 1), (80, 24), (200, 50), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert all(len(line) <= max(1, size[0]) for line in column_lines(screen))
        await until_columns_ended(pilot, screen)
        assert all(generated_words(slot.output) for slot in screen.slots)


@pytest.mark.parametrize("theme", ["shire", "textual-light", "ansi-light", "ansi-dark"])
async def test_the_difference_mark_needs_no_colour_in_any_theme(
    make_host: MakeHost, theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with make_host(theme=theme).run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot)
        await until_columns_ended(pilot, screen)
        assert DIFFERENCE_MARK in columns_text(screen)
        assert all(
            segment.style is not None
            for y in range(24)
            for segment in screen.query_one(GenerationColumns).render_line(y)
        )


async def test_long_words_are_split_to_the_column_width(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot, prompt="")
        texts = [ColumnOutput("0.5"), ColumnOutput("木" * 40, description="a " * 90)]
        for text, word in zip(texts, ("x" * 40, "高い塔" * 9), strict=True):
            text.events = [make_token_event(index=i, piece=f" {word}") for i in range(3)]
        columns = screen.query_one(GenerationColumns)
        columns.show(texts, 1)
        await pilot.pause()
        assert all(columns.render_line(y).cell_length == columns.size.width for y in range(columns.size.height))
        assert columns_text(screen).count("x") == 120


def parse_formatted(values: Sequence[float]) -> list[float]:
    return parse_temperatures(" ".join(format_temperature(value) for value in values), MAX_COLUMNS)


def test_temperatures_are_parsed_as_they_are_formatted() -> None:
    assert parse_temperatures("0.5, .7 0.75,1 2.", MAX_COLUMNS) == [0.5, 0.7, 0.75, 1.0, 2.0]
    values = [0.0, 0.05, 0.125, 0.7251, 1.0, 2.0]
    assert parse_formatted(values) == values
    for invalid in ("nan", "inf", "-1", "1e9", "warm"):
        with pytest.raises(InvalidInputError):
            parse_temperatures(invalid, MAX_COLUMNS)


def test_temperature_steps_stay_on_the_grid_and_in_range() -> None:
    assert step_temperature(0.75, 1) == 0.8
    assert step_temperature(0.725, 1) in (0.75, 0.8)
    assert step_temperature(0.0, -1) == 0.0
    assert step_temperature(2.0, 1) == 2.0
