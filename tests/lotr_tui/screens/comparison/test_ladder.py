"""The ladder, driven as a person would: what stands in its columns is what the model says of them."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from textual.binding import Binding
from textual.events import MouseScrollUp
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.errors import UnusableInput
from engine.generation.columns import first_difference, share_differing, words_of
from engine.generation.generate import TokenEvent, stream
from engine.generation.settings import SamplerSettings
from engine.models.numpy_lstm import Decoder
from lotr_tui.screens.comparison.columns import MARK, Columns, ColumnText
from lotr_tui.screens.comparison.ladder import MOST, NOTEBOOK, LadderScreen, parse_temperatures
from lotr_tui.screens.comparison.screen import ColumnsScreen, shown_temperature, step_temperature
from lotr_tui.session.player import Player
from tests.lotr_tui.conftest import VOCABULARY, Host, make_decoder
from tests.lotr_tui.screens.session.test_session_screen import set_field, text_of, until

MakeHost = Callable[..., Host]

SIZES = pytest.mark.parametrize("size", [(80, 24), (60, 20)], ids=["80x24", "60x20"])
TOP_K = SamplerSettings(top_k=20)
PROMPT = "the tower"


async def open_ladder(
    pilot: Pilot[None], prompt: str = PROMPT, seed: int | None = 3, settings: SamplerSettings = TOP_K, pace: float = 0
) -> LadderScreen:
    screen = LadderScreen(Player("tiny", "for tests", make_decoder()), prompt, settings, seed, pace)
    await pilot.app.push_screen(screen)
    await pilot.pause()
    return screen


async def ended(pilot: Pilot[None], screen: ColumnsScreen) -> None:
    """Until every column has all its words."""
    await until(pilot, lambda: all(slot.text.done or slot.text.failure for slot in screen.slots))
    await pilot.pause()


def lines(screen: ColumnsScreen) -> list[str]:
    columns = screen.query_one(Columns)
    return [columns.render_line(y).text.rstrip() for y in range(columns.size.height)]


def shown(screen: ColumnsScreen) -> str:
    return "\n".join(lines(screen))


def note(screen: ColumnsScreen) -> str:
    return text_of(screen.query_one("#note", Static))


def words_in(text: ColumnText) -> list[str]:
    return [event.text for event in text.events if isinstance(event, TokenEvent)]


def alone(model: Decoder, temperature: float, seed: int, settings: SamplerSettings = TOP_K) -> list[TokenEvent]:
    """The words of one stream, with nothing beside it."""
    own = SamplerSettings(temperature=temperature, top_k=settings.top_k, max_tokens=settings.max_tokens)
    ids = VOCABULARY.encode(PROMPT.split()).tolist()
    return [event for event in stream(model, ids, own, seed) if isinstance(event, TokenEvent)]


def temperatures(screen: ColumnsScreen) -> list[float]:
    return [slot.temperature for slot in screen.slots]


@SIZES
async def test_every_column_is_the_text_of_its_temperature(make_host: MakeHost, size: tuple[int, int]) -> None:
    async with make_host().run_test(size=size) as pilot:
        screen = await open_ladder(pilot)
        await ended(pilot, screen)
        expected = [alone(make_decoder(), temperature, 3) for temperature in NOTEBOOK]
        assert [words_in(slot.text) for slot in screen.slots] == [[e.text for e in events] for events in expected]
        seen = shown(screen)
        assert all(f"{temperature:.2f}" in seen for temperature in (NOTEBOOK if size[0] == 80 else NOTEBOOK[:3]))
        for events in expected[:3]:
            bits = -sum(event.logprob for event in events) / math.log(2) / len(events)
            assert f"{bits:.2f} bits/word" in seen
            assert f"{len(events)} words" in seen
        assert "stopped at 30" in seen or "ended by" in seen
        status = text_of(screen.query_one("#status"))
        assert "ladder" in status
        assert "seed 3" in status


async def test_the_first_word_that_differs_is_marked_and_told(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(200, 50)) as pilot:
        screen = await open_ladder(pilot)
        await ended(pilot, screen)
        texts = [[event.text for event in alone(make_decoder(), temperature, 3)] for temperature in NOTEBOOK]
        columns = screen.query_one(Columns)
        marked = [
            segment for y in range(columns.size.height) for segment in columns.render_line(y) if MARK in segment.text
        ]
        places = [first_difference(left, text) for left, text in pairwise(texts)]
        assert any(place is not None for place in places)
        expected = [MARK + text[place] for text, place in zip(texts[1:], places, strict=True) if place is not None]
        assert sorted(segment.text for segment in marked) == sorted(expected)
        assert all(segment.style is not None and segment.style.underline for segment in marked)
        for place in places:
            assert ("= same words" if place is None else f"≠ at word {place + 1} · ") in shown(screen)


async def test_equal_temperatures_give_identical_columns(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot, prompt="")
        screen.query_one("#temperatures", Input).value = "0.9 0.9"
        screen.query_one("#prompt", Input).value = PROMPT
        await pilot.press("enter")
        await ended(pilot, screen)
        first, second = (words_in(slot.text) for slot in screen.slots)
        assert first == second != []
        assert "= same words" in shown(screen)
        assert MARK not in shown(screen)


async def test_as_the_temperatures_approach_so_do_the_columns(make_host: MakeHost) -> None:
    """Over a few seeds: far apart most words differ, at a hair's breadth none."""
    others = (1.9, 1.0, 0.75, 0.700000001)
    shares: list[list[float]] = [[] for _ in others]
    async with make_host().run_test(size=(120, 24)) as pilot:
        screen = await open_ladder(pilot, prompt="")
        screen.query_one("#temperatures", Input).value = " ".join(f"{value}" for value in (0.7, *others))
        screen.query_one("#prompt", Input).value = PROMPT
        for seed in range(8):
            screen.query_one("#seed Input", Input).value = str(seed)
            await pilot.press("enter")
            await ended(pilot, screen)
            assert screen.asked is not None
            assert screen.asked[1] == seed
            first, *rest = (words_of(slot.text.events) for slot in screen.slots)
            for share, words in zip(shares, rest, strict=True):
                share.append(share_differing(first, words))
    means = [sum(share) / len(share) for share in shares]
    assert means[0] > 0.3
    assert means == sorted(means, reverse=True)
    assert means[2] < means[0] / 2
    assert shares[-1] == [0] * 8


ACTIONS = {
    "columns.run",
    "columns.stop",
    "columns.leave",
    "columns.seed",
    "columns.add",
    "columns.remove",
    "columns.cooler",
    "columns.hotter",
    "columns.left",
    "columns.right",
    "columns.up",
    "columns.down",
    "columns.interrupt",
}


def test_the_keys_driven_below_are_all_there_are() -> None:
    bindings = [binding for binding in ColumnsScreen.BINDINGS if isinstance(binding, Binding)]
    assert {binding.id for binding in bindings} == ACTIONS
    assert len(bindings) == len(ACTIONS) == len(ColumnsScreen.BINDINGS)
    assert all(binding.tooltip for binding in bindings)


@SIZES
async def test_every_key_of_the_table(make_host: MakeHost, size: tuple[int, int]) -> None:
    async with make_host().run_test(size=size) as pilot:
        screen = await open_ladder(pilot, prompt="")
        assert all(slot.text.blank for slot in screen.slots)
        await pilot.press(*"lamp", "enter")
        await ended(pilot, screen)
        assert all(words_in(slot.text) for slot in screen.slots)

        await pilot.press("f6", "f6")
        assert screen.chosen == 2
        await pilot.press("f5")
        assert screen.chosen == 1
        await pilot.press("f8")
        assert temperatures(screen) == [0.5, 0.75, 0.75, 0.8, 1.0]
        await pilot.press("f7", "down")
        assert temperatures(screen) == [0.5, 0.65, 0.75, 0.8, 1.0]
        await pilot.press("up")
        assert temperatures(screen) == list(NOTEBOOK)
        await pilot.press("f3")
        assert temperatures(screen) == [0.5, 0.7, 0.725, 0.75, 0.8, 1.0]
        assert screen.chosen == 2
        await pilot.press("f4")
        assert temperatures(screen) == list(NOTEBOOK)
        await ended(pilot, screen)

        screen.query_one(Columns).focus()  # the same with one hand, where no text is being typed
        await pilot.press("right", "right", "left", "plus", "minus", "delete")
        assert temperatures(screen) == [0.5, 0.7, 0.75, 0.8]
        assert screen.chosen == 3
        await ended(pilot, screen)

        before = screen.asked
        await pilot.press("ctrl+r")
        assert screen.asked is not None
        assert before is not None
        assert screen.asked[0] == before[0]
        assert screen.asked[1] != before[1]
        assert screen.query_one("#seed Input", Input).value == str(screen.asked[1])
        await ended(pilot, screen)

        set_field(pilot.app, "max_tokens", "400")  # type: ignore[arg-type]
        await pilot.press("enter")
        await ended(pilot, screen)
        end = lines(screen)[-1]
        await pilot.press("pageup")
        assert lines(screen)[-1] != end
        await pilot.press("pagedown")
        assert lines(screen)[-1] == end

        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
async def test_words_are_stopped_and_stay(make_host: MakeHost, key: str) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        endless = SamplerSettings(top_k=20, max_tokens=1000)
        screen = await open_ladder(pilot, pace=50, settings=endless)
        await until(pilot, lambda: all(words_in(slot.text) for slot in screen.slots))
        await pilot.press(key)
        await ended(pilot, screen)
        assert pilot.app.screen is screen
        assert "cancelled" in {slot.text.done.reason for slot in screen.slots if slot.text.done}
        assert "stopped by" in shown(screen)
        for slot, temperature in zip(screen.slots, NOTEBOOK, strict=True):
            words = words_in(slot.text)
            assert words == [event.text for event in alone(make_decoder(), temperature, 3, endless)][: len(words)]
        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


async def test_a_changed_column_alone_is_written_anew(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot)
        await ended(pilot, screen)
        before = [slot.text.events for slot in screen.slots]
        await pilot.press("f6", "f8", "f8", "f8")
        await ended(pilot, screen)
        after = [slot.text.events for slot in screen.slots]
        assert [a is b for a, b in zip(before, after, strict=True)] == [True, False, True, True, True]
        assert words_in(screen.slots[1].text) == [event.text for event in alone(make_decoder(), 0.85, 3)]


async def test_a_click_chooses_a_column_and_the_wheel_scrolls(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot, settings=SamplerSettings(max_tokens=300))
        await ended(pilot, screen)
        for number, x in ((3, 50), (0, 2), (4, 78)):
            await pilot.click(Columns, offset=(x, 1))
            assert screen.chosen == number
        rule = lines(screen)[4]
        assert rule.rstrip().endswith("━" * 14)
        assert "━" not in rule[:-14]
        end = lines(screen)
        columns = screen.query_one(Columns)
        columns.post_message(MouseScrollUp(columns, 5, 8, 0, -1, 0, False, False, False))
        await until(pilot, lambda: lines(screen) != end)
        columns.scroll_lines(10**6)
        assert lines(screen) == end


async def test_on_a_narrow_terminal_the_chosen_column_is_among_those_seen(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(60, 20)) as pilot:
        screen = await open_ladder(pilot)
        await ended(pilot, screen)
        assert "1–3 of 5" in shown(screen)
        assert lines(screen)[0].split() == ["0.50", "0.70", "0.75"]
        await pilot.press("f6", "f6", "f6", "f6", "f6")
        assert screen.chosen == 4
        assert lines(screen)[0].split() == ["0.75", "0.80", "1.00"]
        assert "3–5 of 5" in shown(screen)
        await pilot.press("f5", "f5", "f5")
        assert lines(screen)[0].split() == ["0.70", "0.75", "0.80"]


BAD_FIELDS = [
    ("#temperatures", "0.5 3", "temperature 3.0 is out of range"),
    ("#temperatures", "0.5 1.2.3", "temperature '1.2.3' is no number"),
    ("#temperatures", "  ", "there is no temperature"),
    ("#temperatures", "1 " * (MOST + 1), "are too many"),
    ("#seed Input", "99999999999999999999", "out of range"),
    ("#max_tokens Input", "0", "max-tokens 0 is out of range"),
    ("#prompt", "   ", "type a prompt first"),
    ("#prompt", "?!", "no word"),
    ("#prompt", "xylophone quartz", "knows none"),
]


async def test_what_cannot_be_used_is_said_in_one_line(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(120, 24)) as pilot:
        screen = await open_ladder(pilot)
        for field, value, said in BAD_FIELDS:
            await ended(pilot, screen)
            sound = screen.query_one(field, Input).value
            screen.query_one(field, Input).value = value
            await pilot.press("enter")
            await pilot.pause()
            assert said in note(screen)
            assert "\n" not in note(screen)
            screen.query_one(field, Input).value = sound
            await pilot.press("enter")
            await pilot.pause()
            assert said not in note(screen)
        await ended(pilot, screen)
        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


async def test_one_column_stays_and_there_is_a_most(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot)
        await pilot.press(*["f4"] * 6)
        assert len(screen.slots) == 1
        assert "one column stays" in note(screen)
        await pilot.press(*["f3"] * MOST)
        assert len(screen.slots) == MOST
        assert "as many as can be read" in note(screen)
        assert temperatures(screen) == parse_temperatures(screen.query_one("#temperatures", Input).value)


async def test_words_the_model_does_not_know_are_named(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot, prompt="the [red]zebra[/] tower")
        assert "read as <unk>: red, zebra" in note(screen)
        await ended(pilot, screen)
        assert all(words_in(slot.text) for slot in screen.slots)
        await pilot.press("f8", "f8", "f8", "f8")  # two of 0.70, and one column alone is written
        assert note(screen) == "not in the vocabulary, read as <unk>: red, zebra"


@pytest.mark.parametrize("prompt", ["the\x1b[31m tower", "the " * 5000, "the 高い塔 \u202etower é", "[bold]the[/nope"])
async def test_no_prompt_breaks_the_screen(make_host: MakeHost, prompt: str) -> None:
    async with make_host().run_test(size=(60, 20)) as pilot:
        screen = await open_ladder(pilot, prompt=prompt)
        await ended(pilot, screen)
        assert "\x1b" not in shown(screen) + note(screen)


async def test_resizing_while_words_come(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(200, 50)) as pilot:
        screen = await open_ladder(pilot, pace=200, settings=SamplerSettings(max_tokens=60))
        for size in ((60, 20), (20, 5), (1, 1), (80, 24), (200, 50), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert all(len(line) <= max(1, size[0]) for line in lines(screen))
        await ended(pilot, screen)
        assert all(words_in(slot.text) for slot in screen.slots)


@pytest.mark.parametrize("theme", ["shire", "textual-light", "ansi-light", "ansi-dark"])
async def test_without_colour_and_in_every_theme(
    make_host: MakeHost, theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with make_host(theme=theme).run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot)
        await ended(pilot, screen)
        assert MARK in shown(screen)
        assert all(segment.style is not None for y in range(24) for segment in screen.query_one(Columns).render_line(y))


async def test_a_long_word_is_broken_and_nothing_is_wider_than_its_column(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_ladder(pilot, prompt="")
        texts = [ColumnText("0.5"), ColumnText("木" * 40, about="a " * 90)]
        for text, word in zip(texts, ("x" * 40, "高い塔" * 9), strict=True):
            text.events = [TokenEvent(i, 5, word, -1.0, 0.5, 1, 1.0, 5, (), 0.0) for i in range(3)]
        columns = screen.query_one(Columns)
        columns.show(texts, 1)
        await pilot.pause()
        assert all(columns.render_line(y).cell_length == columns.size.width for y in range(columns.size.height))
        assert shown(screen).count("x") == 120


def typed_back(values: Sequence[float]) -> list[float]:
    return parse_temperatures(" ".join(shown_temperature(value) for value in values))


def test_temperatures_are_read_as_they_are_shown() -> None:
    assert parse_temperatures("0.5, .7 0.75,1 2.") == [0.5, 0.7, 0.75, 1.0, 2.0]
    values = [0.0, 0.05, 0.125, 0.7251, 1.0, 2.0]
    assert typed_back(values) == values
    for bad in ("nan", "inf", "-1", "1e9", "warm"):
        with pytest.raises(UnusableInput):
            parse_temperatures(bad)


def test_steps_stay_on_the_grid_and_in_range() -> None:
    assert step_temperature(0.75, 1) == 0.8
    assert step_temperature(0.725, 1) in (0.75, 0.8)
    assert step_temperature(0.0, -1) == 0.0
    assert step_temperature(2.0, 1) == 2.0
