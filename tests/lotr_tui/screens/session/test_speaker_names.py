"""Names of speakers before the lines of a conversation, and the bars of who answers."""

from collections.abc import Sequence

import pytest
from rich.cells import cell_len
from textual.app import App
from textual.pilot import Pilot

from engine.generation.generate import Done
from engine.generation.turns import SpeakerProb
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.screens.session.who_answers_bars import WhoAnswersBars
from lotr_tui.session.conversation.entries import Exchange
from lotr_tui.session.conversation.speaker_labels import (
    MAX_NAME_WIDTH,
    SPEAKER_STYLES,
    UNCAST_STYLE,
    exchange_speakers,
    name_column_width,
    speaker_style,
)
from lotr_tui.theme import SHIRE, SHIRE_LIGHT
from tests.support.app import ThemedApp
from tests.support.pilot import MakeApp, lines_of

CAST = ("GANDALF", "FRODO", "KING OF THE DEAD OF THE MOUNTAIN", "甘道夫", "SOMEONE")
TEXT = "it is safe for tonight and nobody will find it here before the morning comes over the hills"


def exchange(prompt: str, speaking_as: str, speaker: str, text: str = TEXT) -> Exchange:
    """Return a complete turn of a conversation."""
    turn = Exchange(prompt, (), 7, "temperature 0.80", speakers=exchange_speakers(CAST, speaking_as, speaker))
    turn.pieces = [f" {word}" for word in text.split()]
    turn.mark_done(Done("eos", 7, len(turn.pieces), 900.0))
    turn.choice = "Gandalf by your choice"
    return turn


async def show(pilot: Pilot[None], *turns: Exchange) -> Transcript:
    """Show turns in a transcript."""
    transcript = Transcript("welcome")
    await pilot.app.screen.mount(transcript)
    transcript.set_name_width(name_column_width(CAST))
    transcript.replace_entries(1, turns)
    await pilot.pause()
    return transcript


def text_columns(transcript: Transcript) -> set[int]:
    """Return the cells at which the lines of turns begin, beside the names and below them."""
    columns = set()
    for index in range(1, len(transcript.entries)):
        for strip in transcript._entry_strips(index):
            text = strip.text
            start = text.find(TEXT[:5]) if TEXT[:5] in text else len(text) - len(text.lstrip())
            columns.add(cell_len(text[:start]))
    return columns


@pytest.mark.parametrize("width", [120, 60, 50, 30])
async def test_all_lines_of_text_begin_in_one_column(width: int) -> None:
    app = ThemedApp()
    async with app.run_test(size=(width, 40)) as pilot:
        transcript = await show(pilot, *(exchange("", "", name) for name in CAST))
        assert len(text_columns(transcript)) == 1
        assert all(strip.cell_length <= width for index in range(6) for strip in transcript._entry_strips(index))


async def test_a_long_name_is_cut_and_the_text_is_not() -> None:
    app = ThemedApp()
    async with app.run_test(size=(80, 20)) as pilot:
        shown = lines_of(await show(pilot, exchange("hello there", "FRODO", CAST[2], "who calls")))
        assert "King of the…  who calls" in shown
        assert "❯ Frodo         hello there" in shown
        assert cell_len("King of the…") == MAX_NAME_WIDTH


async def test_figures_stand_below_the_text_and_name_the_choice_before_the_branch() -> None:
    app = ThemedApp()
    async with app.run_test(size=(120, 20)) as pilot:
        turn = exchange("hello", "", "GANDALF", "hello")
        turn.branch_label, turn.best_of = "branch 1 of 8", "best of 8 (+4.0)"
        lines = lines_of(await show(pilot, turn)).splitlines()
        row = next(row for row, line in enumerate(lines) if "seed 7" in line)
        figures = "seed 7 · T 0.80 · best of 8 (+4.0) · Gandalf by your choice · branch 1 of 8 · 900 words/s"
        assert lines[row].strip() == figures
        assert lines[row].index("seed") == lines[row - 1].index("hello")


async def test_a_click_finds_the_word_beside_a_name() -> None:
    app = ThemedApp()
    async with app.run_test(size=(60, 20)) as pilot:
        transcript = await show(pilot, exchange("hello", "", "GANDALF"), exchange("", "", "FRODO", "no one is here"))
        lines = lines_of(transcript).splitlines()
        row = next(row for row, line in enumerate(lines) if "no one" in line)
        await pilot.click(Transcript, offset=(lines[row].index("one") + 3, row + 1))
        assert transcript.cursor == (2, 1)
        await pilot.click(Transcript, offset=(4, row + 1))  # on the name
        assert transcript.cursor == (2, 1)
        row = next(row for row, line in enumerate(lines) if "hello" in line)
        await pilot.click(Transcript, offset=(lines[row].index("hello") + 3, row + 1))
        assert transcript.cursor == (1, 0)


def test_the_style_of_a_speaker_depends_on_the_place_in_the_cast() -> None:
    assert speaker_style("FRODO", CAST) == SPEAKER_STYLES[1]
    assert speaker_style("SAURON", CAST) == UNCAST_STYLE
    many = tuple(f"N{number}" for number in range(40))
    assert speaker_style("N13", many) == SPEAKER_STYLES[13 % len(SPEAKER_STYLES)]


@pytest.mark.parametrize("theme", [SHIRE.name, SHIRE_LIGHT.name, "nord", "solarized-light", "ansi-dark", "ansi-light"])
async def test_speakers_have_colours_and_bold_names_in_every_theme(make_host: MakeApp, theme: str) -> None:
    app = make_host()
    async with app.run_test(size=(80, 20)) as pilot:
        app.theme = theme
        transcript = await show(pilot, *(exchange("", "", name) for name in CAST[:2]))
        styles = [segment.style for index in (1, 2) for segment in list(transcript._entry_strips(index)[0])[1:2]]
        assert all(style is not None and style.bold for style in styles)
        assert styles[0] != styles[1]
        assert styles[0] is not None
        assert styles[0].color != transcript.rich_style.color


def probs_of(*probs: float) -> list[SpeakerProb]:
    return [SpeakerProb(name, 8 + index, prob) for index, (name, prob) in enumerate(zip(CAST, probs, strict=False))]


async def bars(app: App[None], pilot: Pilot[None], probs: Sequence[SpeakerProb], chosen: str) -> list[str]:
    """Return the painted lines of the bars."""
    widget = WhoAnswersBars()
    await app.screen.mount(widget)
    widget.show(probs, CAST, chosen)
    await pilot.pause()
    return [" ".join(line.split()) for line in lines_of(widget).splitlines() if line.strip()]


@pytest.mark.parametrize("width", [20, 46, 100])
async def test_bars_are_as_long_as_the_probabilities(width: int) -> None:
    app = ThemedApp()
    async with app.run_test(size=(width, 12)) as pilot:
        lines = await bars(app, pilot, probs_of(0.5, 0.25, 0.125), "")
        lengths = [line.count("█") for line in lines[1:]]
        assert lengths[0] > 0
        assert lengths[1] == pytest.approx(lengths[0] / 2, abs=1)
        assert [line.rpartition(" ")[0].rpartition(" ")[2] for line in lines[1:]] == ["50", "25", "12"]


async def test_the_chosen_speaker_is_shown_however_unlikely() -> None:
    app = ThemedApp()
    async with app.run_test(size=(80, 12)) as pilot:
        names = [SpeakerProb(f"N{number}", number, 0.1) for number in range(8)]
        lines = await bars(app, pilot, [*names, SpeakerProb("FRODO", 9, 0.001)], "FRODO")
        assert lines[0] == "WHO ANSWERS Frodo by your choice"
        assert lines[-1].startswith("● Frodo")
        assert len(lines) == 6


async def test_without_probabilities_the_bars_have_only_their_title() -> None:
    app = ThemedApp()
    async with app.run_test(size=(80, 12)) as pilot:
        assert await bars(app, pilot, [], "") == ["WHO ANSWERS the model chooses"]
